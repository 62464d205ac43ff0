//! The output of `rapport check-config`, and the documents that list the settings and the metrics.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use rapport::config::{Config, Flag, Inputs, describe};
use rapport::observability::metrics::{
    CloseLabel, DropReason, Held, HeldLabels, Limit, Metrics, PermissionWay, RateLimitLabels,
    RequestLabels,
};

use crate::support::snapshot::redacted;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

/// Returns every key of the defaults as `section.key`, with its default as written.
fn defaults() -> BTreeMap<String, String> {
    settings("config/default.toml")
}

/// Returns the keys and values of any settings file in the same form.
fn settings(path: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut section = String::new();
    for line in read(path).lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            found.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    found
}

/// Returns the cells of every table row in a document whose first cell is a name in backquotes.
fn rows(document: &str) -> Vec<Vec<String>> {
    document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

/// Compares two lists entry by entry, so that a failure names only the differing entries.
fn assert_same(
    left: &BTreeMap<String, String>,
    right: &BTreeMap<String, String>,
    left_name: &str,
    right_name: &str,
) {
    let wrong: Vec<String> = left
        .keys()
        .chain(right.keys())
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| {
            let (left, right) = (left.get(name), right.get(name));
            format!("{name}: {left:?} in {left_name}, {right:?} in {right_name}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A symmetric key, and a public key that was pasted with its private part.
const KEY_SET: &str = r#"{"keys":[
    {"kty":"oct","kid":"a","alg":"HS256","k":"hush-hush-hush-hush-hush-hush-hush-hush-hush"},
    {"kty":"EC","kid":"b","crv":"P-256","x":"x","y":"y","d":"hush"}]}"#;

#[test]
fn the_printed_settings_show_origins_and_no_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rapport.toml");
    fs::write(
        &path,
        "[server]\nallowed_origins = [\"https://app.example.com\"]\n",
    )
    .unwrap();
    let environment: BTreeMap<String, String> = [
        (
            "DATABASE_URL",
            "postgresql://owner:hush@db.example.com/chat?sslmode=verify-full",
        ),
        (
            "SUPABASE_JWT_SECRET",
            "hush, and as long as a secret must be",
        ),
        ("RAPPORT_AUTH_JWKS", KEY_SET),
        (
            "RAPPORT_AUTH_SECRET_KEYS",
            "sb_secret_hush,sb_secret_hush_too",
        ),
        ("RAPPORT_UPSTREAM_SERVICE_JWT", "hush"),
        ("RAPPORT_REPLICATION_KEEP_SLOT", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let flag = Flag {
        name: "--port",
        key: "server.port",
        value: "8080".to_owned(),
    };
    let inputs = Inputs {
        file: Some(path.clone()),
        environment: &environment,
        flags: vec![flag],
    };
    let printed = describe(&inputs)
        .unwrap()
        .replace(&path.display().to_string(), "rapport.toml");
    assert!(!printed.contains("hush"));

    redacted(&[]).bind(|| assert_snapshot!("check_config", printed));
}

#[test]
fn the_documentation_lists_every_setting_with_its_variable_and_default() {
    let document = read("docs/configuration.md");
    let documented: BTreeMap<String, String> = rows(&document)
        .into_iter()
        .filter(|cells| cells[0].contains('.'))
        .map(|cells| {
            let variable = format!("RAPPORT_{}", cells[0].replace('.', "_").to_uppercase());
            assert_eq!(cells[1], variable);
            assert!(!cells[3].is_empty(), "{} has no description", cells[0]);
            (cells[0].clone(), cells[2].clone())
        })
        .collect();
    assert_same(
        &documented,
        &defaults(),
        "docs/configuration.md",
        "config/default.toml",
    );
}

#[test]
fn the_table_of_limits_shows_both_sets() {
    let (mut defaults, preset) = (defaults(), settings("config/limits.supabase.toml"));
    let document = read("docs/configuration.md");
    let mut shown = (BTreeMap::new(), BTreeMap::new());
    for cells in rows(&document) {
        if let [name, ours, theirs, _] = cells.as_slice()
            && !name.contains('.')
        {
            shown.0.insert(format!("realtime.{name}"), ours.clone());
            shown.1.insert(format!("realtime.{name}"), theirs.clone());
        }
    }
    defaults.retain(|key, _| shown.0.contains_key(key));
    assert_same(&shown.0, &defaults, "the table", "config/default.toml");
    defaults.extend(preset);
    assert_same(
        &shown.1,
        &defaults,
        "the table",
        "config/limits.supabase.toml",
    );
}

#[test]
fn the_example_variables_are_accepted() {
    let variables: BTreeMap<String, String> = read("config/example.env")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let config = Config::load(&Inputs {
        file: None,
        environment: &variables,
        flags: vec![],
    });
    assert_eq!(config.unwrap().server.allowed_origins.len(), 2);
}

/// Returns the metric names in an exposition with their types, as its `# TYPE` lines declare them.
/// The names are in the form in which they are queried.
fn declared(exposition: &str) -> BTreeMap<String, String> {
    exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

/// Returns metrics of which each has counted something under every label.
fn used_metrics() -> Metrics {
    let metrics = Metrics::new();
    // A metric with labels is printed only after it has counted something.
    metrics.realtime.dropped(DropReason::Malformed);
    metrics.realtime.limited(Limit::Sockets);
    let held = HeldLabels { held: Held::Frames };
    metrics.realtime.held.get_or_create(&held).set(1);
    let class = RateLimitLabels { class: "send" };
    metrics.chat.rate_limited.get_or_create(&class).inc();
    metrics.realtime.permission_checked(PermissionWay::Known);
    metrics.realtime.closed(CloseLabel::Client).inc();
    metrics.auth.key_set("project").fetched(true);
    let service = metrics.upstream.service("rest");
    service.answered(200, std::time::Duration::ZERO);
    metrics
        .http
        .requests
        .get_or_create(&RequestLabels {
            method: "GET",
            route: "/health".to_owned(),
            status: 200,
        })
        .inc();
    metrics
}

/// Sorts the values of each metric by their labels, whose order in an exposition is random. The
/// buckets of a histogram keep their order.
fn sorted(exposition: &str) -> String {
    let name = |line: &&str| line.split(['{', ' ']).next().map(str::to_owned);
    let mut lines: Vec<&str> = exposition.lines().collect();
    for group in lines.chunk_by_mut(|left, right| name(left) == name(right)) {
        if !group[0].contains("_bucket{") && !group[0].starts_with('#') {
            group.sort_unstable();
        }
    }
    lines.join("\n")
}

#[test]
fn the_exposition_has_the_same_names_kinds_and_labels() {
    let exposition = sorted(&used_metrics().encode().unwrap());
    let values = (r"(?m)^([^# ][^ {]*(\{[^}]*\})?) .*$", "$1");
    let buckets = (r#"(?m)^([^ {]*_bucket)\{.*\n(.*_bucket\{.*\n)*"#, "$1{…}\n");
    let version = (r#"version="[^"]+""#, r#"version="…""#);
    redacted(&[values, buckets, version]).bind(|| assert_snapshot!("metrics", exposition));
}

#[test]
fn the_documentation_lists_every_metric() {
    let metrics = used_metrics();
    let document = read("docs/metrics.md");
    let documented: BTreeMap<String, String> = rows(&document)
        .into_iter()
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    let declared = declared(&metrics.encode().unwrap());
    assert_same(&documented, &declared, "docs/metrics.md", "the registry");
}
