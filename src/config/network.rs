//! An IP network, such as `10.0.0.0/8`.

use std::net::IpAddr;

/// An IP address and the length of its significant prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    prefix: u32,
}

impl Network {
    /// Parses an address with or without a prefix length (RFC 4632, section 3.1). `None` for
    /// anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        // IPv4 addresses are compared as IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2).
        let (most, offset) = if address.is_ipv4() {
            (32, 96)
        } else {
            (128, 0)
        };
        let prefix = match prefix {
            Some(prefix) => prefix
                .trim()
                .parse()
                .ok()
                .filter(|prefix| *prefix <= most)?,
            None => most,
        };
        Some(Self {
            bits: as_bits(address),
            prefix: prefix + offset,
        })
    }

    /// Returns whether the network contains this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = self.bits ^ as_bits(address);
        differing.leading_zeros() >= self.prefix
    }
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in cases {
            let found = Network::parse(network).unwrap();
            assert_eq!(
                found.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0.0/x", "::/129", "10.0.0"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
