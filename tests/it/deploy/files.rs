//! The files for deployments agree with the program: settings, ports, paths, users, time limits and
//! versions. Docker and Kubernetes themselves are not run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rapport::config::{Config, Inputs, MigrateConfig, describe};
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::token::JWT_SECRET;

/// The directories in which the manifests and the unit expect secrets.
const SECRETS: &[&str] = &["/run/secrets/rapport/", "%d/"];

const KUBERNETES: &[&str] = &["rapport", "migrate", "network-policy", "service-monitor"];

/// The user of the container image.
const USER: i64 = 10_001;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn documents(path: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the entry of a mapping, also from a mapping that is merged into it with `<<`.
fn entry(mapping: &Yaml, key: &str) -> Yaml {
    let own = mapping[key].clone();
    if own.is_badvalue() {
        mapping["<<"][key].clone()
    } else {
        own
    }
}

fn string(value: &Yaml) -> String {
    match value {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(flag) => flag.to_string(),
        other => panic!("not a plain value: {other:?}"),
    }
}

fn list(value: &Yaml) -> Vec<String> {
    value.as_vec().unwrap().iter().map(string).collect()
}

/// Replaces the variables of a Compose file. Every variable must be in `values`, or have a default.
fn substituted(text: &str, values: &BTreeMap<&str, &str>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, after) = variable.split_once('}').unwrap();
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable.split(":?").next().unwrap(), None),
        };
        let value = values.get(name).copied().or(default);
        result.push_str(before);
        result.push_str(value.unwrap_or_else(|| panic!("unknown variable {name}")));
        rest = after;
    }
    result + rest
}

/// What a command loads from its variables.
struct Loaded {
    /// The configuration, if the command is `serve`.
    serve: Option<Config>,
}

/// Loads the settings of `serve` or `migrate`. Every variable must have an effect.
fn load(command: &str, variables: &BTreeMap<String, String>) -> Loaded {
    let inputs = Inputs {
        file: None,
        environment: variables,
        flags: Vec::new(),
    };
    if command == "migrate" {
        MigrateConfig::load(&inputs).unwrap();
        // The other sections may be incomplete for this command.
        let mut complete = variables.clone();
        if !variables.contains_key("JWT_SECRET") {
            complete.insert("SUPABASE_JWT_SECRET".to_owned(), JWT_SECRET.to_owned());
        }
        assert_all_effective(&complete);
        return Loaded { serve: None };
    }
    assert_eq!(command, "serve");
    assert_all_effective(variables);
    Loaded {
        serve: Some(Config::load(&inputs).unwrap()),
    }
}

fn assert_all_effective(variables: &BTreeMap<String, String>) {
    let printed = describe(&Inputs {
        file: None,
        environment: variables,
        flags: Vec::new(),
    })
    .unwrap();
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        let source = if name.ends_with("_FILE") { value } else { name };
        assert!(
            printed.contains(&format!("  # {source}\n")),
            "{name} has no effect:\n{printed}"
        );
    }
}

/// Replaces paths of secrets by files with valid content.
fn with_secrets(
    variables: impl Iterator<Item = (String, String)>,
    directory: &Path,
) -> BTreeMap<String, String> {
    let replaced = variables.map(|(name, value)| {
        let Some(file) = SECRETS.iter().find_map(|prefix| value.strip_prefix(prefix)) else {
            return (name, value);
        };
        let content = match file {
            "jwt-secret" | "jwt_secret" => JWT_SECRET,
            _ => "postgresql://server:secret@db/postgres",
        };
        let path = directory.join(file);
        fs::write(&path, content).unwrap();
        (name, path.display().to_string())
    });
    replaced.collect()
}

/// Checks that an image has an exact version.
fn assert_pinned(image: &str) {
    let (_, tag) = image
        .rsplit_once(':')
        .unwrap_or_else(|| panic!("{image} has no version"));
    let parts = tag.split('-').next().unwrap().split('.');
    assert!(parts.clone().count() >= 2, "{image}");
    for part in parts {
        assert!(part.parse::<u32>().is_ok(), "{image}");
    }
    if image.starts_with("rapport:") {
        assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{image}");
    }
}

#[test]
fn compose_files_set_only_what_exists() {
    let ours = BTreeMap::from([("POSTGRES_PASSWORD", "secret"), ("JWT_SECRET", JWT_SECRET)]);
    // The variables in `docker/.env` of a self-hosted Supabase.
    let supabase = BTreeMap::from([
        ("POSTGRES_PASSWORD", "secret"),
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_PORT", "5432"),
        ("POSTGRES_DB", "postgres"),
        ("JWT_SECRET", JWT_SECRET),
        ("ANON_KEY", "anon"),
        ("SERVICE_ROLE_KEY", "service"),
        ("SUPABASE_PUBLIC_URL", "http://localhost:8000"),
        ("JWT_JWKS", r#"{"keys":[]}"#),
        ("SUPABASE_PUBLISHABLE_KEY", "a.b.c"),
        ("SUPABASE_SECRET_KEY", "d.e.f"),
    ]);
    for (path, values, migrate) in [
        ("compose.yaml", ours, "migrate"),
        ("compose.supabase.yaml", supabase, "rapport-migrate"),
    ] {
        let file = &documents(path)[0];
        let services = &file["services"];
        for (name, service) in services.as_hash().unwrap() {
            let image = entry(service, "image");
            // `realtime` is only changed; Supabase's own file has its image.
            if name.as_str() != Some("realtime") {
                assert_pinned(&substituted(image.as_str().unwrap(), &values));
            }
        }
        for (name, command) in [("rapport", "serve"), (migrate, "migrate")] {
            let service = &services[name];
            assert_eq!(list(&service["command"]), [command], "{path}");
            let environment = entry(service, "environment");
            // What the image itself sets.
            let image = ("RAPPORT_SERVER_ADDRESS".to_owned(), "0.0.0.0".to_owned());
            let variables = environment.as_hash().unwrap().iter();
            let variables = variables
                .map(|(name, value)| (string(name), substituted(&string(value), &values)))
                .chain([image])
                .collect();
            if let Some(config) = load(command, &variables).serve {
                assert_eq!(list(&service["ports"]), ["127.0.0.1:4000:4000"], "{path}");
                assert_eq!(config.server.listen.to_string(), "0.0.0.0:4000");
                let grace = string(&service["stop_grace_period"]);
                assert_longer(&grace, &config);
                let condition = &service["depends_on"][migrate]["condition"];
                assert_eq!(condition.as_str(), Some("service_completed_successfully"));
            }
        }
    }
    let file = &documents("compose.supabase.yaml")[0];
    let aliases = &file["services"]["rapport"]["networks"]["default"]["aliases"];
    assert_eq!(list(aliases), ["realtime-dev.supabase-realtime"]);
    let disabled = &file["services"]["realtime"]["profiles"];
    assert_eq!(disabled.as_vec().map(Vec::len), Some(1));
}

/// Checks that a process is not killed before its own deadline.
fn assert_longer(grace: &str, config: &Config) {
    let seconds: u64 = grace.trim_end_matches('s').parse().unwrap();
    assert!(
        seconds > config.server.shutdown_deadline.as_secs(),
        "{grace}"
    );
}

#[test]
fn manifests_agree_with_the_program() {
    let directory = tempfile::tempdir().unwrap();
    for (file, command) in [("rapport", "serve"), ("migrate", "migrate")] {
        let documents = documents(&format!("deploy/kubernetes/{file}.yaml"));
        let template = &documents[0]["spec"]["template"]["spec"];
        let security = &template["securityContext"];
        assert_eq!(security["runAsUser"].as_i64(), Some(USER), "{file}");
        assert_eq!(security["runAsNonRoot"].as_bool(), Some(true), "{file}");
        let container = &template["containers"][0];
        assert_pinned(container["image"].as_str().unwrap());
        assert_eq!(list(&container["args"]), [command]);
        // Every secret that a variable names is mounted.
        let mount = string(&container["volumeMounts"][0]["mountPath"]);
        let items = template["volumes"][0]["secret"]["items"].as_vec().unwrap();
        let mounted: Vec<String> = items
            .iter()
            .map(|item| format!("{mount}/{}", string(&item["path"])))
            .collect();
        let variables: Vec<(String, String)> = container["env"]
            .as_vec()
            .unwrap()
            .iter()
            .map(|variable| (string(&variable["name"]), string(&variable["value"])))
            .collect();
        let named: Vec<&String> = variables
            .iter()
            .filter(|(name, _)| name.ends_with("_FILE"))
            .map(|(_, path)| path)
            .collect();
        assert_eq!(named, mounted.iter().collect::<Vec<_>>(), "{file}");

        let image = ("RAPPORT_SERVER_ADDRESS".to_owned(), "0.0.0.0".to_owned());
        let variables = variables.into_iter().chain([image]);
        let variables = with_secrets(variables, directory.path());
        let Some(config) = load(command, &variables).serve else {
            continue;
        };
        let ports: BTreeMap<String, i64> = container["ports"]
            .as_vec()
            .unwrap()
            .iter()
            .map(|port| {
                (
                    string(&port["name"]),
                    port["containerPort"].as_i64().unwrap(),
                )
            })
            .collect();
        let metrics = config.server.metrics_listen.unwrap();
        let listening = [
            ("http".to_owned(), config.server.listen.port().into()),
            ("metrics".to_owned(), metrics.port().into()),
        ];
        assert_eq!(ports, BTreeMap::from(listening));
        assert!(metrics.ip().is_unspecified() && config.server.listen.ip().is_unspecified());
        for (probe, path) in [
            ("startupProbe", "/health"),
            ("livenessProbe", "/health"),
            ("readinessProbe", "/ready"),
        ] {
            let request = &container[probe]["httpGet"];
            assert_eq!(
                (string(&request["path"]), string(&request["port"])),
                (path.to_owned(), "http".to_owned())
            );
        }
        let grace = &template["terminationGracePeriodSeconds"];
        assert_longer(&string(grace), &config);
        for port in documents[1]["spec"]["ports"].as_vec().unwrap() {
            assert_eq!(
                Some(&port["port"].as_i64().unwrap()),
                ports.get(&string(&port["name"]))
            );
        }
    }
}

/// Every selector finds the pods of the deployment, and every port is one that they open.
#[test]
fn manifests_refer_to_each_other() {
    let mut selectors = 0;
    for file in KUBERNETES {
        let path = format!("deploy/kubernetes/{file}.yaml");
        for document in documents(&path) {
            for field in [
                &document["spec"]["selector"],
                &document["spec"]["podSelector"],
            ] {
                let labels = if field["matchLabels"].is_badvalue() {
                    field
                } else {
                    &field["matchLabels"]
                };
                if !labels.is_badvalue() {
                    assert_eq!(
                        labels["app.kubernetes.io/name"].as_str(),
                        Some("rapport"),
                        "{path}"
                    );
                    selectors += 1;
                }
            }
        }
    }
    assert_eq!(selectors, 5);
    let policy = &documents("deploy/kubernetes/network-policy.yaml")[0]["spec"]["ingress"];
    let open: Vec<Option<i64>> = policy
        .as_vec()
        .unwrap()
        .iter()
        .map(|rule| rule["ports"][0]["port"].as_i64())
        .collect();
    assert_eq!(open, [Some(4000), Some(9091)]);
    let resources = list(&documents("deploy/kubernetes/kustomization.yaml")[0]["resources"]);
    for resource in resources {
        assert!(
            KUBERNETES.contains(&resource.trim_end_matches(".yaml")),
            "{resource}"
        );
    }
    let image = &documents("deploy/kubernetes/kustomization.yaml")[0]["images"][0];
    assert_eq!(string(&image["newTag"]), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_image_agrees_with_the_program() {
    let file = read("Dockerfile");
    for line in [
        format!("USER {USER}:{USER}"),
        "ENV RAPPORT_SERVER_ADDRESS=0.0.0.0".to_owned(),
        "EXPOSE 4000".to_owned(),
        "STOPSIGNAL SIGTERM".to_owned(),
        "CMD [\"serve\"]".to_owned(),
    ] {
        assert!(file.lines().any(|found| found == line), "{line}");
    }
    let version = format!(
        "org.opencontainers.image.version=\"{}\"",
        env!("CARGO_PKG_VERSION")
    );
    assert!(file.contains(&version));
    let rust = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(file.contains(&rust), "{rust}");
    // The arguments of the health check are valid for this program.
    let check = file
        .lines()
        .find_map(|line| line.split_once("CMD [\"rapport\", "))
        .unwrap()
        .1;
    let argument = check.trim_end_matches(']').trim_matches('"').to_owned();
    let status = Command::new(env!("CARGO_BIN_EXE_rapport"))
        .args([&argument, "--help"])
        .output()
        .unwrap();
    assert!(status.status.success() && argument == "health");
}

#[test]
fn the_unit_is_valid_and_confined() {
    let unit = read("deploy/systemd/rapport.service");
    let lines = |prefix: &str| -> Vec<String> {
        unit.lines()
            .filter_map(|line| line.strip_prefix(prefix))
            .map(str::to_owned)
            .collect()
    };
    let variables: Vec<(String, String)> = lines("Environment=")
        .iter()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let credentials: Vec<String> = lines("LoadCredential=")
        .iter()
        .map(|line| format!("%d/{}", line.split_once(':').unwrap().0))
        .collect();
    let named: Vec<&String> = variables.iter().map(|(_, value)| value).collect();
    assert_eq!(named, credentials.iter().collect::<Vec<_>>());
    let directory = tempfile::tempdir().unwrap();
    let variables = with_secrets(variables.into_iter(), directory.path());
    let config = load("serve", &variables).serve.unwrap();
    assert_longer(&lines("TimeoutStopSec=")[0], &config);

    // `verify` checks that the program exists.
    let installed = unit.replace("/usr/local/bin/rapport", env!("CARGO_BIN_EXE_rapport"));
    assert_ne!(installed, unit);
    let path = directory.path().join("rapport.service");
    fs::write(&path, installed).unwrap();
    for arguments in [
        &["verify"][..],
        // Ten times the exposure level: at most 2.0 of 10.
        &["security", "--offline=true", "--threshold=20"][..],
    ] {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&path)
            .output();
        let output = output.expect("systemd-analyze is installed, as scripts/test-rust ensures");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {printed}");
        let ours: Vec<&str> = printed
            .lines()
            .filter(|line| line.contains("rapport.service"))
            .collect();
        assert_eq!(ours, Vec::<&str>::new());
    }
}
