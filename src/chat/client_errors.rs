//! What goes wrong in clients, for the log: `POST /client-errors`.
//!
//! Only from people who are signed in: the project's public key is in every page, so that whoever has it could fill the log,
//! and a limit for each person needs a person. A report says nothing that its sender could not make up; no line of the
//! log depends on it but its own. What looks like a secret or an address is taken out before anything is written.

use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::check_identity;
use crate::http::input::BeaconFields;
use crate::http::{ApiError, Caller};
use crate::observability::metrics::ChatMetrics;

/// Characters that are kept of each field.
const MAX_MESSAGE: usize = 1000;
const MAX_STACK: usize = 8000;
const MAX_CONTEXT: usize = 2000;
const MAX_ADDRESS: usize = 500;
const MAX_WORD: usize = 300;

/// From so many characters on, a word of letters and digits is taken for a key. Names of bundles and of functions are
/// shorter, and ids have their own form.
const MIN_KEY: usize = 32;

/// How keys begin, at any length that a key may have.
const KEY_BEGINNINGS: [&str; 9] = [
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

/// Names of what nobody should write down.
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

/// `POST /client-errors`.
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
    // What stands behind a question mark or a number sign is where tokens are.
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
        "a client reports an error"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// The beginning of a text, on one line and without what looks like a secret.
fn clean(text: &str, max: usize) -> String {
    // More than is kept, so that what is cut off in the middle is still known for what it is.
    let kept: String = text
        .chars()
        .take(2 * max)
        .map(|c| {
            if c.is_control() || is_line_end(c) {
                ' '
            } else {
                c
            }
        })
        .collect();
    scrub(&kept).chars().take(max).collect()
}

/// Characters that are no control characters and end a line for some.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Replaces tokens, keys and e-mail addresses.
fn scrub(text: &str) -> String {
    let mut scrubbed = String::with_capacity(text.len());
    let mut rest = text;
    // What was last named, and whether a value of it would follow here.
    let mut name = String::new();
    let mut gap = "";
    while !rest.is_empty() {
        let word_end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_end);
        if !word.is_empty() {
            let is_named =
                gap.contains(['=', ':']) && SECRET_NAMES.iter().any(|secret| name.contains(secret));
            // "Bearer" stands between a name and its value.
            let is_scheme =
                word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
            let is_credential = (name == "bearer" || name == "basic") && is_blank(gap);
            if (is_named && !is_scheme) || (is_credential && word.len() > 6) {
                scrubbed.push_str("[removed]");
            } else {
                scrubbed.push_str(kind_of_secret(word).unwrap_or(word));
            }
            name = word.to_ascii_lowercase();
        }
        let gap_end = behind.find(is_of_word).unwrap_or(behind.len());
        (gap, rest) = behind.split_at(gap_end);
        scrubbed.push_str(gap);
    }
    scrubbed
}

fn is_blank(gap: &str) -> bool {
    gap.chars().all(|c| c == ' ')
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '@' | '%' | '~')
}

/// What to write in place of a word that is a secret.
fn kind_of_secret(word: &str) -> Option<&'static str> {
    let is_address = |at: &str| {
        word.split_once(at)
            .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
    };
    if is_address("@") || is_address("%40") {
        return Some("[e-mail]");
    }
    // A JSON object in Base64 begins so; cut off or whole.
    if word.contains("eyJ") && word.len() >= 20 {
        return Some("[token]");
    }
    let is_key = word.split('.').any(|part| {
        let has = |kind: fn(&u8) -> bool| part.as_bytes().iter().any(kind);
        part.len() >= MIN_KEY
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_alphabetic)
            && !(part.len() == Hyphenated::LENGTH && Uuid::try_parse(part).is_ok())
    });
    let begins_as_key = KEY_BEGINNINGS
        .iter()
        .any(|beginning| word.starts_with(beginning) && word.len() >= beginning.len() + 8);
    (is_key || begins_as_key).then_some("[key]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_addresses_are_taken_out() {
        let cases = [
            ("Cannot read x of undefined", "Cannot read x of undefined"),
            ("a\nb\tc\u{1b}[31m\u{2028}d", "a b c [31m d"),
            (
                "401 for eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1 at",
                "401 for [token] at",
            ),
            ("to ana.b+x@example.org, and", "to [e-mail], and"),
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
    fn what_is_kept_is_bounded_and_a_secret_at_the_end_is_still_one() {
        let text = format!(
            "{} eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
            "é".repeat(95)
        );
        let kept = clean(&text, 100);
        assert_eq!(kept.chars().count(), 100);
        assert!(!kept.contains("eyJ"), "{kept}");
    }
}
