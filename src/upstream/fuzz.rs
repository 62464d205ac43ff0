//! Properties of paths and headers that fuzzing tries to violate.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{check_framing, convert_response, is_websocket, strip_request};
use super::route::{KeyRule, Service, decode, find};

/// Checks that a path that is forwarded stays below its prefix, however it is decoded.
pub fn forwarded_path(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let Ok(Some(route)) = find(&path) else {
        return;
    };
    let plain = decode(&path).unwrap();
    let mut depth = 0_i32;
    for segment in plain.split(['/', '\\']) {
        depth += match segment {
            "" => 0,
            "." | ".." => panic!("a dot segment passes: {path}"),
            _ => 1,
        };
    }
    assert!(depth >= 2 && !plain.contains(['\\', '\0']), "{path}");
    assert!(path.starts_with(route.prefix));
    if !route.prefix.is_empty() {
        assert!(matches!(
            path[route.prefix.len()..].bytes().next(),
            None | Some(b'/')
        ));
    }
    assert!(route.own_path.starts_with('/'));
    for closed in ["/pg", "/mcp", "/api/mcp", "/analytics", "/project"] {
        assert!(!path.starts_with(closed), "{path}");
    }
    let is_root = plain.trim_end_matches('/') == "/rest/v1";
    let needs_server_side = route.key == KeyRule::ServerSide;
    assert_eq!(is_root && route.service == Service::Rest, needs_server_side);
}

/// Checks that no header of a connection passes in either direction. Each line of the data is a
/// header.
pub fn forwarded_headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            && headers.len() < 100
        {
            headers.append(name, value);
        }
    }
    let has_both =
        headers.contains_key("content-length") && headers.contains_key("transfer-encoding");
    assert!(!has_both || check_framing(&headers).is_err());

    let switches = is_websocket(&headers);
    let mut request = headers.clone();
    strip_request(&mut request, false, switches);
    for name in ["cookie", "forwarded", "expect", "sb-forwarded-for"] {
        assert!(!request.contains_key(name), "{name}");
    }
    let is_claim = |name: &HeaderName| name.as_str().replace('_', "-").starts_with("x-forwarded");
    assert!(!request.keys().any(is_claim));
    let mut response = headers.clone();
    convert_response(&mut response, "http://service:1", "/storage/v1", switches);
    let allowed = response.get_all("access-control-allow-origin");
    assert_eq!(allowed.iter().count(), 1);
    for kept in [request, response] {
        for name in [
            "te",
            "trailer",
            "transfer-encoding",
            "keep-alive",
            "proxy-authorization",
        ] {
            assert!(!kept.contains_key(name), "{name}");
        }
        assert_eq!(kept.contains_key("connection"), switches);
        assert_eq!(kept.contains_key("upgrade"), switches);
        // All other values that pass are unchanged.
        for (name, value) in &kept {
            let is_changed = ["location", "content-location", "connection", "upgrade"]
                .contains(&name.as_str())
                || name == "access-control-allow-origin";
            assert!(is_changed || headers.get_all(name).iter().any(|sent| sent == value));
        }
    }
}
