//! What people type to find messages: words, phrases, what they do not want, and operators.

use std::iter::Peekable;
use std::str::Chars;

use jiff::Timestamp;

use crate::http::ApiError;
use crate::http::input::{self, Parameters};

/// The longest `q`, in characters. Longer than anybody types, short enough that its words are few.
const MAX_QUERY_CHARS: usize = 400;

/// Words of one query. Each is a look-up in the index for every stretch of a conversation.
const MAX_WORDS: usize = 32;

/// People or conversations that one query names.
const MAX_NAMES: usize = 20;

/// What `has` takes.
const KINDS: [&str; 4] = ["file", "image", "link", "reaction"];

/// A search for messages. Everything in it has to hold, but any of the senders and any of the
/// places will do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct MessageQuery {
    /// Words that must be there, each as the beginning of one.
    pub(super) words: Vec<String>,
    /// Words that must be there one behind the other.
    pub(super) phrases: Vec<String>,
    /// Words and phrases that must not be there.
    pub(super) unwanted: Vec<String>,
    /// Ids, names or addresses of senders, or `me`.
    pub(super) senders: Vec<String>,
    /// Ids of conversations, or the other person's id, name or address.
    pub(super) places: Vec<String>,
    /// Of [`KINDS`].
    pub(super) has: Vec<String>,
    /// Only what the caller has yet to read.
    pub(super) unread: bool,
    /// Sent then or later.
    pub(super) after: Option<Timestamp>,
    /// Sent earlier.
    pub(super) before: Option<Timestamp>,
}

impl MessageQuery {
    /// Reads `q`, and the operators that are parameters of their own.
    ///
    /// # Errors
    /// 422 for a value that an operator does not take, and for what is too long.
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

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The words alone, as the search for people and conversations takes them.
    pub(super) fn plain_text(&self) -> String {
        [self.words.as_slice(), self.phrases.as_slice()]
            .concat()
            .join(" ")
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        if text.chars().count() > MAX_QUERY_CHARS {
            return Err(ApiError::invalid(format!(
                "q has at most {MAX_QUERY_CHARS} characters"
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
            let word = up_to(&mut rest, |c| c.is_whitespace() || c == ':');
            if rest.peek() == Some(&':') && is_operator(&word) {
                rest.next();
                let value = if rest.peek().is_some_and(|c| is_quote(*c)) {
                    quoted(&mut rest)
                } else {
                    up_to(&mut rest, char::is_whitespace)
                };
                let name = word.to_ascii_lowercase();
                if is_unwanted {
                    return Err(ApiError::invalid(format!(
                        "-{name}: only words and phrases can be left out"
                    )));
                }
                query.apply(&name, value.trim())?;
                continue;
            }
            let word = word + &up_to(&mut rest, char::is_whitespace);
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
                    "{name}: takes a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z"
                ))
            })
        };
        match name {
            "from" if !value.is_empty() => self.senders.push(value.to_owned()),
            "from" => return Err(ApiError::invalid("from: takes a person, or me")),
            "in" if !value.is_empty() => self.places.push(value.to_owned()),
            "in" => return Err(ApiError::invalid("in: takes a conversation, or a person")),
            "before" => {
                let asked = moment(value)?;
                self.before = Some(self.before.map_or(asked, |before| before.min(asked)));
            }
            "after" => {
                let asked = moment(value)?;
                self.after = Some(self.after.map_or(asked, |after| after.max(asked)));
            }
            "has" => {
                let kind = value.to_ascii_lowercase();
                if !KINDS.contains(&kind.as_str()) {
                    return Err(ApiError::invalid(format!(
                        "has: takes {}",
                        KINDS.join(", ")
                    )));
                }
                if !self.has.contains(&kind) {
                    self.has.push(kind);
                }
            }
            _ if value.eq_ignore_ascii_case("unread") => self.unread = true,
            _ => return Err(ApiError::invalid("is: takes unread")),
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
                "q has at most {MAX_WORDS} words"
            )));
        }
        if self.senders.len() + self.places.len() > MAX_NAMES {
            return Err(ApiError::invalid(format!(
                "from: and in: name at most {MAX_NAMES} people and conversations"
            )));
        }
        let texts = texts.into_iter().chain([&self.senders, &self.places]);
        if texts.flatten().any(|text| text.contains('\0')) {
            return Err(ApiError::invalid("q must be without U+0000"));
        }
        // Everything else would have to be read to find what does not have a word.
        let narrows = !self.words.is_empty()
            || !self.phrases.is_empty()
            || !self.senders.is_empty()
            || !self.has.is_empty()
            || self.unread;
        if !self.unwanted.is_empty() && !narrows {
            return Err(ApiError::invalid(
                "q says only what is not wanted; add a word, from:, has: or is:",
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

/// Straight and typographic double quotes; telephones write the latter.
fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{201e}')
}

/// What stands between two quotes, or behind the only one.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> String {
    rest.next();
    let text = up_to(rest, is_quote);
    rest.next();
    text
}

fn up_to(rest: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> String {
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
    fn words_phrases_and_operators_are_told_apart() {
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
    fn operators_are_parameters_too() {
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
    fn what_an_operator_does_not_take_is_named() {
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
            ("-draft", "/", "not wanted"),
            ("-draft in:ben", "/", "not wanted"),
            ("a\0", "/", "U+0000"),
            ("", "/?has=nothing", "has"),
            ("", "/?before=1", "before"),
            (&many, "/", "words"),
            (&long, "/", "characters"),
            (&names, "/", "name at most"),
        ] {
            let error = read(q, parameters).expect_err(q);
            assert_eq!(error.code(), ErrorCode::ValidationFailed, "{q}");
            let said = format!("{error:?}");
            assert!(said.contains(hint), "{q}: {said}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_typed(q in "(-|\"|:|from|has:| |é|x){0,30}") {
            if let Ok(query) = MessageQuery::parse(&q) {
                for text in [query.words, query.phrases, query.unwanted].concat() {
                    prop_assert!(!text.trim().is_empty());
                }
            }
        }
    }
}
