//! Writes JSON strings and numbers.

/// Encodes a text as a JSON string.
pub fn json_string(text: &str) -> Box<str> {
    let mut out = Vec::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    String::from_utf8_lossy(&out).into()
}

/// Appends `text` as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends `ids`, separated by commas and without brackets.
pub(super) fn push_ids(out: &mut Vec<u8>, ids: &[u32]) {
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_number(out, u64::from(*id));
    }
}

/// Appends a number in decimal.
fn push_number(out: &mut Vec<u8>, number: u64) {
    // Writing a number to a vector cannot fail.
    let _ = serde_json::to_writer(out, &number);
}
