//! Requests and responses pass without changes other than those that `docs/upstream.md` lists.

use super::recorder::{EMPTY, Recorder};
use super::{Answer, Forwarder};
use tokio::io::AsyncWriteExt as _;

/// Headers that client libraries send, and that reach the service unchanged.
const OF_CLIENTS: [&str; 22] = [
    "accept: application/vnd.pgrst.object+json",
    "accept-encoding: gzip, br",
    "accept-profile: chat",
    "apikey: sb_publishable_x",
    "authorization: Bearer sb_publishable_x",
    "baggage: a=b",
    "cache-control: max-age=3600",
    "content-profile: chat",
    "content-type: application/json;charset=UTF-8",
    "prefer: count=exact,return=representation",
    "range: 0-9",
    "range-unit: items",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate: a=b",
    "x-client-info: supabase-js/2.119.1; platform=Linux",
    "x-metadata: eyJhIjoxfQ==",
    "x-region: eu-west-1",
    "x-request-id: of-the-client",
    "x-retry-count: 1",
    "x-supabase-api-version: 2024-01-01",
    "x-upsert: true",
    "x_with_underscore: 1",
];

#[tokio::test]
async fn the_gateway_of_a_project_receives_what_the_client_sent() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    // Characters that URL libraries often encode or normalize.
    let target = "/rest/v1//a%2Fb/%252e;c/?select=*,b(*)&d=eq.x'y&e={1}|[2]&apikey=k&&f=%zz";
    let body = "{\"a\": 1}\r\n";
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: rapport.example\r\n{}\r\n\
         cookie: sb-x-auth-token=secret\r\nx-forwarded-host: evil.example\r\nx-forwarded-for: 6.6.6.6, 9.9.9.9\r\n\
         forwarded: for=9.9.9.9\r\nte: trailers\r\nkeep-alive: timeout=5\r\nproxy-authorization: Basic x\r\n\
         content-length: {}\r\n\r\n{body}",
        OF_CLIENTS.join("\r\n"),
        body.len()
    );
    assert_eq!(server.send(&request).await.status(), 200);
    let recorded = recorder.next().await;
    assert_eq!(recorded.line(), format!("POST {target} HTTP/1.1"));
    assert_eq!(recorded.body, body.as_bytes());
    let own = [
        format!("host: {}", recorder.address),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        format!("content-length: {}", body.len()),
    ];
    let mut expected: Vec<&str> = own.iter().map(String::as_str).chain(OF_CLIENTS).collect();
    expected.sort_unstable();
    assert_eq!(recorded.headers(), expected);
}

#[tokio::test]
async fn a_service_that_is_reached_directly_sees_its_own_paths() {
    let mut recorder = Recorder::start(EMPTY).await;
    let url = format!("http://{}", recorder.address);
    let server = Forwarder::start(&[
        ("RAPPORT_UPSTREAM_REST_URL", &url),
        ("RAPPORT_UPSTREAM_STORAGE_URL", &url),
        ("RAPPORT_UPSTREAM_AUTH_URL", &url),
        ("RAPPORT_UPSTREAM_FUNCTIONS_URL", &url),
        ("RAPPORT_AUTH_PUBLISHABLE_KEYS", "sb_publishable_x"),
        ("RAPPORT_SERVER_PUBLIC_URL", "https://api.example"),
    ])
    .await;
    // (path, line at the service, prefix)
    let cases = [
        ("/rest/v1/todos?select=*", "/todos?select=*", "/rest/v1"),
        (
            "/storage/v1/object/b/a//%2Fc",
            "/object/b/a//%2Fc",
            "/storage/v1",
        ),
        ("/auth/v1/user", "/user", "/auth/v1"),
        ("/functions/v1/hello/x", "/hello/x", "/functions/v1"),
        ("/graphql/v1", "/rpc/graphql", "/graphql/v1"),
        // The key is in the header, so `apikey` in the query is a filter and stays.
        (
            "/rest/v1/todos?apikey=sb_publishable_x&a=b",
            "/todos?apikey=sb_publishable_x&a=b",
            "/rest/v1",
        ),
    ];
    for (path, line, prefix) in cases {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\napikey: sb_publishable_x\r\nx-forwarded-proto: ftp\r\n\r\n"
        );
        assert_eq!(server.send(&request).await.status(), 200, "{path}");
        let recorded = recorder.next().await;
        assert_eq!(recorded.line(), format!("GET {line} HTTP/1.1"));
        for (name, value) in [
            ("x-forwarded-prefix", prefix),
            ("x-forwarded-host", "api.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            assert_eq!(recorded.header(name), Some(value), "{path} {name}");
        }
        let profile = (prefix == "/graphql/v1").then_some("graphql_public");
        assert_eq!(recorded.header("content-profile"), profile, "{path}");
    }
    let path = "/rest/v1/todos?apikey=sb_publishable_x&a=b";
    assert_eq!(server.get(path).await.status(), 200);
    assert_eq!(recorder.next().await.line(), "GET /todos?a=b HTTP/1.1");
}

#[tokio::test]
async fn a_named_content_profile_stays() {
    let mut recorder = Recorder::start(EMPTY).await;
    let url = format!("http://{}", recorder.address);
    let server = Forwarder::start(&[
        ("RAPPORT_UPSTREAM_REST_URL", &url),
        ("RAPPORT_AUTH_ANON_KEY", "sb_publishable_x"),
    ])
    .await;
    let request = "POST /graphql/v1 HTTP/1.1\r\nhost: x\r\napikey: sb_publishable_x\r\n\
                   content-profile: mine\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(server.send(request).await.status(), 200);
    assert_eq!(
        recorder.next().await.header("content-profile"),
        Some("mine")
    );
}

#[tokio::test]
async fn a_response_returns_as_it_was_sent() {
    let head = "HTTP/1.1 206 Part Of It\r\ncontent-length: 5\r\ncontent-range: 0-4/*\r\n\
                content-type: text/csv; charset=utf-8\r\ncontent-encoding: br\r\netag: \"1\"\r\n\
                sb-request-id: 7\r\nserver: kong\r\nset-cookie: a=b\r\nset-cookie: c=d\r\nvia: 1.1 kong\r\n\
                vary: Origin\r\nvary: Accept\r\nx-request-id: of-the-service\r\n\
                keep-alive: timeout=5\r\nalt-svc: clear\r\nstrict-transport-security: max-age=1\r\n\r\n";
    let recorder = Recorder::start(&format!("{head}\0\u{1}\u{2}ab")).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let answer = server
        .send("GET /rest/v1/todos HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n\r\n")
        .await;
    assert_eq!(answer.body, b"\0\x01\x02ab");
    let mut lines: Vec<&str> = answer
        .head
        .lines()
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 206 Part Of It");
    lines.retain(|line| !line.starts_with("date: "));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "access-control-allow-origin: *",
            "connection: close",
            "content-encoding: br",
            "content-length: 5",
            "content-range: 0-4/*",
            "content-security-policy: sandbox",
            "content-type: text/csv; charset=utf-8",
            "etag: \"1\"",
            "sb-request-id: 7",
            "server: kong",
            "set-cookie: a=b",
            "set-cookie: c=d",
            "vary: Accept",
            "vary: Origin",
            "via: 1.1 kong",
            "x-content-type-options: nosniff",
            "x-request-id: mine",
        ]
    );
}

#[tokio::test]
async fn responses_without_a_body_keep_their_headers() {
    // (method, response, headers that must arrive)
    let cases = [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-range: 0-9/1234\r\ncontent-length: 77\r\n\r\n",
            &[
                ("content-range", Some("0-9/1234")),
                ("content-length", Some("77")),
            ][..],
        ),
        (
            "HEAD",
            "HTTP/1.1 206 Partial Content\r\ncontent-range: 0-9/1234\r\ntransfer-encoding: chunked\r\n\r\n",
            &[
                ("content-range", Some("0-9/1234")),
                ("content-length", None),
            ],
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
            &[("etag", Some("\"1\"")), ("content-length", None)],
        ),
        (
            "DELETE",
            "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
            &[("x-a", Some("b")), ("content-length", None)],
        ),
    ];
    for (method, response, expected) in cases {
        let mut recorder = Recorder::start(response).await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let request =
            format!("{method} /rest/v1/todos HTTP/1.1\r\nhost: x\r\nprefer: count=exact\r\n\r\n");
        let answer = server.send(&request).await;
        assert!(answer.body.is_empty(), "{answer:?}");
        for (name, value) in expected {
            assert_eq!(answer.header(name), *value, "{method} {name} {answer:?}");
        }
        assert!(recorder.next().await.line().starts_with(method));
    }
}

#[tokio::test]
async fn uploads_keep_their_framing() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let multipart = "--b\r\ncontent-disposition: form-data; name=\"\"\r\n\r\nx\r\n--b--\r\n";
    let with_length = format!("content-length: {}\r\n\r\n{multipart}", multipart.len());
    // (method, framing and body, body at the service, Content-Length, Transfer-Encoding)
    let cases = [
        (
            "POST",
            "content-length: 3\r\n\r\nabc",
            "abc",
            Some("3"),
            None,
        ),
        ("POST", "content-length: 0\r\n\r\n", "", Some("0"), None),
        ("POST", "\r\n", "", None, None),
        ("PUT", &*with_length, multipart, None, None),
        (
            "POST",
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            "abc",
            None,
            Some("chunked"),
        ),
        (
            "DELETE",
            "content-length: 2\r\n\r\n{}",
            "{}",
            Some("2"),
            None,
        ),
        ("GET", "content-length: 2\r\n\r\n{}", "{}", Some("2"), None),
        (
            "GET",
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "ab",
            None,
            Some("chunked"),
        ),
    ];
    for (method, rest, body, length, coding) in cases {
        let request = format!("{method} /storage/v1/object/b/x HTTP/1.1\r\nhost: x\r\n{rest}");
        assert_eq!(server.send(&request).await.status(), 200, "{method} {rest}");
        let recorded = recorder.next().await;
        assert_eq!(recorded.body, body.as_bytes());
        if method != "PUT" {
            assert_eq!(recorded.header("content-length"), length, "{method} {rest}");
        }
        assert_eq!(
            recorded.header("transfer-encoding"),
            coding,
            "{method} {rest}"
        );
    }
}

#[tokio::test]
async fn the_server_itself_sends_100_continue() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let mut stream = server.connect().await;
    let head = "POST /storage/v1/object/b/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-length: 3\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim)
        .await
        .unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status(), 200);
    let recorded = recorder.next().await;
    assert_eq!(recorded.header("expect"), None);
    assert_eq!(recorded.body, b"abc");
}

#[tokio::test]
async fn redirects_are_passed_on_and_not_followed() {
    let location = "https://accounts.example/o?redirect_uri=http%3A%2F%2Frest";
    let response =
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let mut recorder = Recorder::start(&response).await;
    let url = format!("http://{}", recorder.address);
    // Browsers arrive at these paths without a key, whether the service is reached through the
    // gateway of the project or directly.
    for name in ["SUPABASE_URL", "RAPPORT_UPSTREAM_AUTH_URL"] {
        let server =
            Forwarder::start(&[(name, &url), ("RAPPORT_AUTH_ANON_KEY", "sb_publishable_x")]).await;
        for path in [
            "authorize?provider=github",
            "callback?code=1",
            "verify?token=1",
        ] {
            let answer = server.get(&format!("/auth/v1/{path}")).await;
            assert_eq!(answer.status(), 302);
            assert_eq!(answer.header("location"), Some(location));
            assert!(recorder.next().await.line().contains(path));
        }
    }
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn a_location_on_the_service_leads_back_to_this_server() {
    let recorder = Recorder::responding(|request| {
        let host = request.header("host").unwrap();
        Some(
            format!(
                "HTTP/1.1 201 Created\r\nlocation: http://{host}/storage/v1/upload/resumable/x\r\n\
                 tus-resumable: 1.0.0\r\ncontent-length: 0\r\n\r\n"
            )
            .into_bytes(),
        )
    })
    .await;
    let url = format!("http://{}", recorder.address);
    for name in ["SUPABASE_URL", "RAPPORT_UPSTREAM_STORAGE_URL"] {
        let server = Forwarder::start(&[(name, &url)]).await;
        let request = "POST /storage/v1/upload/resumable HTTP/1.1\r\nhost: x\r\ntus-resumable: 1.0.0\r\n\
                       upload-length: 9\r\nupload-metadata: filename YQ==\r\ncontent-length: 0\r\n\r\n";
        let answer = server.send(request).await;
        assert_eq!(
            answer.header("location"),
            Some("/storage/v1/upload/resumable/x")
        );
        assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    }
}

#[tokio::test]
async fn a_location_never_names_another_host_than_the_service_did() {
    for path in ["//evil.test/", "/\\evil.test/", "/\t/evil.test/"] {
        let recorder = Recorder::responding(move |request| {
            let host = request.header("host").unwrap();
            let location = format!("location: http://{host}{path}");
            Some(
                format!("HTTP/1.1 302 Found\r\n{location}\r\ncontent-length: 0\r\n\r\n")
                    .into_bytes(),
            )
        })
        .await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let answer = server.get("/auth/v1/verify").await;
        let sent = format!("http://{}{path}", recorder.address);
        assert_eq!(answer.header("location"), Some(&*sent), "{path:?}");
    }
}

#[tokio::test]
async fn cookies_are_forwarded_only_on_request() {
    let mut recorder = Recorder::start(EMPTY).await;
    for (forwards, expected) in [("false", None), ("true", Some("a=b"))] {
        let settings = [("RAPPORT_UPSTREAM_FORWARD_COOKIES", forwards)];
        let server = Forwarder::before(recorder.address, &settings).await;
        server
            .send("GET /auth/v1/user HTTP/1.1\r\nhost: x\r\ncookie: a=b\r\n\r\n")
            .await;
        assert_eq!(recorder.next().await.header("cookie"), expected);
    }
}
