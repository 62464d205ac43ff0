//! Logs errors that clients report: `POST /client-errors`.
//!
//! Only signed-in users can report errors, because the rate limit that protects the log is per
//! user. The project's public key does not suffice: it is in every page, so anyone can have it. The
//! contents of a report are untrusted and affect only the report's own log line. Text that looks
//! like a secret or an e-mail address is removed before anything is written.

use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::http::input::BeaconFields;
use crate::http::{ApiError, Caller};
use crate::observability::metrics::ChatMetrics;
use crate::requests::check_identity;

/// Maximum length of `message`, in characters.
const MAX_MESSAGE: usize = 1000;
/// Maximum length of `stack`, in characters.
const MAX_STACK: usize = 8000;
/// Maximum length of `context`, in characters.
const MAX_CONTEXT: usize = 2000;
/// Maximum length of `url`, in characters.
const MAX_ADDRESS: usize = 500;
/// Maximum length of each other field, in characters.
const MAX_WORD: usize = 300;

/// Minimum length of a part of a word, between dots, that is treated as a key if it contains both
/// letters and digits. Names of bundles and functions are shorter, and UUIDs are recognized by
/// their form.
const MIN_KEY_LENGTH: usize = 32;

/// Prefixes of keys. A word with such a prefix and at least eight more characters is treated as a
/// key.
const KEY_PREFIXES: [&str; 9] = [
    "sb_secret_",
    "sb_publishable_",
    "sbp_",
    "sk_",
    "sk-",
    "ghp_",
    "github_pat_",
    "xoxb-",
    "AKIA",
];

/// Names whose values must not be logged.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "authorization",
    "cookie",
];

/// `POST /client-errors`: logs an error of a client.
pub(super) async fn report_client_error(
    caller: Caller,
    State(metrics): State<ChatMetrics>,
    headers: HeaderMap,
    BeaconFields(fields): BeaconFields,
) -> Result<StatusCode, ApiError> {
    check_identity(&caller, &fields, &[])?;
    let text = |name, max| fields.lossy_text(name).map(|text| clean(&text, max));
    let Some(message) = text("message", MAX_MESSAGE) else {
        return Err(ApiError::invalid("message is missing"));
    };
    let user_agent = text("user_agent", MAX_WORD).or_else(|| {
        let sent = headers.get(USER_AGENT)?.to_str().ok()?;
        Some(clean(sent, MAX_WORD))
    });
    // Tokens are usually in the query string or the fragment.
    let url = fields.lossy_text("url").map(|url| {
        let end = url.find(['?', '#']).unwrap_or(url.len());
        clean(&url[..end], MAX_ADDRESS)
    });
    metrics.client_errors.inc();
    tracing::warn!(
        target: "rapport::client_error",
        user_id = %caller.user_id,
        message,
        code = text("code", MAX_WORD),
        stack = text("stack", MAX_STACK),
        context = text("context", MAX_CONTEXT),
        url,
        user_agent,
        sdk_version = text("sdk_version", MAX_WORD),
        client_request_id = text("request_id", MAX_WORD),
        "client reported an error"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Cuts a text, puts it on one line, and removes parts that look like secrets.
fn clean(text: &str, max: usize) -> String {
    // Reads more than is kept, so that a secret at the cut is still recognized.
    let kept: String = text
        .chars()
        .take(2 * max)
        .map(|c| {
            if c.is_control() || is_line_end(c) || is_direction_control(c) {
                ' '
            } else {
                c
            }
        })
        .collect();
    scrub(&without_userinfo(&kept)).chars().take(max).collect()
}

/// Returns whether some programs treat the character as a line end although it is not a control
/// character.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns whether the character is a mark, embedding, override or isolate of the writing
/// direction. These make a terminal show a line in another order.
fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Removes the name and password in the authority of URLs. [`scrub`] recognizes them, as an e-mail
/// address, only if the host contains a dot.
fn without_userinfo(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = rest.split_at(at + "://".len());
        kept.push_str(scheme);
        let ends =
            |c: char| matches!(c, '/' | '?' | '#' | '\\' | '"' | '<' | '>') || c.is_whitespace();
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(at) => {
                kept.push_str("[removed]");
                &after[at..]
            }
            None => after,
        };
    }
    kept + rest
}

/// Replaces tokens, keys and e-mail addresses.
fn scrub(text: &str) -> String {
    let mut scrubbed = String::with_capacity(text.len());
    let mut rest = text;
    // The last word, to recognize a value that follows a secret's name.
    let mut name = String::new();
    let mut gap = "";
    while !rest.is_empty() {
        let word_end = rest.find(|c| !is_word_character(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if !word.is_empty() {
            let is_named =
                gap.contains(['=', ':']) && SECRET_NAMES.iter().any(|secret| name.contains(secret));
            // "Bearer" may appear between a name and its value.
            let is_scheme =
                word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
            let is_credential = (name == "bearer" || name == "basic") && is_blank(gap);
            if (is_named && !is_scheme) || (is_credential && word.len() > 6) {
                scrubbed.push_str("[removed]");
            } else {
                scrubbed.push_str(replacement(word).unwrap_or(word));
            }
            name = word.to_ascii_lowercase();
        }
        let gap_end = after.find(is_word_character).unwrap_or(after.len());
        (gap, rest) = after.split_at(gap_end);
        scrubbed.push_str(gap);
    }
    scrubbed
}

fn is_blank(gap: &str) -> bool {
    gap.chars().all(|c| c == ' ')
}

fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '@' | '%' | '~')
}

/// Returns the replacement for a word that is a secret. `None` for any other word.
fn replacement(word: &str) -> Option<&'static str> {
    let is_address = |at: &str| {
        word.split_once(at)
            .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
    };
    if is_address("@") || is_address("%40") {
        return Some("[e-mail]");
    }
    // `eyJ` is the Base64 of `{"`, so every part of a token that is a JSON object starts with it.
    // It also remains if the token is cut off.
    if word.contains("eyJ") && word.len() >= 20 {
        return Some("[token]");
    }
    let is_key = word.split('.').any(|part| {
        let has = |kind: fn(&u8) -> bool| part.as_bytes().iter().any(kind);
        part.len() >= MIN_KEY_LENGTH
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_alphabetic)
            && !(part.len() == Hyphenated::LENGTH && Uuid::try_parse(part).is_ok())
    });
    let has_key_prefix = KEY_PREFIXES
        .iter()
        .any(|prefix| word.starts_with(prefix) && word.len() >= prefix.len() + 8);
    (is_key || has_key_prefix).then_some("[key]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_email_addresses_are_removed() {
        let cases = [
            ("Cannot read x of undefined", "Cannot read x of undefined"),
            ("a\nb\tc\u{1b}[31m\u{2028}d", "a b c [31m d"),
            (
                "401 for eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1 at",
                "401 for [token] at",
            ),
            ("to ana.b+x@example.org, and", "to [e-mail], and"),
            ("red\u{202e}gnp\u{2066}.exe\u{200f}", "red gnp .exe "),
            ("ab\u{200d}c שלום", "ab\u{200d}c שלום"),
            ("at https://u:p@h/x, ok", "at https://[removed]@h/x, ok"),
            (
                "https://u:p@h.example/x https://h/y@z wss://a@b:1",
                "https://[removed]@h.example/x https://h/y@z wss://[removed]@b:1",
            ),
            ("?mail=ana%40example.org&x=1", "?mail=[e-mail]&x=1"),
            (
                "Authorization: Bearer abc.def",
                "Authorization: Bearer [removed]",
            ),
            ("password=hunter2; rest", "password=[removed]; rest"),
            (
                r#"{"access_token":"x1y2","n":1}"#,
                r#"{"access_token":"[removed]","n":1}"#,
            ),
            ("key sb_secret_abcdefgh12345", "key [key]"),
            ("k 0123456789abcdef0123456789abcdef!", "k [key]!"),
            ("the token expired", "the token expired"),
            (
                "message 00000000-0000-4000-8000-00000000000a",
                "message 00000000-0000-4000-8000-00000000000a",
            ),
            (
                "at f (https://a.example/static/main.3f2a9c1b.chunk.js:1:2345)",
                "at f (https://a.example/static/main.3f2a9c1b.chunk.js:1:2345)",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(clean(text, 1000), expected);
        }
    }

    #[test]
    fn fields_are_cut_and_a_secret_at_the_cut_is_recognized() {
        let text = format!(
            "{} eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
            "é".repeat(95)
        );
        let kept = clean(&text, 100);
        assert_eq!(kept.chars().count(), 100);
        assert!(!kept.contains("eyJ"), "{kept}");
    }
}
