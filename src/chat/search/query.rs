//! Parses message searches as users type them: words, phrases, exclusions and operators.

use std::iter::Peekable;
use std::str::Chars;

use jiff::Timestamp;

use crate::http::ApiError;
use crate::http::input::{self, Parameters};

/// Maximum length of `q`, in characters. Users type less, and a query of this length contains few
/// words.
const MAX_QUERY_CHARS: usize = 400;

/// Maximum number of words per query. Each word is a look-up in the index for every stretch of
/// 2,048 messages of a conversation.
const MAX_WORDS: usize = 32;

/// Maximum number of people and conversations in a query.
const MAX_NAMES: usize = 20;

/// The values of `has`.
const KINDS: [&str; 4] = ["file", "image", "link", "reaction"];

/// A message search. A message must meet all conditions, but needs to match only one of the senders
/// and one of the places.
#[derive(Debug, Default, PartialEq)]
pub(super) struct MessageQuery {
    /// Required words. Each matches the beginning of a word or, in a script without spaces, any
    /// part of the text.
    pub(super) words: Vec<String>,
    /// Required phrases: consecutive words.
    pub(super) phrases: Vec<String>,
    /// Excluded words and phrases.
    pub(super) unwanted: Vec<String>,
    /// Ids, names or e-mail addresses of senders, or `me`.
    pub(super) senders: Vec<String>,
    /// Ids of conversations, or the other person's id, name or e-mail address.
    pub(super) places: Vec<String>,
    /// Values of [`KINDS`].
    pub(super) has: Vec<String>,
    /// Only messages that the caller has not read.
    pub(super) unread: bool,
    /// Only messages that were sent at this time or later.
    pub(super) after: Option<Timestamp>,
    /// Only messages that were sent before this time.
    pub(super) before: Option<Timestamp>,
}

impl MessageQuery {
    /// Reads `q`, and operators given as separate parameters.
    ///
    /// # Errors
    /// 422 for an invalid value of an operator, and for a query that is too long.
    pub(super) fn read(text: &str, parameters: &Parameters) -> Result<Self, ApiError> {
        let mut query = Self::parse(text)?;
        for name in ["from", "in", "before", "after", "has", "is"] {
            if let Some(value) = parameters.text(name) {
                let lists = matches!(name, "has" | "is");
                for value in value.split(|c| lists && c == ',') {
                    query.apply(name, value.trim())?;
                }
            }
        }
        query.check()?;
        Ok(query)
    }

    /// Returns whether the search has no conditions.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns only the words and phrases, for the search of people and conversations.
    pub(super) fn plain_text(&self) -> String {
        [self.words.as_slice(), self.phrases.as_slice()]
            .concat()
            .join(" ")
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        if text.chars().count() > MAX_QUERY_CHARS {
            return Err(ApiError::invalid(format!(
                "q may have at most {MAX_QUERY_CHARS} characters"
            )));
        }
        let mut query = Self::default();
        let mut rest = text.chars().peekable();
        while let Some(&next) = rest.peek() {
            if next.is_whitespace() {
                rest.next();
                continue;
            }
            let is_unwanted = next == '-';
            if is_unwanted {
                rest.next();
            }
            if rest.peek().is_some_and(|c| is_quote(*c)) {
                let phrase = quoted(&mut rest);
                let list = if is_unwanted {
                    &mut query.unwanted
                } else {
                    &mut query.phrases
                };
                list.extend(Some(phrase).filter(|phrase| !phrase.trim().is_empty()));
                continue;
            }
            let word = take_until(&mut rest, |c| c.is_whitespace() || c == ':');
            if rest.peek() == Some(&':') && is_operator(&word) {
                rest.next();
                let value = if rest.peek().is_some_and(|c| is_quote(*c)) {
                    quoted(&mut rest)
                } else {
                    take_until(&mut rest, char::is_whitespace)
                };
                let name = word.to_ascii_lowercase();
                if is_unwanted {
                    return Err(ApiError::invalid(format!(
                        "-{name}: only words and phrases can be excluded"
                    )));
                }
                query.apply(&name, value.trim())?;
                continue;
            }
            let word = word + &take_until(&mut rest, char::is_whitespace);
            let list = if is_unwanted {
                &mut query.unwanted
            } else {
                &mut query.words
            };
            list.extend(Some(word).filter(|word| !word.is_empty()));
        }
        Ok(query)
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let moment = |value: &str| {
            input::moment(value).ok_or_else(|| {
                ApiError::invalid(format!(
                    "{name}: must be followed by a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z"
                ))
            })
        };
        match name {
            "from" if !value.is_empty() => self.senders.push(value.to_owned()),
            "from" => {
                return Err(ApiError::invalid(
                    "from: must be followed by a person, or by me",
                ));
            }
            "in" if !value.is_empty() => self.places.push(value.to_owned()),
            "in" => {
                return Err(ApiError::invalid(
                    "in: must be followed by a conversation or a person",
                ));
            }
            "before" => {
                let time = moment(value)?;
                self.before = Some(self.before.map_or(time, |before| before.min(time)));
            }
            "after" => {
                let time = moment(value)?;
                self.after = Some(self.after.map_or(time, |after| after.max(time)));
            }
            "has" => {
                let kind = value.to_ascii_lowercase();
                if !KINDS.contains(&kind.as_str()) {
                    return Err(ApiError::invalid(format!(
                        "has: must be followed by one of {}",
                        KINDS.join(", ")
                    )));
                }
                if !self.has.contains(&kind) {
                    self.has.push(kind);
                }
            }
            _ if value.eq_ignore_ascii_case("unread") => self.unread = true,
            _ => return Err(ApiError::invalid("is: must be followed by unread")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ApiError> {
        let texts = [&self.words, &self.phrases, &self.unwanted];
        let words: usize = texts
            .into_iter()
            .flatten()
            .map(|text| text.split_whitespace().count())
            .sum();
        if words > MAX_WORDS {
            return Err(ApiError::invalid(format!(
                "q may have at most {MAX_WORDS} words"
            )));
        }
        if self.senders.len() + self.places.len() > MAX_NAMES {
            return Err(ApiError::invalid(format!(
                "from: and in: may name at most {MAX_NAMES} people and conversations"
            )));
        }
        let texts = texts.into_iter().chain([&self.senders, &self.places]);
        if texts.flatten().any(|text| text.contains('\0')) {
            return Err(ApiError::invalid("q must not contain U+0000"));
        }
        // Without any of these conditions, all messages would have to be read to find those that
        // lack the unwanted words.
        let narrows = !self.words.is_empty()
            || !self.phrases.is_empty()
            || !self.senders.is_empty()
            || !self.has.is_empty()
            || self.unread;
        if !self.unwanted.is_empty() && !narrows {
            return Err(ApiError::invalid(
                "q contains only exclusions; add a word, from:, has: or is:",
            ));
        }
        Ok(())
    }
}

fn is_operator(word: &str) -> bool {
    ["from", "in", "before", "after", "has", "is"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
}

/// Returns whether the character is a straight or typographic double quote. Phones write the
/// latter.
fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{201e}')
}

/// Takes the text between two quotes, or after an unclosed one.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> String {
    rest.next();
    let text = take_until(rest, is_quote);
    rest.next();
    text
}

fn take_until(rest: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next_if(|c| !ends(*c)) {
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use proptest::prelude::*;

    use super::*;
    use crate::error_code::ErrorCode;

    fn moment(text: &str) -> Option<Timestamp> {
        Some(text.parse().expect("a moment"))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn read(q: &str, parameters: &'static str) -> Result<MessageQuery, ApiError> {
        let parameters = Parameters::of(&Uri::from_static(parameters)).expect("parameters");
        MessageQuery::read(q, &parameters)
    }

    #[test]
    fn words_phrases_and_operators_are_distinguished() {
        let empty = MessageQuery::default;
        let cases = [
            ("", empty()),
            ("  ", empty()),
            ("\"\" \" \" - -\"\"", empty()),
            (
                "plan  b",
                MessageQuery {
                    words: strings(&["plan", "b"]),
                    ..empty()
                },
            ),
            (
                "\"plan b\" -\"plan c\" -draft x-y \u{201c}two words\u{201d}",
                MessageQuery {
                    words: strings(&["x-y"]),
                    phrases: strings(&["plan b", "two words"]),
                    unwanted: strings(&["plan c", "draft"]),
                    ..empty()
                },
            ),
            (
                "FROM:me from:\"Ben Brandt\" in:ana@example.com has:Link has:link is:unread",
                MessageQuery {
                    senders: strings(&["me", "Ben Brandt"]),
                    places: strings(&["ana@example.com"]),
                    has: strings(&["link"]),
                    unread: true,
                    ..empty()
                },
            ),
            (
                "after:2026-01-31 after:2026-01-30 before:2026-02-01T12:00:00+01:00",
                MessageQuery {
                    after: moment("2026-01-31T00:00:00Z"),
                    before: moment("2026-02-01T11:00:00Z"),
                    ..empty()
                },
            ),
            (
                "https://example.com/a:b note:this \"open",
                MessageQuery {
                    words: strings(&["https://example.com/a:b", "note:this"]),
                    phrases: strings(&["open"]),
                    ..empty()
                },
            ),
        ];
        for (q, expected) in cases {
            assert_eq!(read(q, "/").expect(q), expected, "{q}");
        }
    }

    #[test]
    fn operators_can_be_parameters() {
        let query = read(
            "x from:ben",
            "/?from=me&in=ada&has=file,image&is=unread&after=2026-01-31&before=2026-02-01T00:00:00%2B01:00",
        );
        let expected = MessageQuery {
            words: strings(&["x"]),
            senders: strings(&["ben", "me"]),
            places: strings(&["ada"]),
            has: strings(&["file", "image"]),
            unread: true,
            after: moment("2026-01-31T00:00:00Z"),
            before: moment("2026-01-31T23:00:00Z"),
            ..MessageQuery::default()
        };
        assert_eq!(query.expect("good"), expected);
    }

    #[test]
    fn errors_name_the_operator_with_an_invalid_value() {
        let many = "x ".repeat(MAX_WORDS + 1);
        let long = "x".repeat(MAX_QUERY_CHARS + 1);
        let names = "in:a ".repeat(MAX_NAMES + 1);
        for (q, parameters, hint) in [
            ("before:tomorrow", "/", "before"),
            ("after:", "/", "after"),
            ("has:star", "/", "has"),
            ("is:starred", "/", "is"),
            ("from:", "/", "from"),
            ("in:\"\"", "/", "in"),
            ("-from:me", "/", "-from"),
            ("-draft", "/", "only exclusions"),
            ("-draft in:ben", "/", "only exclusions"),
            ("a\0", "/", "U+0000"),
            ("", "/?has=nothing", "has"),
            ("", "/?before=1", "before"),
            (&many, "/", "words"),
            (&long, "/", "characters"),
            (&names, "/", "name at most"),
        ] {
            let error = read(q, parameters).expect_err(q);
            assert_eq!(error.code(), ErrorCode::ValidationFailed, "{q}");
            let error = format!("{error:?}");
            assert!(error.contains(hint), "{q}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_accepts_any_text(q in "(-|\"|:|from|has:| |é|x){0,30}") {
            if let Ok(query) = MessageQuery::parse(&q) {
                for text in [query.words, query.phrases, query.unwanted].concat() {
                    prop_assert!(!text.trim().is_empty());
                }
            }
        }
    }
}
