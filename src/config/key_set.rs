//! JSON Web Key Sets (RFC 7517) as a setting: recognizes one that is written inline, masks its
//! secrets and checks their length.

use serde_json::{Map, Value};

use super::secret::MASK;

/// The minimum length of a secret that signs tokens, in bytes: the size of the hash of HS256 (RFC
/// 7518, section 3.2). A shorter secret can be guessed from a single token.
pub(super) const MIN_SECRET_BYTES: usize = 32;

/// Public members of a key (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2). All
/// other members are masked, so that a private member with an unknown name is masked too.
const PUBLIC: [&str; 14] = [
    "kty", "use", "key_ops", "alg", "kid", "x5u", "x5c", "x5t", "x5t#S256", "n", "e", "crv", "x",
    "y",
];

/// Returns whether the value is a key set itself and not the path of a file.
pub(super) fn is_inline_key_set(written: &str) -> bool {
    written.trim_start().starts_with(['{', '['])
}

/// Returns the key set with its secrets masked. Text that is not a key set is masked as a whole.
pub(super) fn mask_key_set(text: &str) -> String {
    let Some(keys) = keys(text) else {
        return MASK.to_owned();
    };
    let masked: Vec<Value> = keys
        .into_iter()
        .map(|key| match key {
            Value::Object(members) => Value::Object(mask_key(members)),
            _ => MASK.into(),
        })
        .collect();
    serde_json::json!({ "keys": masked }).to_string()
}

fn mask_key(mut members: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in &mut members {
        if !PUBLIC.contains(&name.as_str()) {
            *value = MASK.into();
        }
    }
    members
}

/// Returns the positions, from 0, of symmetric keys that are shorter than [`MIN_SECRET_BYTES`].
pub(super) fn short_secrets(text: &str) -> Vec<usize> {
    let is_short = |key: &Value| {
        let secret = key.get("k").and_then(Value::as_str).unwrap_or_default();
        // base64url encodes three bytes in four characters.
        let bytes = secret.trim_end_matches('=').len() * 3 / 4;
        key.get("kty").is_some_and(|kty| kty == "oct") && bytes < MIN_SECRET_BYTES
    };
    keys(text)
        .unwrap_or_default()
        .iter()
        .enumerate()
        .filter(|(_, key)| is_short(key))
        .map(|(position, _)| position)
        .collect()
}

fn keys(text: &str) -> Option<Vec<Value>> {
    match serde_json::from_str::<Map<String, Value>>(text)
        .ok()?
        .remove("keys")?
    {
        Value::Array(keys) => Some(keys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn private_members_of_keys_are_masked() {
        let set = json!({
            "keys": [
                { "kty": "oct", "kid": "a", "alg": "HS256", "k": "hush" },
                { "kty": "RSA", "kid": "b", "n": "n", "e": "AQAB", "d": "hush", "p": "hush", "q": "hush",
                  "dp": "hush", "dq": "hush", "qi": "hush", "oth": [{ "r": "hush" }] },
                { "kty": "EC", "kid": "c", "crv": "P-256", "x": "x", "y": "y", "d": "hush" },
                { "kty": "OKP", "kid": "d", "crv": "Ed25519", "x": "x", "priv": "hush" },
                "hush",
            ],
            "note": "hush",
        });
        let expected = json!({
            "keys": [
                { "kty": "oct", "kid": "a", "alg": "HS256", "k": "***" },
                { "kty": "RSA", "kid": "b", "n": "n", "e": "AQAB", "d": "***", "p": "***", "q": "***",
                  "dp": "***", "dq": "***", "qi": "***", "oth": "***" },
                { "kty": "EC", "kid": "c", "crv": "P-256", "x": "x", "y": "y", "d": "***" },
                { "kty": "OKP", "kid": "d", "crv": "Ed25519", "x": "x", "priv": "***" },
                "***",
            ],
        });
        let masked: Value = serde_json::from_str(&mask_key_set(&set.to_string())).unwrap();
        assert_eq!(masked, expected);
        for text in ["{", "{}", r#"{"keys":"hush"}"#, r#"["hush"]"#] {
            assert_eq!(mask_key_set(text), "***", "{text}");
        }
    }

    #[test]
    fn symmetric_keys_have_a_minimum_length() {
        // 43 characters of base64url are 32 bytes, 42 are 31.
        let key = |kty: &str, length: usize| json!({ "kty": kty, "k": "A".repeat(length) });
        let set = json!({ "keys": [
            key("oct", 43), key("oct", 42), key("EC", 1), json!({ "kty": "oct" }), json!(1),
        ] });
        assert_eq!(short_secrets(&set.to_string()), [1, 3]);
        assert_eq!(short_secrets("nonsense"), [0_usize; 0]);
    }
}
