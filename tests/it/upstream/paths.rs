//! Paths that are never forwarded, and requests that two servers could read differently.

use tokio::io::AsyncWriteExt as _;

use super::recorder::{EMPTY, Recorder};
use super::{Answer, Forwarder};

#[tokio::test]
async fn only_paths_of_services_are_forwarded() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    for (path, status) in [
        ("/rest/v1x", 404),
        ("/rest/v2/x", 404),
        ("/rest", 404),
        ("//rest/v1/x", 404),
        ("/%72est/v1/x", 404),
        ("/REST/v1/x", 404),
        ("/", 404),
        ("/pg/", 404),
        ("/pg/tables", 404),
        ("/%70g/tables", 404),
        ("/mcp", 404),
        ("/api/mcp", 404),
        ("/analytics/v1", 404),
        ("/project/default", 404),
        ("/rest/../pg/tables", 404),
        ("/rest/v1/../../pg/tables", 400),
        ("/rest/v1/%2e%2e/%2E%2E/pg/tables", 400),
        ("/storage/v1/..%2f..%2fpg", 400),
        ("/rest/v1/x\\y", 400),
        ("/rest/v1/x%5Cy", 400),
        ("/rest/v1/%00", 400),
        ("/rest/v1/%ff", 400),
        ("/auth/v1/a%2Fb", 400),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    // The host in an absolute URL names this server (RFC 9112, section 3.2.2).
    let answer = server
        .send("GET http://pg.internal/pg/tables HTTP/1.1\r\nhost: pg.internal\r\n\r\n")
        .await;
    assert_eq!(answer.status(), 404);
    assert!(recorder.arrived().is_none());

    for (path, line) in [
        (
            "/storage/v1/object/a//%2F%2f",
            "/storage/v1/object/a//%2F%2f",
        ),
        ("/rest/v1/", "/rest/v1/"),
        ("/rest/v1", "/rest/v1"),
        ("http://other/rest/v1/x?y", "/rest/v1/x?y"),
    ] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
        let recorded = recorder.next().await;
        assert_eq!(recorded.line(), format!("GET {line} HTTP/1.1"));
        let own = recorder.address.to_string();
        assert_eq!(recorded.header("host"), Some(&*own));
    }
}

#[tokio::test]
async fn methods_that_a_service_does_not_have_are_refused() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    for (method, path, status) in [
        ("TRACE", "/rest/v1/x", 405),
        ("TRACE", "/functions/v1/x", 405),
        ("PURGE", "/storage/v1/x", 405),
        ("PURGE", "/functions/v1/x", 200),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = server.send(&request).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    assert!(
        recorder
            .next()
            .await
            .line()
            .starts_with("PURGE /functions/")
    );
    assert!(recorder.arrived().is_none());
}

/// Each case hides a second request in the first one, for servers that read its end elsewhere.
#[tokio::test]
async fn no_request_is_smuggled_in_another() {
    let hidden = "GET /rest/v1/hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /rest/v1/x HTTP/1.1\r\nhost: x\r\n";
    for start in [
        "content-length: 0\r\ncontent-length: 44\r\n\r\n",
        "content-length: 0, 44\r\n\r\n",
        "content-length: +0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "x-folded: a\r\n content-length: 44\r\n\r\n",
        "x\0: a\r\n\r\n",
    ] {
        let mut recorder = Recorder::start(EMPTY).await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let mut stream = server.connect().await;
        let request = format!("{post}{start}{hidden}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        assert_eq!(answer.status(), 400, "{start:?}");
        assert!(recorder.arrived().is_none(), "{start:?}");
    }
}

/// `Transfer-Encoding` overrides `Content-Length` (RFC 9112, section 6.3). The service receives
/// only the former, so it cannot read another body.
#[tokio::test]
async fn a_chunked_body_has_no_other_length() {
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let mut recorder = Recorder::start(EMPTY).await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let request =
            format!("POST /rest/v1/x HTTP/1.1\r\nhost: x\r\n{lengths}\r\n1\r\na\r\n0\r\n\r\n");
        assert_eq!(server.send(&request).await.status(), 200);
        let recorded = recorder.next().await;
        assert_eq!(recorded.body, b"a");
        assert_eq!(recorded.header("content-length"), None);
        assert!(recorder.arrived().is_none());
    }
}

/// HTTP/1.1 allows recipients to accept a bare line feed as the end of a line (RFC 9112, section
/// 2.2). The service receives only complete line ends, so it cannot read something else.
#[tokio::test]
async fn bare_line_feeds_are_not_forwarded() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let request = "GET /rest/v1/x HTTP/1.1\r\nhost: x\nx-a: b\r\nconnection: close\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    Answer::read(&mut stream).await;
    if let Some(recorded) = recorder.arrived() {
        let bare = recorded.head.replace("\r\n", "");
        assert!(!bare.contains('\n'), "{recorded:?}");
        assert_eq!(recorded.header("x-a"), Some("b"));
    }
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let mut recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let many = "x: y\r\n".repeat(101);
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    for headers in [many, long] {
        let mut stream = server.connect().await;
        let request = format!("GET /rest/v1/x HTTP/1.1\r\n{headers}\r\n");
        // The server may refuse the head before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        assert_eq!(Answer::read(&mut stream).await.status(), 431);
    }
    assert!(recorder.arrived().is_none());
}
