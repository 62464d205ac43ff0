//! Prints values as Elixir's `inspect` does, because the protocol's error texts quote parameters in
//! this form.

use std::fmt::Write as _;

use serde_json::Value;

/// Appends a value as Elixir's `inspect` prints it.
pub(super) fn inspect(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(&inspect_text(text)),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                inspect(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("%{");
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                out.push_str(&inspect_text(key));
                out.push_str(" => ");
                inspect(&map[key], out);
            }
            out.push('}');
        }
    }
}

/// Returns a text as Elixir's `inspect` prints it.
pub(super) fn inspect_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '#' if characters.peek() == Some(&'{') => out.push_str("\\#"),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
