//! Determines the client address of a request behind proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::config::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose `X-Forwarded-For` is trusted. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Arc<[Network]>,
}

impl TrustedProxies {
    /// Trusts these networks. If there are none, `X-Forwarded-For` is ignored.
    pub fn new(networks: &[Network]) -> Self {
        Self {
            networks: networks.into(),
        }
    }

    /// Returns the address of the client that sent a request. This is the peer address of the
    /// connection or, if the peer is a trusted proxy, the last address in `X-Forwarded-For` that is
    /// not a trusted proxy. If all of them are trusted proxies, it is the first one. Each proxy
    /// appends the address of its own peer, so a client can forge only addresses further to the
    /// left.
    ///
    /// Returns `None` only if the listener does not report the peer address.
    pub fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        self.hops(extensions, headers)?.pop()
    }

    /// Returns the peer, the trusted proxies behind it, and last the client. `None` only if the
    /// listener does not report the peer address.
    fn hops(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<Vec<IpAddr>> {
        let mut hop = peer(extensions)?;
        let mut hops = vec![hop];
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        let mut named = values
            .iter()
            .rev()
            .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        while self.trusts(hop) {
            // If this entry is not an address, the proxy that sent it counts as the client.
            let Some(address) = named.next().and_then(address) else {
                break;
            };
            hop = address;
            hops.push(hop);
        }
        Some(hops)
    }

    /// Returns whether the peer of the connection is one of these proxies.
    pub fn trusts_peer(&self, extensions: &Extensions) -> bool {
        peer(extensions).is_some_and(|peer| self.trusts(peer))
    }

    /// Returns the `X-Forwarded-For` for a server behind this one: the address of the client and
    /// the trusted proxies between the client and this server. Addresses that a client may have
    /// forged are omitted, because Supabase Auth limits requests by the first address.
    pub fn forwarded_for(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Option<HeaderValue> {
        let mut hops: Vec<String> = self
            .hops(extensions, headers)?
            .iter()
            .map(IpAddr::to_string)
            .collect();
        hops.reverse();
        HeaderValue::from_str(&hops.join(", ")).ok()
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }
}

/// Returns the address of the peer of the connection, if the listener reports it.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip().to_canonical())
}

/// Parses an address with or without a port. Other entries of the same header may contain any
/// bytes.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let address: Option<IpAddr> = text.parse().ok();
    address
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_honoured() {
        let networks = ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).unwrap());
        let proxies = TrustedProxies::new(&networks);
        // (peer, X-Forwarded-For, client)
        let cases: [(&str, &[&'static str], &str); 12] = [
            ("10.0.0.1:5", &["x\u{e9}, 2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1:5", &["2.2.2.2, \u{e9}"], "10.0.0.1"),
            ("1.1.1.1:5", &["2.2.2.2"], "1.1.1.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
            ("10.0.0.1:5", &["2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1:5", &["9.9.9.9, 2.2.2.2"], "2.2.2.2"),
            ("10.0.0.1:5", &["2.2.2.2, 10.0.0.7"], "2.2.2.2"),
            ("10.0.0.1:5", &["9.9.9.9", "2.2.2.2,10.0.0.7"], "2.2.2.2"),
            ("10.0.0.1:5", &["2.2.2.2:123"], "2.2.2.2"),
            ("[::1]:5", &["2001:db8::1"], "2001:db8::1"),
            ("[::ffff:10.0.0.1]:5", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1:5", &["2.2.2.2, unknown"], "10.0.0.1"),
        ];
        for (peer, forwarded, expected) in cases {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(
                    FORWARDED_FOR,
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            let client = proxies.client(&extensions, &headers).unwrap();
            assert_eq!(
                client,
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {forwarded:?}"
            );
        }
    }

    #[test]
    fn the_next_server_learns_only_trusted_hops() {
        let networks = ["10.0.0.0/8"].map(|text| Network::parse(text).unwrap());
        let proxies = TrustedProxies::new(&networks);
        // (peer, X-Forwarded-For, X-Forwarded-For for the next server)
        let cases: [(&str, &[&'static str], &str); 4] = [
            ("1.1.1.1:5", &["2.2.2.2"], "1.1.1.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
            (
                "10.0.0.1:5",
                &["9.9.9.9", "2.2.2.2, 10.0.0.2"],
                "2.2.2.2, 10.0.0.2, 10.0.0.1",
            ),
            ("[::ffff:10.0.0.1]:5", &["2.2.2.2"], "2.2.2.2, 10.0.0.1"),
        ];
        for (peer, forwarded, expected) in cases {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
            }
            let found = proxies.forwarded_for(&extensions, &headers);
            assert_eq!(found.unwrap(), expected, "{peer} {forwarded:?}");
        }
    }
}
