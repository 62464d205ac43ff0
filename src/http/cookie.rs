//! Reads the access token from the session cookies of the Supabase client libraries.
//!
//! Sessions are never written or refreshed here, because refresh tokens rotate and belong to the
//! client in the browser.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The suffix of a session cookie's name. The text before it depends on the project's host name,
/// which differs if browser and server use different addresses.
const NAME_ENDING: &str = "-auth-token";

/// The prefix of a session cookie's name.
const NAME_BEGINNING: &str = "sb-";

/// Maximum number of sessions that are tried. A browser has one per project on the same domain. The
/// limit prevents a client from choosing how much the server decodes.
const MAX_SESSIONS: usize = 8;

/// The prefix of a cookie's value that is the base64url encoding of the session's JSON.
const ENCODING_MARK: &str = "base64-";

/// Returns the access token of the first session found in these `Cookie` header values. If `names`
/// is empty, any `sb-…-auth-token` cookie is used.
///
/// The libraries split a cookie longer than 3180 characters into `name.0`, `name.1`, …. An unsplit
/// cookie takes precedence. Chunks after a gap remain from an earlier session and are ignored.
pub(super) fn access_token<'a>(
    headers: impl Iterator<Item = &'a str>,
    names: &[String],
) -> Option<String> {
    let mut cookies: HashMap<&str, &str> = HashMap::new();
    let mut sessions: Vec<&str> = Vec::new();
    let pairs = headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    for (name, value) in pairs {
        // If a name appears twice, the first one wins.
        let Entry::Vacant(vacant) = cookies.entry(name) else {
            continue;
        };
        vacant.insert(value.trim_matches('"'));
        let session = name.strip_suffix(".0").unwrap_or(name);
        if sessions.len() < MAX_SESSIONS
            && is_session(session, names)
            && !sessions.contains(&session)
        {
            sessions.push(session);
        }
    }
    sessions.into_iter().find_map(|name| {
        let session = match cookies.get(name) {
            Some(value) => (*value).to_owned(),
            None => (0..)
                .map_while(|part| cookies.get(format!("{name}.{part}").as_str()))
                .copied()
                .collect(),
        };
        token_in(&session)
    })
}

fn is_session(name: &str, names: &[String]) -> bool {
    if names.is_empty() {
        return name.starts_with(NAME_BEGINNING) && name.ends_with(NAME_ENDING);
    }
    names.iter().any(|configured| configured == name)
}

/// Returns the access token in a session, which is a JSON object, or a list as older libraries
/// wrote it. An unreadable value, such as one with a missing chunk, counts as absent.
fn token_in(value: &str) -> Option<String> {
    let text = percent_decoded(value)?;
    let text = match text.strip_prefix(ENCODING_MARK) {
        Some(encoded) => {
            String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()?
        }
        None => text,
    };
    let token = match serde_json::from_str(&text).ok()? {
        Value::Object(mut session) => session.remove("access_token")?,
        Value::Array(mut session) if !session.is_empty() => session.swap_remove(0),
        _ => return None,
    };
    token.as_str().map(str::to_owned)
}

fn percent_decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(json: &str) -> String {
        format!("base64-{}", URL_SAFE_NO_PAD.encode(json))
    }

    #[test]
    fn finds_the_token_in_every_form() {
        let session = r#"{"access_token":"good","refresh_token":"r","user":{"name":"Ana é"}}"#;
        let whole = encoded(session);
        let (first, second) = whole.split_at(30);
        let raw = "%7B%22access_token%22%3A%22good%22%7D";
        let configured = vec!["mine".to_owned()];
        let none: Vec<String> = Vec::new();
        let cases: Vec<(Vec<String>, &[String], Option<&str>)> = vec![
            (
                vec![format!("a=b; sb-abc-auth-token={whole}; c=d")],
                &none,
                Some("good"),
            ),
            (
                vec!["a=b".into(), format!("sb-abc-auth-token={whole}")],
                &none,
                Some("good"),
            ),
            (
                vec![format!(
                    "sb-127-auth-token.1={second}; sb-127-auth-token.0={first}"
                )],
                &none,
                Some("good"),
            ),
            (
                vec![format!(
                    "sb-x-auth-token.0={first}; sb-x-auth-token.1={second}; sb-x-auth-token.3=old"
                )],
                &none,
                Some("good"),
            ),
            (
                vec![format!("sb-x-auth-token={whole}; sb-x-auth-token.0=old")],
                &none,
                Some("good"),
            ),
            (vec![format!("sb-x-auth-token.0={first}")], &none, None),
            (
                vec![format!("sb-a-auth-token=broken; sb-b-auth-token={whole}")],
                &none,
                Some("good"),
            ),
            (vec![format!("sb-x-auth-token={raw}")], &none, Some("good")),
            (
                vec![r#"sb-x-auth-token=["good","refresh"]"#.into()],
                &none,
                Some("good"),
            ),
            (
                vec!["sb-x-auth-token=%5B%22good%22%2C%22r%22%5D".into()],
                &none,
                Some("good"),
            ),
            (
                vec![format!(
                    "sb-x-auth-token-code-verifier={whole}; sb-x-auth-token-user={whole}"
                )],
                &none,
                None,
            ),
            (vec![format!("mine={whole}")], &none, None),
            (
                vec![format!("sb-x-auth-token=other; mine={whole}")],
                &configured,
                Some("good"),
            ),
            (
                vec!["sb-x-auth-token=%zz; sb-y-auth-token=%2".into()],
                &none,
                None,
            ),
            (
                vec!["sb-x-auth-token={}; sb-y-auth-token=[]; sb-z-auth-token=1".into()],
                &none,
                None,
            ),
        ];
        for (headers, names, expected) in cases {
            let found = access_token(headers.iter().map(String::as_str), names);
            assert_eq!(found.as_deref(), expected, "{headers:?}");
        }
    }

    /// Splits a value into cookies as `@supabase/ssr` 0.12 does: at most 3180 characters of the
    /// URI-encoded value, never within an escape.
    fn chunks(name: &str, value: &str) -> Vec<String> {
        let encoded: String = value
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
                b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let (mut rest, mut cookies) = (&*encoded, Vec::new());
        while !rest.is_empty() {
            let mut end = rest.len().min(3180);
            if end < rest.len()
                && let Some(escape) = rest[end - 2..end].find('%')
            {
                end = end - 2 + escape;
            }
            let number = cookies.len();
            cookies.push(format!("{name}.{number}={}", &rest[..end]));
            rest = &rest[end..];
        }
        cookies
    }

    #[test]
    fn long_sessions_are_read_in_every_encoding() {
        let name = "sb-abc-auth-token";
        let user = "Zoë 🙂 ".repeat(700);
        let with_user = format!(r#"{{"access_token":"good","user":{{"name":"{user}"}}}}"#);
        // `tokens-only` keeps the user elsewhere.
        let tokens = r#"{"access_token":"good","refresh_token":"r","expires_at":1}"#;
        let none: Vec<String> = Vec::new();
        for value in [
            encoded(&with_user),
            with_user,
            encoded(tokens),
            tokens.to_owned(),
        ] {
            let cookies = chunks(name, &value);
            let found = |header: &str, names: &[String]| access_token([header].into_iter(), names);
            let header = cookies.join("; ");
            assert_eq!(found(&header, &none).as_deref(), Some("good"));
            // Chunks of a longer session that remain after a gap are not joined.
            let stale = format!("{header}; {name}.{}=stale", cookies.len() + 1);
            assert_eq!(found(&stale, &none).as_deref(), Some("good"));
            // A session in one cookie wins over the chunks of an earlier one.
            let undivided = format!("{header}; {name}={}", encoded(r#"{"access_token":"new"}"#));
            assert_eq!(found(&undivided, &none).as_deref(), Some("new"));
            // `cookieOptions.name` may be any name.
            let renamed = header.replace(name, "session");
            assert_eq!(found(&renamed, &none), None);
            let names = ["session".to_owned()];
            assert_eq!(found(&renamed, &names).as_deref(), Some("good"));
        }
    }

    #[test]
    fn the_number_of_sessions_that_are_tried_is_limited() {
        let good = encoded(r#"{"access_token":"good"}"#);
        for (broken, expected) in [
            (MAX_SESSIONS - 1, Some("good")),
            (MAX_SESSIONS, None),
            (2_800, None),
        ] {
            let mut header: String = (0..broken)
                .map(|n| format!("sb-{n}-auth-token.0=; sb-{n}-auth-token.0=; "))
                .collect();
            header.push_str(&format!("sb-x-auth-token={good}"));
            let found = access_token([header.as_str()].into_iter(), &[]);
            assert_eq!(found.as_deref(), expected, "after {broken}");
        }
        // Other cookies do not count.
        let others: String = (0..2_800).map(|n| format!("c{n}=; ")).collect();
        let header = format!("{others}sb-x-auth-token={good}");
        let found = access_token([header.as_str()].into_iter(), &[]);
        assert_eq!(found.as_deref(), Some("good"));
    }
}
