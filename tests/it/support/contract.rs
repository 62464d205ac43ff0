//! Checks responses against the OpenAPI document: status, media type, headers and body.
//!
//! Schemas of rows are closed, so an undocumented column fails the test that receives it.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use rapport::router;
use reqwest::Method;
use serde_json::{Value, json};

use super::chat_server::Answer;

/// The OpenAPI document, created once for all tests.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(router::document);

/// Headers that a response may have only if the document lists them, in addition to those named
/// `x-…`. Other headers belong to HTTP.
const OWN_HEADERS: [&str; 4] = ["etag", "link", "retry-after", "www-authenticate"];

/// Panics unless the document allows this response.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    if *method == Method::OPTIONS {
        return;
    }
    let verb = match *method {
        Method::HEAD => "get".to_owned(),
        _ => method.as_str().to_ascii_lowercase(),
    };
    let status = answer.status.as_u16();
    let place = format!("{method} {path} → {status}");
    let Some(template) = template_of(path) else {
        assert_eq!(status, 404, "{place}: the document has no such path");
        return assert_fits(
            &place,
            &json!({ "$ref": "#/components/schemas/Error" }),
            &answer.body,
        );
    };
    let Some(operation) = DOCUMENT["paths"][template].get(&verb) else {
        assert_eq!(status, 405, "{place}: the document has no such method");
        return assert_fits(
            &place,
            &json!({ "$ref": "#/components/schemas/Error" }),
            &answer.body,
        );
    };
    let Some(promised) = operation["responses"].get(status.to_string()) else {
        panic!("{place}: the document has no such status; {answer:?}");
    };
    let promised = resolved(promised);
    check_headers(&place, promised, answer);
    let content = promised["content"].as_object();
    let Some(content) = content else {
        return assert_eq!(
            answer.body,
            Value::Null,
            "{place}: a body that is not documented"
        );
    };
    let media_type = answer.header("content-type").unwrap_or_default();
    let Some(promised) = content.get(media_type) else {
        panic!("{place}: the document has no {media_type:?}");
    };
    if *method != Method::HEAD {
        assert_fits(&place, &promised["schema"], &answer.body);
    }
}

fn check_headers(place: &str, promised: &'static Value, answer: &Answer) {
    let promised: Vec<(String, bool)> = promised["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, header)| {
            let is_required = resolved(header)["required"] == true;
            (name.to_ascii_lowercase(), is_required)
        })
        .collect();
    for (name, is_required) in &promised {
        assert!(
            !is_required || answer.headers.contains_key(name.as_str()),
            "{place}: {name} is missing"
        );
    }
    for name in answer.headers.keys().map(|name| name.as_str()) {
        let is_ours = name.starts_with("x-") || OWN_HEADERS.contains(&name);
        assert!(
            !is_ours || promised.iter().any(|(promised, _)| promised == name),
            "{place}: {name} is not documented"
        );
    }
}

/// Panics unless a body conforms to its schema.
pub(crate) fn assert_fits(place: &str, schema: &Value, body: &Value) {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, std::sync::Arc<Validator>>>> =
        LazyLock::new(Mutex::default);
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            // The target of `#/components/…`.
            whole["components"] = DOCUMENT["components"].clone();
            let options = jsonschema::options().should_validate_formats(true);
            options.build(&whole).unwrap().into()
        });
        std::sync::Arc::clone(validator)
    };
    let wrong: Vec<String> = validator
        .iter_errors(body)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{place}: {}\n{body:#}", wrong.join("\n"));
}

/// Returns the path template of the document that matches a URL. Fixed segments take precedence
/// over variable ones.
fn template_of(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let same = |(wanted, part): (&&str, &&str)| {
            wanted == part || wanted.starts_with('{') && !part.is_empty()
        };
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    let templates = DOCUMENT["paths"].as_object().into_iter().flatten();
    templates
        .map(|(template, _)| template.as_str())
        .filter(|template| fits(template))
        .min_by_key(|template| template.matches('{').count())
}

/// Returns the target of a reference, or the value itself.
pub(crate) fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{reference} refers to nothing")),
        None => value,
    }
}
