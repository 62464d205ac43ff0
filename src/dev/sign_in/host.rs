//! The host names under which the sign-in may be reached.
//!
//! A web page can make its own host name resolve to this machine (DNS rebinding). The browser then
//! treats the page and this server as the same origin. The page could sign in here and read the
//! responses. Its requests still contain its own host name, however. The sign-in therefore accepts
//! only host names that no such page can have: addresses, `localhost` and its subdomains, and the
//! host of `server.public_url`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::refusal;

/// The host of `server.public_url` in lower case, if it is set.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    public: Option<Arc<str>>,
}

impl Hosts {
    pub(super) fn new(public_url: Option<&str>) -> Self {
        let url = public_url.and_then(|url| url.parse::<Uri>().ok());
        let host = url.as_ref().and_then(Uri::host);
        Self {
            public: host.map(|host| host.to_ascii_lowercase().into()),
        }
    }

    /// Returns whether a request with this authority (`host` or `host:port`) may sign in.
    fn accept(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let host = authority.host().to_ascii_lowercase();
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<Ipv4Addr>().is_ok()
            || address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
            || self.public.as_deref() == Some(host.as_str())
    }
}

/// Middleware that refuses requests under other host names, and requests without a host name.
pub(super) async fn require(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let named = request.headers().get_all(HOST).iter();
    let named = named.map(|host| host.to_str().ok());
    // A request in absolute form, as for a proxy, also contains a host in its target.
    let target = request.uri().authority();
    let named: Vec<_> = named
        .chain(target.map(|target| Some(target.as_str())))
        .collect();
    let accepts = |host: &Option<&str>| host.is_some_and(|host| hosts.accept(host));
    if !named.is_empty() && named.iter().all(accepts) {
        return next.run(request).await;
    }
    refusal::FOREIGN_HOST.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_page_of_the_web_can_have_are_accepted() {
        let hosts = Hosts::new(Some("https://Chat.Example:8443/base"));
        for (authority, accepted) in [
            ("localhost", true),
            ("LOCALHOST:4000", true),
            ("ana.localhost:4000", true),
            ("127.0.0.1:4000", true),
            ("192.168.1.7", true),
            ("[::1]:4000", true),
            ("chat.example", true),
            ("CHAT.example:1", true),
            ("", false),
            (":4000", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evillocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.1", false),
            ("[evil.example]", false),
            ("x.chat.example", false),
        ] {
            assert_eq!(hosts.accept(authority), accepted, "{authority}");
        }
        assert!(!Hosts::new(None).accept("chat.example"));
    }
}
