//! Tests of the header rules, as tables of cases.

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_body_has_one_length() {
    for (pairs, is_clear) in [
        (&[][..], true),
        (&[("content-length", "3")], true),
        (&[("transfer-encoding", "chunked")], true),
        (&[("transfer-encoding", " Chunked")], true),
        (&[("transfer-encoding", "gzip, chunked")], false),
        (&[("transfer-encoding", "identity")], false),
        (
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            false,
        ),
        (
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            false,
        ),
    ] {
        assert_eq!(
            check_framing(&headers(pairs)).is_ok(),
            is_clear,
            "{pairs:?}"
        );
    }
}

#[test]
fn a_request_loses_only_what_belongs_to_the_connection_or_to_proxies() {
    let sent = headers(&[
        ("accept", "text/csv"),
        ("accept-encoding", "gzip, br"),
        ("apikey", "k"),
        ("authorization", "Bearer t"),
        ("connection", "keep-alive, x-of-connection, content-length"),
        ("connection", "close"),
        ("content-length", "3"),
        ("content-profile", "chat"),
        ("cookie", "sb-x-auth-token=secret"),
        ("expect", "100-continue"),
        ("forwarded", "for=1.2.3.4"),
        ("keep-alive", "timeout=5"),
        ("prefer", "count=exact"),
        ("proxy-authorization", "Basic x"),
        ("range", "0-9"),
        ("te", "trailers"),
        ("traceparent", "00-x"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("x_with_underscore", "1"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "other.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/x"),
        ("x-forwarded-proto", "https"),
        ("x-of-connection", "1"),
        ("x-real-ip", "1.2.3.4"),
        ("x-upsert", "true"),
    ]);
    let mut kept = sent.clone();
    strip_request(&mut kept, false, false);
    assert_eq!(
        names(&kept),
        [
            "accept",
            "accept-encoding",
            "apikey",
            "authorization",
            "content-length",
            "content-profile",
            "prefer",
            "range",
            "traceparent",
            "x-upsert",
            "x_with_underscore"
        ]
    );
    for (name, value) in &kept {
        assert_eq!(sent[name], value);
    }
    let mut kept = sent;
    strip_request(&mut kept, true, false);
    assert_eq!(kept[COOKIE], "sb-x-auth-token=secret");
}

#[test]
fn claims_about_proxies_and_addresses_are_removed() {
    // (header, whether it is a claim)
    for (name, is_removed) in [
        ("akamai-x", false),
        ("cf-connecting-ip", true),
        ("cf-ipcountry", true),
        ("cf-webhook-auth", false),
        ("client-cert", true),
        ("fastly-client-ip", true),
        ("fly-client-ip", true),
        ("proxy", true),
        ("remote-user", true),
        ("sb-api-key", false),
        ("sb-forwarded-for", true),
        ("sb_forwarded_for", true),
        ("true-client-ip", true),
        ("via", true),
        ("x-amz-date", false),
        ("x-amzn-oidc-data", true),
        ("x-client-cert", true),
        ("x-client-info", false),
        ("x-client-ip", true),
        ("x-consumer-username", true),
        ("x-envoy-external-address", true),
        ("x-forwarded", true),
        ("x-forwarded-client-cert", true),
        ("x-forwarded-path", true),
        ("x-forwarded-scheme", true),
        ("x-forwarded-server", true),
        ("x-forwarded-ssl", true),
        ("x_forwarded_for", true),
        ("x-kong-request-id", true),
        ("x-original-url", true),
        ("x-real-port", true),
        ("x-region", false),
        ("x-rewrite-url", true),
        ("x-supabase-api-version", false),
        ("x-vercel-signature", false),
    ] {
        let mut headers = headers(&[(name, "1.2.3.4")]);
        strip_request(&mut headers, false, false);
        assert_eq!(headers.is_empty(), is_removed, "{name}");
    }
    let mut both = headers(&[
        ("sb-forwarded-for", "1.1.1.1"),
        ("sb-forwarded-for", "2.2.2.2"),
    ]);
    let address = strip_request(&mut both, false, false);
    assert_eq!(address.unwrap(), "1.1.1.1");
}

#[test]
fn the_document_names_every_claim() {
    let document = include_str!("../../../docs/upstream.md").to_ascii_lowercase();
    let prefixes = CLAIM_PREFIXES.map(|prefix| format!("`{prefix}*`"));
    let names = CLAIMS
        .iter()
        .chain(&NO_CLAIMS)
        .map(|name| format!("`{name}`"));
    for name in names.chain(prefixes) {
        assert!(document.contains(&name), "{name}");
    }
}

#[test]
fn only_an_upgrade_to_websocket_is_kept() {
    for (pairs, expected) in [
        (
            &[("connection", "Upgrade"), ("upgrade", "websocket")][..],
            true,
        ),
        (
            &[
                ("connection", "keep-alive, upgrade"),
                ("upgrade", "WebSocket"),
            ],
            true,
        ),
        (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
        (&[("connection", "close"), ("upgrade", "websocket")], false),
        (&[("upgrade", "websocket")], false),
    ] {
        let mut sent = headers(pairs);
        assert_eq!(is_websocket(&sent), expected, "{pairs:?}");
        strip_request(&mut sent, false, expected);
        assert_eq!(is_websocket(&sent), expected, "{pairs:?}");
    }
}

#[test]
fn a_service_learns_the_public_address() {
    let sent = headers(&[
        ("host", "chat.example:8080"),
        ("x-forwarded-host", "app.example"),
        ("x-forwarded-proto", "https"),
    ]);
    let direct = PublicAddress::of_request(&sent, false);
    let trusted = PublicAddress::of_request(&sent, true);
    let configured = PublicAddress::of_url(&"https://api.example".parse().unwrap());
    for (address, expected) in [
        (direct, ["http", "chat.example:8080", "8080"]),
        (trusted, ["https", "app.example", "443"]),
        (configured, ["https", "api.example", "443"]),
    ] {
        let mut headers = HeaderMap::new();
        add_public_address(&mut headers, address, "/storage/v1");
        let found = [&FORWARDED_PROTO, &FORWARDED_HOST, &FORWARDED_PORT].map(|name| &headers[name]);
        assert_eq!(found, expected);
        assert_eq!(headers[FORWARDED_PREFIX], "/storage/v1");
    }
    let wrong = headers(&[("host", "a b")]);
    assert_eq!(PublicAddress::of_request(&wrong, false), None);
}

#[test]
fn a_location_on_the_service_becomes_one_on_this_server() {
    let project = ("https://p.supabase.co", "");
    let service = ("http://storage:5000", "/storage/v1");
    // ((origin, prefix), Location, expected)
    let cases = [
        (
            project,
            "https://p.supabase.co/storage/v1/upload/x?a=b",
            "/storage/v1/upload/x?a=b",
        ),
        (project, "HTTPS://P.supabase.co/x", "/x"),
        (project, "https://p.supabase.co", "/"),
        (project, "https://p.supabase.co?x", "/?x"),
        (
            project,
            "https://p.supabase.co//evil.test/",
            "https://p.supabase.co//evil.test/",
        ),
        (
            project,
            "https://p.supabase.co.evil.test/x",
            "https://p.supabase.co.evil.test/x",
        ),
        (
            project,
            "https://p.supabase.co:8443/x",
            "https://p.supabase.co:8443/x",
        ),
        (project, "http://p.supabase.co/x", "http://p.supabase.co/x"),
        (
            project,
            "https://accounts.example/?redirect_uri=https://p.supabase.co/x",
            "https://accounts.example/?redirect_uri=https://p.supabase.co/x",
        ),
        (project, "/todos?id=eq.1", "/todos?id=eq.1"),
        (
            service,
            "http://storage:5000/upload/x",
            "/storage/v1/upload/x",
        ),
        (
            service,
            "http://storage:5000/storage/v1/upload/x",
            "/storage/v1/upload/x",
        ),
        (
            service,
            "http://storage:5000/storage/v1x",
            "/storage/v1/storage/v1x",
        ),
        (service, "http://storage:5000//x", "/storage/v1//x"),
        (service, "http://storage:5000", "/storage/v1/"),
    ];
    for ((origin, prefix), location, expected) in cases {
        for name in [LOCATION, CONTENT_LOCATION] {
            let mut headers = HeaderMap::new();
            headers.insert(&name, HeaderValue::from_static(location));
            convert_response(&mut headers, origin, prefix, false);
            assert_eq!(headers[&name], expected, "{location}");
        }
    }
}

/// Returns whether a browser stays on the host of the page that this `Location` belongs to (URL
/// standard, basic URL parser).
fn stays_on_host(location: &str) -> bool {
    let read: String = location
        .chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
        .map(|c| if c == '\\' { '/' } else { c })
        .collect();
    read.starts_with('/') && !read.starts_with("//")
}

#[test]
fn a_changed_location_never_leads_to_another_host() {
    let origin = "https://p.supabase.co";
    let characters = ["/", "\\", "\t", ".", "?", "#", "evil.test"];
    let mut paths = vec![String::new()];
    let mut longest = paths.clone();
    for _ in 0..5 {
        longest = longest
            .iter()
            .flat_map(|path| characters.map(|next| format!("{path}{next}")))
            .collect();
        paths.extend_from_slice(&longest);
    }
    let mut changed = 0;
    for prefix in ["", "/storage/v1"] {
        for path in &paths {
            let Some(location) = relative(&format!("{origin}{path}"), origin, prefix) else {
                continue;
            };
            assert!(stays_on_host(&location), "{path:?} {location:?}");
            changed += 1;
        }
    }
    assert!(changed > 1_000, "{changed}");
    // As relative references, these paths would lead to another host, so the `Location` stays as
    // the service sent it.
    for path in [
        "//evil.test/",
        "/\\evil.test/",
        "/\t/evil.test/",
        "/\t\\evil.test",
    ] {
        assert!(!stays_on_host(path), "{path:?}");
        assert_eq!(
            relative(&format!("{origin}{path}"), origin, ""),
            None,
            "{path:?}"
        );
    }
    assert_eq!(
        relative(&format!("{origin}/a//b\\"), origin, "").unwrap(),
        "/a//b\\"
    );
}

#[test]
fn a_response_has_one_allowed_origin() {
    for (pairs, expected) in [
        (&[][..], "*"),
        (
            &[("access-control-allow-origin", "https://a.example")],
            "https://a.example",
        ),
        (
            &[
                ("access-control-allow-origin", "https://a.example"),
                ("access-control-allow-origin", "*"),
            ],
            "https://a.example",
        ),
    ] {
        let mut headers = headers(pairs);
        convert_response(&mut headers, "http://x", "", false);
        let found: Vec<_> = headers
            .get_all(ACCESS_CONTROL_ALLOW_ORIGIN)
            .iter()
            .collect();
        assert_eq!(found, [expected], "{pairs:?}");
    }
}

#[test]
fn a_response_loses_only_what_describes_its_connection_or_host() {
    let mut headers = headers(&[
        ("access-control-allow-origin", "*"),
        ("alt-svc", "h3=\":443\""),
        ("cf-ray", "1"),
        ("connection", "keep-alive, x-of-connection"),
        ("content-encoding", "br"),
        ("content-length", "12"),
        ("content-range", "0-9/*"),
        ("etag", "\"1\""),
        ("keep-alive", "timeout=5"),
        ("sb-request-id", "1"),
        ("server", "kong"),
        ("set-cookie", "a=b"),
        ("strict-transport-security", "max-age=1"),
        ("transfer-encoding", "chunked"),
        ("via", "1.1 kong"),
        ("x-of-connection", "1"),
    ]);
    convert_response(&mut headers, "http://x", "", false);
    assert_eq!(
        names(&headers),
        [
            "access-control-allow-origin",
            "cf-ray",
            "content-encoding",
            "content-length",
            "content-range",
            "etag",
            "sb-request-id",
            "server",
            "set-cookie",
            "via"
        ]
    );
}
