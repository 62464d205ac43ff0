//! Tests of how written settings resolve, and of the errors for invalid ones.

use std::collections::BTreeMap;
use std::io::Write as _;

use axum::http::Uri;

use super::raw::{DEFAULTS, SUPABASE_LIMITS, variable_for};
use super::secret_file::SECRETS;
use super::*;

/// The settings without a usable default.
const REQUIRED: &[(&str, &str)] = &[
    ("DATABASE_URL", "postgres://ana:pw@db/chat"),
    (
        "SUPABASE_JWT_SECRET",
        "a-secret-of-at-least-thirty-two-bytes",
    ),
];

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(pairs: &[(&str, &str)], text: &str, flags: Vec<Flag>) -> Result<Config, String> {
    let mut all = environment(REQUIRED);
    all.extend(environment(pairs));
    let file = file(text);
    let inputs = Inputs {
        file: Some(file.path().to_owned()),
        environment: &all,
        flags,
    };
    Config::load(&inputs).map_err(|error| {
        error
            .to_string()
            .replace(&file.path().display().to_string(), "rapport.toml")
    })
}

#[test]
fn defaults_and_the_two_required_values_suffice() {
    let config = load(&[], "", vec![]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.database.request_url, config.database.url);
}

#[test]
fn later_sources_take_precedence() {
    let text = "[server]\nport = 1";
    let flag = || Flag {
        name: "--port",
        key: "server.port",
        value: "4".to_owned(),
    };
    for (pairs, text, flags, expected) in [
        (vec![], "", vec![], 4000),
        (vec![], text, vec![], 1),
        (vec![("PORT", "2")], text, vec![], 2),
        (
            vec![("PORT", "2"), ("RAPPORT_SERVER_PORT", "3")],
            text,
            vec![],
            3,
        ),
        (vec![("RAPPORT_SERVER_PORT", "3")], text, vec![flag()], 4),
    ] {
        let config = load(&pairs, text, flags).unwrap();
        assert_eq!(config.server.listen.port(), expected, "{pairs:?}");
    }
}

#[test]
fn variables_outside_our_sections_are_ignored() {
    let config = load(
        &[("RAPPORT_BIN", "/x"), ("RAPPORT_SERVER_PORT", "3")],
        "",
        vec![],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 3);
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_named_rapport_are_ignored() {
    let links = [
        ("RAPPORT_SERVICE_HOST", "10.0.0.1"),
        ("RAPPORT_SERVICE_PORT", "4000"),
        ("RAPPORT_SERVICE_PORT_HTTP", "4000"),
        ("RAPPORT_PORT", "tcp://10.0.0.1:4000"),
        ("RAPPORT_PORT_4000_TCP_ADDR", "10.0.0.1"),
        ("RAPPORT_API_PORT", "tcp://10.0.0.1:4000"),
    ];
    assert_eq!(load(&links, "", vec![]).unwrap().server.listen.port(), 4000);
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
    );
    let cases: &[Case] = &[
        (
            &[("RAPPORT_SERVER_PROT", "1")],
            "",
            "RAPPORT_SERVER_PROT is not a setting; did you mean RAPPORT_SERVER_PORT?",
        ),
        (
            &[],
            "[server]\nprot = 1",
            "`server.prot` in rapport.toml is not a setting; did you mean `server.port`?",
        ),
        (&[], "port = 1", "`port` in rapport.toml is not a setting"),
        (
            &[],
            "[server]\nport = \"1\"",
            "`server.port` in rapport.toml must be a whole number",
        ),
        (&[("PORT", "web")], "", "PORT must be a whole number"),
        (&[("PORT", "65536")], "", "PORT must be from 0 to 65535"),
        (
            &[("RAPPORT_SERVER_ADDRESS", "localhost")],
            "",
            "RAPPORT_SERVER_ADDRESS must be an IP address",
        ),
        (
            &[("RAPPORT_SERVER_METRICS_LISTEN", "9091")],
            "",
            "RAPPORT_SERVER_METRICS_LISTEN must be an IP address with a port",
        ),
        (
            &[("RAPPORT_REPLICATION_KEEP_SLOT", "perhaps")],
            "",
            "RAPPORT_REPLICATION_KEEP_SLOT must be true or false",
        ),
        (
            &[("RAPPORT_REPLICATION_SLOT_NAME", "My Slot")],
            "",
            "may contain only lower-case letters",
        ),
        (
            &[("RAPPORT_CHAT_HOST_PRESET", "x")],
            "",
            "must be one of auto, basejump, makerkit, users_members, profiles_members, users_table, \
             profiles_team, makerkit_v1, claims, one_team, rbac, own_views",
        ),
        (
            &[("RAPPORT_DATABASE_URL", "mysql://db")],
            "",
            "begins with postgresql://",
        ),
        (
            &[("RAPPORT_AUTH_JWKS", "/does/not/exist")],
            "",
            "names a file that cannot be read",
        ),
        (
            &[("RAPPORT_REALTIME_QUEUE_MAX_BYTES", "2000")],
            "",
            "a frame of that size could never be sent",
        ),
        (
            &[("RAPPORT_SERVER_TRUSTED_PROXIES", "10.0.0.0/8,proxy")],
            "",
            "RAPPORT_SERVER_TRUSTED_PROXIES contains `proxy`, which is not an address or network",
        ),
        (
            &[("RAPPORT_REALTIME_LIMITS_PRESET", "x")],
            "",
            "must be one of rapport, supabase",
        ),
        (
            &[("RAPPORT_LOG_LEVEL", "rapport=loud")],
            "",
            "RAPPORT_LOG_LEVEL must be a level",
        ),
    ];
    for (pairs, text, expected) in cases {
        let error = load(pairs, text, vec![]).unwrap_err();
        assert!(
            error.contains(expected),
            "expected `{expected}` in: {error}"
        );
    }
    let several = load(&[("PORT", "x"), ("RAPPORT_LOG_FORMAT", "x")], "", vec![]).unwrap_err();
    assert!(
        several.contains("PORT") && several.contains("RAPPORT_LOG_FORMAT"),
        "{several}"
    );
}

#[test]
fn missing_required_settings_are_reported_by_name() {
    let nothing = BTreeMap::new();
    let inputs = Inputs {
        file: None,
        environment: &nothing,
        flags: vec![],
    };
    let error = Config::load(&inputs).unwrap_err().to_string();
    assert!(
        error.contains("DATABASE_URL") && error.contains("SUPABASE_JWT_SECRET"),
        "{error}"
    );
}

#[test]
fn messages_and_debug_output_show_no_secret() {
    let secrets = &[
        (
            "RAPPORT_AUTH_JWT_SECRET",
            "hush-1, and as long as a secret must be",
        ),
        ("RAPPORT_AUTH_SERVICE_ROLE_KEY", "hush-2"),
        ("RAPPORT_DATABASE_URL", "postgres://ana:hush-3@db/chat"),
        ("RAPPORT_SERVER_METRICS_TOKEN", "hush-4"),
        ("RAPPORT_AUTH_SECRET_KEYS", "hush-9,hush-10"),
        ("RAPPORT_UPSTREAM_SERVICE_JWT", "hush-11"),
        (
            "RAPPORT_AUTH_JWT_SECRET_NEXT",
            "hush-6, and as long as a secret must be",
        ),
        (
            "RAPPORT_AUTH_JWKS",
            r#"{"keys":[{"kty":"oct","kid":"a","k":"hush-7-hush-7-hush-7-hush-7-hush-7-hush-7-hush"}]}"#,
        ),
    ];
    let config = load(secrets, "", vec![]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let mut wrong = secrets.to_vec();
    wrong.push(("PORT", "x"));
    wrong.push(("RAPPORT_DATABASE_REQUEST_URL", "hush-5"));
    wrong.push(("RAPPORT_AUTH_JWT_SECRET_NEXT", "hush-6"));
    wrong.push((
        "RAPPORT_AUTH_JWKS",
        r#"{"keys":[{"kty":"oct","k":"hush-7"}]}"#,
    ));
    assert!(!load(&wrong, "", vec![]).unwrap_err().contains("hush"));
    // The parser quotes the line that it cannot read.
    for text in [
        "[auth]\njwt_secret = \"hush-8",
        "[auth]\njwt_secret = hush-8",
    ] {
        let error = load(&[], text, vec![]).unwrap_err();
        assert!(!error.contains("hush"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }
}

#[test]
fn every_secret_can_be_read_from_a_file() {
    let variables = environment(REQUIRED);
    let inputs = Inputs {
        file: None,
        environment: &variables,
        flags: vec![],
    };
    let (_, reader) = resolve(&inputs, Config::read).unwrap();
    assert_eq!(reader.secret_keys(), SECRETS);

    let value = "postgres://hush@db/hush-and-at-least-thirty-two-bytes";
    let secret = file(&format!("{value}\n"));
    let path = secret.path().display().to_string();
    for key in SECRETS {
        let variable = format!("{}_FILE", variable_for(key));
        let pairs: Vec<_> = REQUIRED
            .iter()
            .copied()
            .filter(|(name, _)| {
                !matches!((*name, *key), ("DATABASE_URL", "database.url"))
                    && !matches!((*name, *key), ("SUPABASE_JWT_SECRET", "auth.jwt_secret"))
            })
            .chain([(variable.as_str(), path.as_str())])
            .collect();
        let inputs = environment(&pairs);
        let inputs = Inputs {
            file: None,
            environment: &inputs,
            flags: vec![],
        };
        let raw = Raw::read(&inputs).unwrap();
        let read = match &raw.settings[*key].value {
            toml::Value::Array(values) => values[0].as_str(),
            read => read.as_str(),
        };
        assert_eq!(read, Some(value), "{key}");
        let printed = describe(&inputs).unwrap();
        assert!(printed.contains(&path), "{printed}");
        assert!(!printed.contains("_file"), "{printed}");
        let masked = printed.replace("postgres://hush@db/hush", "");
        assert!(!masked.contains("hush"), "{printed}");
    }
}

#[test]
fn secrets_in_files_have_the_names_of_other_programs_too() {
    let url = file("postgres://ana:pw@other/chat");
    let keys = file("sb_secret_a\nsb_secret_b\n");
    let text = format!("[auth]\nsecret_keys_file = \"{}\"", keys.path().display());
    let path = url.path().display().to_string();
    let config = load(
        &[("DATABASE_URL", ""), ("DATABASE_URL_FILE", &path)],
        &text,
        vec![],
    )
    .unwrap();
    assert_eq!(config.database.url.expose(), "postgres://ana:pw@other/chat");
    let keys: Vec<&str> = config.auth.secret_keys.iter().map(Secret::expose).collect();
    assert_eq!(keys, ["sb_secret_a", "sb_secret_b"]);

    // A flag takes precedence over a file, which `rapport dev` relies on.
    let flag = Flag {
        name: "rapport dev",
        key: "database.url",
        value: "postgres://private/chat".to_owned(),
    };
    let config = load(&[("DATABASE_URL_FILE", &path)], "", vec![flag]).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://private/chat");
}

#[test]
fn a_secret_in_a_file_that_cannot_be_used_is_an_error() {
    let (empty, secret) = (file(" \n"), file("hush"));
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    for (path, problem) in [
        (
            path(&empty),
            "RAPPORT_AUTH_JWT_SECRET_NEXT_FILE names an empty file",
        ),
        (
            "/does/not/exist".to_owned(),
            "RAPPORT_AUTH_JWT_SECRET_NEXT_FILE names a file that cannot be read: /does/not/exist",
        ),
        (path(&secret), "has 4 bytes"),
    ] {
        let error = load(&[("RAPPORT_AUTH_JWT_SECRET_NEXT_FILE", &path)], "", vec![]).unwrap_err();
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let error = load(&[("DATABASE_URL_FILE", &path(&secret))], "", vec![]).unwrap_err();
    assert!(
        error.contains("DATABASE_URL_FILE and DATABASE_URL are both set; remove one"),
        "{error}"
    );
    // Only settings that hold secrets can be read from files.
    let error = load(&[("RAPPORT_SERVER_PORT_FILE", "/x")], "", vec![]).unwrap_err();
    assert!(error.contains("is not a setting"), "{error}");
}

#[test]
fn names_of_a_self_hosted_supabase_are_synonyms() {
    let keys = r#"{"keys":[]}"#;
    let pairs = [
        ("SUPABASE_JWT_SECRET", ""),
        ("JWT_SECRET", "of-the-env-file-and-at-least-32-bytes"),
        ("API_JWT_JWKS", keys),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_a"),
        ("SUPABASE_SECRET_KEY", "sb_secret_a"),
    ];
    let auth = load(&pairs, "", vec![]).unwrap().auth;
    let exposed =
        |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    assert_eq!(
        exposed(&auth.jwt_secret).as_deref(),
        Some("of-the-env-file-and-at-least-32-bytes")
    );
    assert_eq!(auth.jwks, Some(KeySource::Text(Secret::new(keys))));
    assert_eq!(auth.publishable_keys[0].expose(), "sb_publishable_a");
    assert_eq!(auth.secret_keys[0].expose(), "sb_secret_a");
    // `SUPABASE_JWT_SECRET` takes precedence over `JWT_SECRET`, which could belong to another
    // program.
    let mut both = pairs;
    both[0].1 = "of-the-project-and-at-least-32-bytes";
    let auth = load(&both, "", vec![]).unwrap().auth;
    assert_eq!(
        exposed(&auth.jwt_secret).as_deref(),
        Some("of-the-project-and-at-least-32-bytes")
    );
}

#[test]
fn signing_secrets_have_a_minimum_length() {
    let (short, long) = ("x".repeat(31), "x".repeat(32));
    let key = |length: usize| {
        format!(
            r#"{{"keys":[{{"kty":"oct","kid":"a","k":"{}"}}]}}"#,
            "A".repeat(length)
        )
    };
    let (short_key, long_key) = (key(42), key(43));
    let cases = [
        ("RAPPORT_AUTH_JWT_SECRET", &short, "31 bytes"),
        ("RAPPORT_AUTH_JWT_SECRET", &long, ""),
        ("RAPPORT_AUTH_JWT_SECRET_NEXT", &short, "31 bytes"),
        ("RAPPORT_AUTH_JWT_SECRET_NEXT", &long, ""),
        ("RAPPORT_AUTH_JWKS", &short_key, "position 0"),
        ("RAPPORT_AUTH_JWKS", &long_key, ""),
    ];
    for (variable, value, expected) in cases {
        let error = load(&[(variable, value)], "", vec![]).err();
        match error {
            None => assert_eq!(expected, "", "{variable}"),
            Some(error) => {
                assert!(!expected.is_empty(), "{error}");
                assert!(
                    error.contains(variable) && error.contains(expected),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_key_set_may_be_text_or_a_file() {
    let keys = r#"{"keys":[]}"#;
    let key_file = file(keys);
    for written in [keys.to_owned(), key_file.path().display().to_string()] {
        let config = load(&[("RAPPORT_AUTH_JWKS", &written)], "", vec![]).unwrap();
        assert_eq!(config.auth.jwks, Some(KeySource::Text(Secret::new(keys))));
    }
}

/// Loads settings without a secret.
fn load_without_secret(pairs: &[(&str, &str)], text: &str) -> Result<Config, String> {
    let mut all = pairs.to_vec();
    all.push(("SUPABASE_JWT_SECRET", ""));
    load(&all, text, vec![])
}

#[test]
fn a_key_set_may_have_a_url_or_be_that_of_the_project() {
    let jwks = |url| ("RAPPORT_AUTH_JWKS", url);
    let project = |url| ("SUPABASE_URL", url);
    let auth = |url| ("RAPPORT_UPSTREAM_AUTH_URL", url);
    let at = |url: &'static str| Ok(Some(KeySource::Url(Uri::from_static(url))));
    for (pairs, expected) in [
        (
            vec![jwks("https://a.example/keys?p=1")],
            at("https://a.example/keys?p=1"),
        ),
        (
            vec![jwks("http://127.0.0.1:9/k")],
            at("http://127.0.0.1:9/k"),
        ),
        (vec![jwks("http://localhost/k")], at("http://localhost/k")),
        (vec![jwks("http://[::1]:9/k")], at("http://[::1]:9/k")),
        (
            vec![jwks("http://a.example/k")],
            Err("must begin with https://"),
        ),
        (
            vec![jwks("http://127.0.0.1.a.example/k")],
            Err("must begin with https://"),
        ),
        (
            vec![jwks("https://u:p@a.example/k")],
            Err("without credentials"),
        ),
        (vec![jwks("https:///k")], Err("without credentials")),
        (
            vec![jwks("http://auth:9/k"), auth("http://auth:9")],
            at("http://auth:9/k"),
        ),
        (
            vec![project("https://p.example/")],
            at("https://p.example/auth/v1/.well-known/jwks.json"),
        ),
        (
            vec![project("http://p.example")],
            Err("must begin with https://"),
        ),
        (
            vec![project("https://p.example"), auth("http://auth:9/")],
            at("http://auth:9/.well-known/jwks.json"),
        ),
        (
            vec![project("https://p.example"), jwks("https://a.example/k")],
            at("https://a.example/k"),
        ),
        (vec![], Err("is not set")),
    ] {
        let found = load_without_secret(&pairs, "").map(|config| config.auth.jwks);
        match (found, expected) {
            (Err(error), Err(text)) => assert!(error.contains(text), "{pairs:?} {error}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{pairs:?}"),
        }
    }
    // With a secret, the project's key set is used only if `auth.jwks` names it.
    let config = load(&[project("https://p.example")], "", vec![]).unwrap();
    assert_eq!(config.auth.jwks, None);
}

#[test]
fn issuers_have_their_own_keys() {
    let text = r#"
        [[auth.issuers]]
        issuer = "https://a.example/"
        [[auth.issuers]]
        issuer = ["https://b.example", "http://inner:1"]
        discovery = true
        audience = ["x", "y"]
        roles = ["authenticated", "nurse"]
        person = "account"
        [[auth.issuers]]
        issuer = "c"
        jwks = '{"keys":[]}'
        audience = "z"
    "#;
    let config = load_without_secret(&[], text).unwrap();
    let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&it| it.into()).collect() };
    let url = Uri::from_static;
    let issuer =
        |names: &[&str], keys, audience: &[&str], roles: &[&str], person: &str| IssuerConfig {
            names: texts(names),
            keys,
            audience: texts(audience),
            roles: texts(roles),
            person: person.to_owned(),
        };
    let users = ["authenticated"];
    assert_eq!(
        config.auth.issuers,
        [
            issuer(
                &["https://a.example/"],
                KeySource::Url(url("https://a.example/.well-known/jwks.json")),
                &[],
                &users,
                "sub"
            ),
            issuer(
                &["https://b.example", "http://inner:1"],
                KeySource::Discovery(url("https://b.example/.well-known/openid-configuration")),
                &["x", "y"],
                &["authenticated", "nurse"],
                "account"
            ),
            issuer(
                &["c"],
                KeySource::Text(Secret::new(r#"{"keys":[]}"#)),
                &["z"],
                &users,
                "sub"
            ),
        ]
    );
}

#[test]
fn mistakes_in_issuers_are_reported() {
    for (table, problem) in [
        ("jwks = 'https://a.example/k'", "`issuer` is required"),
        ("issuer = 'a'", "`jwks` is required"),
        ("issuer = 'http://a.example'", "must begin with https://"),
        (
            "issuer = ['https://a.example', 1]",
            "`issuer` must be a text",
        ),
        ("issuer = ''", "`issuer` must be a text"),
        (
            "issuer = 'https://a.example'\naudiance = 'x'",
            "`audiance` is not a setting",
        ),
        (
            "issuer = 'https://a.example'\njwks = 'https://a.example/k'\ndiscovery = true",
            "exclude each other",
        ),
        (
            "issuer = ['https://a.example', 'https://a.example']",
            "twice",
        ),
        ("issuer = 'https://first.example'", "twice"),
    ] {
        let text = format!("[auth]\nissuer = 'https://first.example'\n[[auth.issuers]]\n{table}");
        let error = load(&[], &text, vec![]).err().unwrap_or_default();
        assert!(error.contains(problem), "{table}: {error}");
    }
    let error = load(&[("RAPPORT_AUTH_ISSUERS", "a,b")], "", vec![])
        .err()
        .unwrap();
    assert!(error.contains("must be a list of tables"), "{error}");
}

#[test]
fn the_name_of_the_session_cookie_is_described() {
    for (url, name) in [
        ("https://abcdef.supabase.co/", Some("sb-abcdef-auth-token")),
        ("http://127.0.0.1:54321", Some("sb-127-auth-token")),
        ("http://localhost:8000", Some("sb-localhost-auth-token")),
        ("http://kong", Some("sb-kong-auth-token")),
        ("", None),
    ] {
        let mut variables = environment(REQUIRED);
        variables.extend(environment(&[("SUPABASE_URL", url)]));
        let inputs = Inputs {
            file: None,
            environment: &variables,
            flags: vec![],
        };
        let described = describe(&inputs).unwrap();
        let found = described
            .split_once("session cookie ")
            .and_then(|(_, rest)| rest.split(". ").next());
        assert_eq!(found, name, "{url}");
        assert!(described.parse::<toml::Table>().is_ok());
    }
}

#[test]
fn secrets_of_issuers_are_masked() {
    let text = r#"
        [[auth.issuers]]
        issuer = "a"
        jwks = '{"keys":[{"kty":"oct","k":"a-symmetric-key-of-enough-bytes-to-be-accepted"}]}'
    "#;
    let (variables, file) = (environment(REQUIRED), file(text));
    let inputs = Inputs {
        file: Some(file.path().to_owned()),
        environment: &variables,
        flags: vec![],
    };
    let described = describe(&inputs).unwrap();
    assert!(
        described.contains("***") && !described.contains("a-symmetric-key"),
        "{described}"
    );
}

#[test]
fn the_required_level_is_empty_or_the_second_factor() {
    let level = |level| load(&[("RAPPORT_CHAT_REQUIRED_AAL", level)], "", vec![]);
    assert!(!level("").unwrap().chat.requires_second_factor);
    assert!(level("aal2").unwrap().chat.requires_second_factor);
    assert!(
        level("aal1")
            .err()
            .unwrap()
            .contains("must be empty or aal2")
    );
}

#[test]
fn every_default_is_read_by_a_section() {
    let variables = environment(REQUIRED);
    let inputs = Inputs {
        file: None,
        environment: &variables,
        flags: vec![],
    };
    let (_, reader) = resolve(&inputs, Config::read).unwrap();
    assert_eq!(reader.unread_keys(), Vec::<&str>::new());
}

#[test]
fn every_default_has_a_comment() {
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for (number, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.contains(" = "))
    {
        if !line.starts_with('#') {
            assert!(
                lines[number - 1].starts_with("# "),
                "no comment above `{line}`"
            );
        }
    }
}

#[test]
fn a_preset_replaces_only_defaults() {
    let supabase = [("RAPPORT_REALTIME_LIMITS_PRESET", "supabase")];
    let limits = |pairs: &[(&str, &str)], text: &str| {
        let realtime = load(pairs, text, vec![]).unwrap().realtime;
        (
            realtime.max_concurrent_users,
            realtime.max_events_per_second,
            realtime.max_frame_bytes,
        )
    };
    assert_eq!(limits(&supabase, ""), (200, 100, 5_000_000));
    assert_ne!(limits(&[], ""), limits(&supabase, ""));
    let mut both = supabase.to_vec();
    both.push(("TENANT_MAX_CONCURRENT_USERS", "300"));
    let text = "[realtime]\nmax_events_per_second = 7";
    assert_eq!(limits(&both, text), (300, 7, 5_000_000));
}

#[test]
fn a_preset_contains_known_keys_of_the_right_type_that_differ_from_the_defaults() {
    let table = |text: &str| text.parse::<toml::Table>().unwrap()["realtime"].clone();
    let (defaults, preset) = (table(DEFAULTS), table(SUPABASE_LIMITS));
    for (key, value) in preset.as_table().unwrap() {
        let default = defaults
            .get(key)
            .unwrap_or_else(|| panic!("{key} is unknown"));
        assert!(value.same_type(default) && value != default, "{key}");
    }
}

#[test]
fn old_rows_of_chat_tables_are_always_checked() {
    const KEY: &str = "RAPPORT_VISIBILITY_TABLES_WITH_UNCHECKED_OLD_ROWS";
    let config = load(&[(KEY, "public.cases")], "", vec![]).unwrap();
    let unchecked = config.visibility.tables_with_unchecked_old_rows;
    assert_eq!(unchecked, ["public.cases"]);
    let publication = include_str!("../../sql/definitions/chat/95_publication.sql");
    let published: Vec<&str> = publication
        .split('\'')
        .filter(|text| text.starts_with("public."))
        .collect();
    assert!(published.len() >= 6, "{published:?}");
    for table in published {
        let error = load(&[(KEY, table)], "", vec![]).err().unwrap();
        assert!(error.contains(table), "{error}");
    }
}

#[test]
fn services_have_plain_urls_of_other_servers() {
    let url = "RAPPORT_UPSTREAM_REST_URL";
    let public = ("RAPPORT_SERVER_PUBLIC_URL", "https://chat.example");
    for (pairs, problem) in [
        (&[(url, "http://rest:3000")][..], None),
        (&[(url, "http://rest:3000/base/"), public], None),
        (&[(url, "rest:3000")], Some("must begin with http")),
        (&[(url, "http://")], Some("without credentials")),
        (
            &[(url, "http://a:b@rest:3000")],
            Some("without credentials"),
        ),
        (&[(url, "http://rest:3000?x")], Some("without credentials")),
        (
            &[(url, "https://chat.example"), public],
            Some("this server itself"),
        ),
        (
            &[("SUPABASE_URL", "https://chat.example/"), public],
            Some("this server itself"),
        ),
    ] {
        let error = load(pairs, "", vec![]).err();
        assert_eq!(error.is_some(), problem.is_some(), "{pairs:?} {error:?}");
        if let (Some(error), Some(problem)) = (error, problem) {
            assert!(error.contains(problem), "{pairs:?} {error}");
            assert_eq!(error.matches(problem).count(), 1, "reported once: {error}");
        }
    }
}

#[test]
fn a_token_exists_for_every_opaque_key_of_a_direct_service() {
    let keys = r#"{"keys":[]}"#;
    let direct = ("RAPPORT_UPSTREAM_REST_URL", "http://rest:3000");
    let opaque = ("RAPPORT_AUTH_PUBLISHABLE_KEYS", "sb_publishable_x");
    let secret = ("RAPPORT_AUTH_SECRET_KEYS", "sb_secret_x");
    for (pairs, setting) in [
        (&[opaque, secret][..], None),
        (&[direct], None),
        (&[direct, opaque], Some("upstream.anon_jwt")),
        (&[direct, opaque, ("SUPABASE_ANON_KEY", "a.b.c")], None),
        (
            &[direct, opaque, ("RAPPORT_UPSTREAM_ANON_JWT", "a.b.c")],
            None,
        ),
        (&[direct, secret], Some("upstream.service_jwt")),
        (
            &[direct, ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_y")],
            Some("upstream.service_jwt"),
        ),
        (
            &[
                direct,
                secret,
                (
                    "SUPABASE_JWT_SECRET",
                    "a-secret-of-at-least-thirty-two-bytes",
                ),
            ],
            None,
        ),
    ] {
        let mut variables = environment(&[
            ("DATABASE_URL", "postgres://localhost/db"),
            ("RAPPORT_AUTH_JWKS", keys),
        ]);
        variables.extend(environment(pairs));
        let loaded = Config::load(&Inputs {
            file: None,
            environment: &variables,
            flags: vec![],
        });
        let error = loaded.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), setting.is_some(), "{pairs:?} {error:?}");
        if let (Some(error), Some(setting)) = (error, setting) {
            assert!(error.contains(setting), "{pairs:?} {error}");
        }
    }
}
