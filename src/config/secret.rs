//! A string that must not be printed.

use std::fmt;

/// Printed instead of a secret.
pub(super) const MASK: &str = "***";

/// A password, key or connection string. `Debug` and `Display` print `***`. Only [`Secret::expose`]
/// returns the text, so every use can be found by that name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a string.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

/// Masks the password of a connection string. If the format is unknown, everything is masked.
pub(super) fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.to_owned();
    };
    let (address, parameters) = match rest.split_once('?') {
        Some((address, parameters)) => (address, Some(parameters)),
        None => (rest, None),
    };
    // The last `@` separates the login, because passwords are often written with an unescaped `@`.
    let address = match address.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => format!("{login}@{host}"),
        },
        None => address.to_owned(),
    };
    let mut masked = format!("{scheme}://{address}");
    let mut separator = '?';
    for parameter in parameters.into_iter().flat_map(|text| text.split('&')) {
        masked.push(separator);
        separator = '&';
        match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => {
                masked.push_str(&format!("{name}={MASK}"));
            }
            _ => masked.push_str(parameter),
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn only_the_password_of_a_connection_string_is_masked() {
        let cases = [
            (
                "postgres://ana:pa:ss@host:5432/db",
                "postgres://ana:***@host:5432/db",
            ),
            (
                "postgres://ana:p@ss@host/db?sslmode=require",
                "postgres://ana:***@host/db?sslmode=require",
            ),
            ("postgres://ana@host/db", "postgres://ana@host/db"),
            (
                "postgres://host/db?user=ana&password=x",
                "postgres://host/db?user=ana&password=***",
            ),
            (
                "postgres://host/db?sslpassword=x&a=b",
                "postgres://host/db?sslpassword=***&a=b",
            ),
            ("host=h password=x", "***"),
        ];
        for (url, masked) in cases {
            assert_eq!(mask_url(url), masked);
        }
    }
}
