//! Writes log lines to standard error and limits their length.
//!
//! [`Excerpt`] limits the texts of clients where they are logged. The limit in this file applies to
//! every line, including those of libraries.

use std::borrow::Cow;
use std::io;

use serde_json::Value;

use super::excerpt::Excerpt;
use crate::config::LogFormat;

/// Length in bytes above which a line is shortened to about this length. The longest intended lines
/// are errors that clients report (`POST /client-errors`), with up to 13,000 characters.
const MAX_BYTES: usize = 16 * 1024;

/// How many bytes are kept at the end of a line of text that is too long. The last fields identify
/// the request.
const KEPT_END_BYTES: usize = 1024;

/// Writes to standard error. `tracing_subscriber` writes each line in one call.
pub(super) struct LogLines(pub(super) LogFormat);

impl io::Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&limited(&self.0, line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Returns the line, shortened if it is too long.
fn limited<'a>(format: &LogFormat, line: &'a [u8]) -> Cow<'a, [u8]> {
    if line.len() <= MAX_BYTES {
        return line.into();
    }
    let parsed = match format {
        LogFormat::Json => serde_json::from_slice(line).ok(),
        LogFormat::Text => None,
    };
    let shortened = match parsed {
        Some(mut value) => {
            shorten_texts(&mut value);
            format!("{value}\n")
        }
        None => without_middle(&String::from_utf8_lossy(line)),
    };
    shortened.into_bytes().into()
}

/// Shortens every text of an object. The number and names of the fields do not depend on clients.
fn shorten_texts(value: &mut Value) {
    match value {
        Value::String(text) => *text = Excerpt(&*text).to_string(),
        Value::Array(values) => values.iter_mut().for_each(shorten_texts),
        Value::Object(fields) => fields.values_mut().for_each(shorten_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn without_middle(line: &str) -> String {
    let start = line.floor_char_boundary(MAX_BYTES - KEPT_END_BYTES);
    let end = line.ceil_char_boundary(line.len() - KEPT_END_BYTES);
    let omitted = end - start;
    format!(
        "{} … {omitted} bytes omitted … {}",
        &line[..start],
        &line[end..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lines_are_unchanged() {
        let line = "é".repeat(MAX_BYTES / 2);
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(limited(&format, line.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn long_lines_of_text_keep_their_end() {
        let line = format!("INFO request method={} status=404\n", "é".repeat(60_000));
        let shortened = limited(&LogFormat::Text, line.as_bytes());
        assert!(shortened.len() < MAX_BYTES + 100);
        let text = std::str::from_utf8(&shortened).unwrap();
        assert!(text.starts_with("INFO request method=é"));
        assert!(text.ends_with(" status=404\n"));
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn long_lines_of_json_remain_json() {
        let line = serde_json::json!({
            "message": "request",
            "status": 404,
            "method": "x".repeat(60_000),
            "span": { "id": "\u{1}".repeat(60_000) },
        });
        let shortened = limited(&LogFormat::Json, format!("{line}\n").as_bytes()).into_owned();
        assert!(shortened.len() < MAX_BYTES && shortened.ends_with(b"}\n"));
        let value: Value = serde_json::from_slice(&shortened).unwrap();
        assert_eq!(
            (&value["message"], &value["status"]),
            (&"request".into(), &404.into())
        );
        assert!(value["method"].as_str().unwrap().starts_with("xxx"));
    }
}
