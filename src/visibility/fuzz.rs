//! Properties of filters and records that fuzzing tries to violate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use std::sync::Arc;

use serde_json::Value;

use super::encoding::{ValueEncoding, write_value};
use super::filter::{Condition, Operator};
use super::inspect::inspect_text;
use super::request::SubscriptionRequest;

/// Parses a filter, prints it and parses it again. Both results must be equal.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A text that is sent back to a client must not contain control characters.
    let shown = inspect_text(text);
    assert!(!shown[1..shown.len() - 1].contains(|c: char| c.is_control()));
    let Ok(conditions) = Condition::parse_all(text) else {
        return;
    };
    // The grammar does not quote column names, so a name that contains characters of the grammar
    // cannot be printed as a name.
    let is_plain = |condition: &Condition| {
        !condition.column.contains(['"', '(', ')', ',', '.', '\\'])
            && condition.column.trim() == condition.column
    };
    if !conditions.iter().all(is_plain) {
        return;
    }
    let printed: Vec<_> = conditions.iter().filter_map(print).collect();
    if printed.len() == conditions.len() {
        assert_eq!(
            Condition::parse_all(&printed.join(",")),
            Ok(conditions),
            "{printed:?}"
        );
    }
}

/// Prints a condition in the grammar. Returns `None` for a list with parentheses, quotes or
/// backslashes, because unbalanced ones are parsed differently if another condition follows.
fn print(condition: &Condition) -> Option<String> {
    let Condition {
        column,
        operator,
        value,
        negated,
    } = condition;
    let not = if *negated { "not." } else { "" };
    let value = if *operator == Operator::In {
        let inside = value.strip_prefix('{')?.strip_suffix('}')?;
        if inside.contains(['(', ')', '"', '\\']) {
            return None;
        }
        format!("({inside})")
    } else {
        format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
    };
    Some(format!("{column}={not}{}.{value}", operator.as_str()))
}

/// Parses the parameters of a subscription. Writing the result's event and columns back to the
/// parameters and parsing them again must return the same result.
pub fn subscription(data: &[u8]) {
    let Ok(params) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let request = match SubscriptionRequest::parse(&params) {
        Ok(request) => request,
        Err(error) => {
            assert!(!error.client_text().is_empty());
            return;
        }
    };
    assert!(request.describe().starts_with("event: "));
    let mut again = params;
    again["event"] = request.event.as_str().into();
    again["select"] = request.select.clone().into();
    assert_eq!(SubscriptionRequest::parse(&again), Ok(request));
}

/// A value as PostgreSQL prints it, generated from bytes, and the expected JSON.
struct Sample {
    encoding: ValueEncoding,
    text: String,
    json: Value,
}

/// Checks that printed arrays and row types become the JSON of their values, whatever these
/// contain, and that any text becomes valid JSON for types that are written as strings.
pub fn record(data: &[u8]) {
    let mut choices = Choices(data);
    let sample = choices.sample(0);
    let mut out = Vec::new();
    write_value(&mut out, sample.text.as_bytes(), &sample.encoding);
    let found: Value = serde_json::from_slice(&out).unwrap_or_else(|error| {
        panic!(
            "{error}: {} of {}",
            String::from_utf8_lossy(&out),
            sample.text
        )
    });
    assert_eq!(found, sample.json, "{}", sample.text);
}

/// Choices derived from bytes. When the bytes run out, each choice is 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// Returns a text of ordinary characters and of characters that are special in one of the
    /// printed forms.
    fn text(&mut self) -> String {
        const CHARACTERS: [char; 16] = [
            'a',
            '"',
            '\\',
            ',',
            '{',
            '}',
            '(',
            ')',
            ' ',
            '\n',
            'é',
            '\'',
            '\u{1}',
            'N',
            ';',
            '\u{1f600}',
        ];
        let length = self.byte() % 12;
        (0..length)
            .map(|_| CHARACTERS[usize::from(self.byte() % 16)])
            .collect()
    }

    fn sample(&mut self, depth: u8) -> Sample {
        let kind = if depth < 3 {
            self.byte() % 6
        } else {
            self.byte() % 4
        };
        match kind {
            0 => {
                let number = i64::from(self.byte()) * 1_000_003 - 128;
                Sample {
                    encoding: ValueEncoding::Number,
                    text: number.to_string(),
                    json: number.into(),
                }
            }
            1 => {
                let is_true = self.byte() & 1 == 1;
                Sample {
                    encoding: ValueEncoding::Bool,
                    text: if is_true { "t" } else { "f" }.to_owned(),
                    json: is_true.into(),
                }
            }
            2 => {
                let json = Value::from(vec![Value::from(self.text()), Value::Null]);
                Sample {
                    encoding: ValueEncoding::Json,
                    text: json.to_string(),
                    json,
                }
            }
            3 => {
                let text = self.text();
                Sample {
                    encoding: ValueEncoding::Text,
                    json: text.clone().into(),
                    text,
                }
            }
            4 => self.array(depth),
            _ => self.composite(depth),
        }
    }

    /// Returns an array of up to three equal elements or nulls, sometimes with bounds. All elements
    /// have one type, so one sample is used for all of them.
    fn array(&mut self, depth: u8) -> Sample {
        let element = self.sample(depth + 1);
        let count = self.byte() % 4;
        let mut texts = Vec::new();
        let mut values = Vec::new();
        for _ in 0..count {
            if self.byte().is_multiple_of(4) {
                texts.push("NULL".to_owned());
                values.push(Value::Null);
            } else {
                texts.push(quoted_element(&element.text));
                values.push(element.json.clone());
            }
        }
        let bounds = if count > 0 && self.byte().is_multiple_of(4) {
            "[0:2]="
        } else {
            ""
        };
        // An array inside an array is another dimension and is printed without quotes, so none is
        // built here.
        if let ValueEncoding::Array(..) = element.encoding {
            return element;
        }
        Sample {
            encoding: ValueEncoding::Array(Arc::new(element.encoding), ','),
            text: format!("{bounds}{{{}}}", texts.join(",")),
            json: values.into(),
        }
    }

    fn composite(&mut self, depth: u8) -> Sample {
        let count = 1 + self.byte() % 3;
        let mut attributes = Vec::new();
        let mut texts = Vec::new();
        let mut json = serde_json::Map::new();
        for number in 0..count {
            let name = format!("a{number}");
            let value = self.sample(depth + 1);
            let is_null = self.byte().is_multiple_of(4);
            texts.push(if is_null {
                String::new()
            } else {
                quoted_attribute(&value.text)
            });
            json.insert(name.clone(), if is_null { Value::Null } else { value.json });
            attributes.push((name, Arc::new(value.encoding)));
        }
        Sample {
            encoding: ValueEncoding::Composite(attributes),
            text: format!("({})", texts.join(",")),
            json: json.into(),
        }
    }
}

/// Returns an element as `array_out` prints it.
fn quoted_element(text: &str) -> String {
    let needs_quotes = text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.contains(['"', '\\', '{', '}', ',', ' ', '\n']);
    if needs_quotes {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

/// Returns an attribute as `record_out` prints it.
fn quoted_attribute(text: &str) -> String {
    let needs_quotes = text.is_empty() || text.contains(['"', '\\', '(', ')', ',', ' ', '\n']);
    if needs_quotes {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
