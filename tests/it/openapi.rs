//! The OpenAPI document as a whole. Tests that call the chat's routes check that the responses
//! match it.

use std::collections::BTreeSet;
use std::path::Path;

use rapport::config::source::{ProcessEnvironment, Source as _};
use rapport::error_code::ErrorCode;
use serde_json::Value;

use crate::support::contract::DOCUMENT;
use crate::support::database::TestDatabase;
use crate::support::whole_server::WholeServer;

/// Collects every value under this name, at any depth.
fn all_under<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == name {
                    found.push(value);
                }
                all_under(name, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all_under(name, item, found)),
        _ => {}
    }
}

#[test]
fn the_committed_copy_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let fresh = format!("{:#}\n", *DOCUMENT);
    if ProcessEnvironment.get("WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "docs/openapi.json is stale: run `make openapi`"
    );
}

#[test]
fn every_reference_resolves_and_every_shared_component_is_used() {
    let mut references = Vec::new();
    all_under("$ref", &DOCUMENT, &mut references);
    let references: BTreeSet<&str> = references.into_iter().filter_map(Value::as_str).collect();
    let mut shared = BTreeSet::new();
    for kind in ["schemas", "responses", "parameters", "headers"] {
        for name in DOCUMENT["components"][kind].as_object().unwrap().keys() {
            shared.insert(format!("#/components/{kind}/{name}"));
        }
    }
    let shared: BTreeSet<&str> = shared.iter().map(String::as_str).collect();
    assert_eq!(
        references.difference(&shared).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    let unused: Vec<_> = shared.difference(&references).collect();
    assert!(unused.is_empty(), "nothing refers to {unused:?}");
}

#[test]
fn operations_have_a_unique_id_and_a_described_tag() {
    let tags: Vec<&str> = DOCUMENT["tags"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tag| tag["name"].as_str())
        .collect();
    let mut ids = BTreeSet::new();
    for (path, verbs) in DOCUMENT["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{verb} {path}: {id} is taken");
            let tag = operation["tags"][0].as_str().unwrap();
            assert!(tags.contains(&tag), "{verb} {path}: {tag}");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{id}"
            );
            let answers = operation["responses"].as_object().unwrap();
            assert!(
                answers.keys().any(|status| status.starts_with('2')),
                "{id} never succeeds"
            );
        }
    }
    assert!(ids.len() > 50, "{} operations", ids.len());
}

#[test]
fn the_documented_error_codes_match_the_program() {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"],
        serde_json::json!(codes)
    );
}

/// Returns the response to a request without a token.
async fn get(server: &WholeServer, path: &str) -> reqwest::Response {
    let address = format!("http://{}{path}", server.address());
    reqwest::get(address).await.unwrap()
}

#[tokio::test]
async fn the_document_is_served_and_can_be_cached() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await;
    let document = get(&server, "/openapi.json").await;
    let tag = document.headers()["etag"].clone();
    assert_eq!(document.json::<Value>().await.unwrap(), *DOCUMENT);
    let again = reqwest::Client::new()
        .get(format!("http://{}/openapi.json", server.address()))
        .header("if-none-match", tag);
    assert_eq!(again.send().await.unwrap().status(), 304);
    assert_eq!(get(&server, "/docs").await.status(), 404);
}

/// Checks that the server serves everything that the page loads, and that the page's policy allows
/// nothing else.
#[tokio::test]
async fn the_page_loads_only_from_this_server() {
    let database = TestDatabase::new().await;
    let settings = [("RAPPORT_SERVER_DOCS_PAGE", "true")];
    let server = WholeServer::start(database.url(), &settings).await;
    let page = get(&server, "/docs").await;
    let policy = page.headers()["content-security-policy"].clone();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(
        !policy.contains("unsafe") && !policy.contains("//"),
        "{policy}"
    );
    let page = page.text().await.unwrap();
    assert!(!page.contains("//") && !page.contains("style="), "{page}");
    let named = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("docs/"));
    let mut parts = 0;
    for part in named {
        let part = get(&server, &format!("/{part}")).await;
        assert_eq!(part.status(), 200);
        assert!(!part.bytes().await.unwrap().is_empty());
        parts += 1;
    }
    assert_eq!(parts, 3);
}
