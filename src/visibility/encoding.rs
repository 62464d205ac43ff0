//! Writes column values as JSON.
//!
//! Values arrive as PostgreSQL prints them. The JSON equals the result of `to_jsonb` for the same
//! value (protocol 6.4), with two differences that the protocol requires: `bytea` is bare hex, and
//! a number keeps its printed digits. Values are parsed only as far as their type requires.

use std::sync::Arc;

/// How a printed value becomes JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueEncoding {
    /// Integers, floating point and `numeric`: the printed digits. `NaN` and the infinities become
    /// strings.
    Number,
    /// `t` and `f`.
    Bool,
    /// `json` and `jsonb`: unchanged.
    Json,
    /// A string, for all other types.
    Text,
    /// A date, as an unchanged string.
    Date,
    /// A timestamp, with `T` between date and time.
    Timestamp,
    /// A timestamp with time zone, with `T` between date and time, and with minutes in the offset.
    TimestampTz,
    /// Hex without `\x`.
    Bytea,
    /// An array: the encoding of its elements, and their separator (`pg_type.typdelim`).
    Array(Arc<ValueEncoding>, char),
    /// A row type: names and encodings of its attributes, without dropped ones.
    Composite(Vec<(String, Arc<ValueEncoding>)>),
}

/// Writes a value that is not null.
pub(crate) fn write_value(out: &mut Vec<u8>, text: &[u8], encoding: &ValueEncoding) {
    match encoding {
        ValueEncoding::Number => write_number(out, text),
        ValueEncoding::Bool => out.extend_from_slice(match text {
            b"t" => b"true".as_slice(),
            _ => b"false",
        }),
        ValueEncoding::Json => out.extend_from_slice(text),
        ValueEncoding::Text | ValueEncoding::Date => write_string(out, text),
        ValueEncoding::Timestamp => write_timestamp(out, text, false),
        ValueEncoding::TimestampTz => write_timestamp(out, text, true),
        ValueEncoding::Bytea => write_string(out, text.strip_prefix(b"\\x").unwrap_or(text)),
        ValueEncoding::Array(element, delimiter) => write_array(out, text, element, *delimiter),
        ValueEncoding::Composite(attributes) => write_composite(out, text, attributes),
    }
}

fn write_number(out: &mut Vec<u8>, text: &[u8]) {
    if text.last().is_some_and(u8::is_ascii_digit) {
        out.extend_from_slice(text);
    } else {
        // JSON has no NaN, Infinity or -Infinity.
        write_string(out, text);
    }
}

/// Writes a JSON string. The input is UTF-8 without NUL, like all text in PostgreSQL.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut clean_from = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            control if *control < 0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&text[clean_from..at]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        clean_from = at + 1;
    }
    out.extend_from_slice(&text[clean_from..]);
    out.push(b'"');
}

/// Writes a timestamp: `2026-01-02 03:04:05.678+00` becomes `2026-01-02T03:04:05.678+00:00`. ` BC`
/// stays at the end, and the infinities have no time.
fn write_timestamp(out: &mut Vec<u8>, text: &[u8], has_offset: bool) {
    let Some(space) = text.iter().position(|byte| *byte == b' ') else {
        write_string(out, text);
        return;
    };
    let (date, time) = (&text[..space], &text[space + 1..]);
    let (time, era) = match time.iter().position(|byte| *byte == b' ') {
        Some(at) => time.split_at(at),
        None => (time, [].as_slice()),
    };
    out.push(b'"');
    out.extend_from_slice(date);
    out.push(b'T');
    out.extend_from_slice(time);
    let offset = time.iter().rposition(|byte| matches!(byte, b'+' | b'-'));
    if has_offset && offset.is_some_and(|at| !time[at..].contains(&b':')) {
        out.extend_from_slice(b":00");
    }
    out.extend_from_slice(era);
    out.push(b'"');
}

/// Writes an array from its text (PostgreSQL manual 8.15.6): `{a,"b c",NULL,{…}}`, preceded by the
/// bounds if a lower bound is not 1. The vector types of the system catalogue are printed without
/// braces.
fn write_array(out: &mut Vec<u8>, text: &[u8], element: &ValueEncoding, delimiter: char) {
    let Some(start) = text.iter().position(|byte| *byte == b'{') else {
        out.push(b'[');
        for (at, item) in text
            .split(|byte| *byte == b' ')
            .filter(|item| !item.is_empty())
            .enumerate()
        {
            if at > 0 {
                out.push(b',');
            }
            write_value(out, item, element);
        }
        out.push(b']');
        return;
    };
    // Every `typdelim` of PostgreSQL is a single ASCII character.
    let delimiter = u8::try_from(delimiter).unwrap_or(b',');
    let mut item = Vec::new();
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => out.push(b'['),
            b'}' => out.push(b']'),
            b'"' => {
                item.clear();
                at = read_quoted(text, at, &mut item);
                write_value(out, &item, element);
            }
            byte if byte == delimiter => out.push(b','),
            _ => {
                let from = at - 1;
                while text
                    .get(at)
                    .is_some_and(|byte| *byte != delimiter && *byte != b'}')
                {
                    at += 1;
                }
                match &text[from..at] {
                    b"NULL" => out.extend_from_slice(b"null"),
                    plain => write_value(out, plain, element),
                }
            }
        }
    }
}

/// Reads a quoted value into `item`, from after the opening quote, and returns the position after
/// the closing one. A backslash is an escape in arrays and row types. A doubled quote is an escape
/// in row types only.
fn read_quoted(text: &[u8], mut at: usize, item: &mut Vec<u8>) -> usize {
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' => {
                item.extend(text.get(at));
                at += 1;
            }
            b'"' if text.get(at) == Some(&b'"') => {
                item.push(b'"');
                at += 1;
            }
            b'"' => break,
            other => item.push(other),
        }
    }
    at
}

/// Writes a row from its text (PostgreSQL manual 8.16.6): `(1,"a b",)`, where an empty value means
/// null.
fn write_composite(out: &mut Vec<u8>, text: &[u8], attributes: &[(String, Arc<ValueEncoding>)]) {
    out.push(b'{');
    let mut at = usize::from(text.first() == Some(&b'('));
    let mut item = Vec::new();
    for (position, (name, encoding)) in attributes.iter().enumerate() {
        if position > 0 {
            out.push(b',');
            // Skips the comma.
            at += 1;
        }
        write_string(out, name.as_bytes());
        out.push(b':');
        item.clear();
        let mut is_null = true;
        while let Some(&byte) = text.get(at) {
            if matches!(byte, b',' | b')') {
                break;
            }
            is_null = false;
            if byte == b'"' {
                at = read_quoted(text, at + 1, &mut item);
            } else {
                item.push(byte);
                at += 1;
            }
        }
        if is_null {
            out.extend_from_slice(b"null");
        } else {
            write_value(out, &item, encoding);
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, encoding: &ValueEncoding) -> String {
        let mut out = Vec::new();
        write_value(&mut out, text.as_bytes(), encoding);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_become_json() {
        use ValueEncoding::{
            Array, Bool, Bytea, Composite, Date, Json, Number, Text, Timestamp, TimestampTz,
        };
        let numbers = Array(Arc::new(Number), ',');
        let texts = Array(Arc::new(Text), ',');
        let boxes = Array(Arc::new(Text), ';');
        let pair = Composite(vec![
            ("a".to_owned(), Arc::new(Number)),
            ("b\"c".to_owned(), Arc::new(Text)),
        ]);
        let pairs = Array(Arc::new(pair.clone()), ',');
        let cases: &[(&str, &ValueEncoding, &str)] = &[
            ("1", &Number, "1"),
            ("-1.50", &Number, "-1.50"),
            ("1e+20", &Number, "1e+20"),
            ("NaN", &Number, r#""NaN""#),
            ("-Infinity", &Number, r#""-Infinity""#),
            ("t", &Bool, "true"),
            ("f", &Bool, "false"),
            (r#"{"a": [1]}"#, &Json, r#"{"a": [1]}"#),
            ("a\"b\\c\n\u{1}ü", &Text, "\"a\\\"b\\\\c\\n\\u0001ü\""),
            ("2026-01-02", &Date, r#""2026-01-02""#),
            (
                "2026-01-02 03:04:05.678",
                &Timestamp,
                r#""2026-01-02T03:04:05.678""#,
            ),
            ("infinity", &Timestamp, r#""infinity""#),
            (
                "0044-03-15 00:00:00 BC",
                &Timestamp,
                r#""0044-03-15T00:00:00 BC""#,
            ),
            (
                "2026-01-02 03:04:05+00",
                &TimestampTz,
                r#""2026-01-02T03:04:05+00:00""#,
            ),
            (
                "0044-03-15 00:00:00+00 BC",
                &TimestampTz,
                r#""0044-03-15T00:00:00+00:00 BC""#,
            ),
            ("-infinity", &TimestampTz, r#""-infinity""#),
            ("\\x00ff", &Bytea, r#""00ff""#),
            ("{}", &numbers, "[]"),
            ("{1,NULL,3}", &numbers, "[1,null,3]"),
            ("{{1,2},{3,4}}", &numbers, "[[1,2],[3,4]]"),
            ("[0:1]={1,2}", &numbers, "[1,2]"),
            ("1 2", &numbers, "[1,2]"),
            (
                r#"{a,"b,c","say \"hi\"","",NULL,"NULL","{"}"#,
                &texts,
                r#"["a","b,c","say \"hi\"","",null,"NULL","{"]"#,
            ),
            (
                "{(1,1),(0,0);(3,3),(2,2)}",
                &boxes,
                r#"["(1,1),(0,0)","(3,3),(2,2)"]"#,
            ),
            ("(1,x)", &pair, r#"{"a":1,"b\"c":"x"}"#),
            ("(,)", &pair, r#"{"a":null,"b\"c":null}"#),
            (r#"(1,"")"#, &pair, r#"{"a":1,"b\"c":""}"#),
            (
                r#"(1,"a ""b"" \\ ,)")"#,
                &pair,
                r#"{"a":1,"b\"c":"a \"b\" \\ ,)"}"#,
            ),
            (
                r#"{"(1,\"a b\")","(2,)"}"#,
                &pairs,
                r#"[{"a":1,"b\"c":"a b"},{"a":2,"b\"c":null}]"#,
            ),
        ];
        for (text, encoding, expected) in cases {
            assert_eq!(json(text, encoding), *expected, "{text}");
        }
    }
}
