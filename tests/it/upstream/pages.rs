//! Responses that a browser may open as a page do not run in the origin of this server.

use super::recorder::Recorder;
use super::{Answer, Forwarder};

/// Returns the response to a request for `path` on a service that sends this head.
async fn open(path: &str, head: &str) -> Answer {
    let response = format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n");
    let recorder = Recorder::start(&response).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    server.get(path).await
}

#[tokio::test]
async fn an_uploaded_page_has_an_origin_of_its_own_and_no_scripts() {
    let path = "/storage/v1/object/public/files/x";
    for media_type in [
        "text/html",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/javascript",
        "image/png",
    ] {
        let answer = open(path, &format!("content-type: {media_type}\r\n")).await;
        let policy = answer.header("content-security-policy");
        assert_eq!(policy, Some("sandbox"), "{media_type}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-type"), Some(media_type));
    }
    let pdf = open(path, "content-type: application/pdf\r\n").await;
    assert_eq!(pdf.header("content-security-policy"), None);
    assert_eq!(pdf.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn the_page_of_a_function_runs_scripts_in_an_origin_of_its_own() {
    let own = "default-src 'self'";
    let head = format!("content-type: text/html\r\ncontent-security-policy: {own}\r\n");
    let answer = open("/functions/v1/page", &head).await;
    let policies: Vec<&str> = answer
        .head
        .lines()
        .filter_map(|line| line.strip_prefix("content-security-policy: "))
        .collect();
    assert_eq!(policies.len(), 2, "{policies:?}");
    assert!(policies.contains(&own), "{policies:?}");
    let sandbox = policies.iter().find(|policy| policy.starts_with("sandbox"));
    let flags: Vec<&str> = sandbox.unwrap().split(' ').collect();
    assert!(flags.contains(&"allow-scripts") && !flags.contains(&"allow-same-origin"));
}
