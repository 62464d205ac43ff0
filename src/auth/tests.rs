//! Tests the verification of tokens under both profiles: for sockets and for chat routes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::*;
use crate::auth::mint;
use crate::config::HostPreset;

const SECRET: &str = "a-test-secret-of-at-least-32-characters";
const NEXT_SECRET: &str = "another-secret-of-at-least-32-characters";
const NOW: i64 = 1_800_000_000;
const ANA: &str = "0a000000-0000-4000-8000-000000000001";

// Keys for these tests only (PKCS #8, RSA as PKCS #1).
const EC_KEY: &str = concat!(
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgEphjEaiGViSMJxwE9/GZ54QbYI+QlLzX85GUrwuCHl",
    "+hRANCAAQ2IdhOfMPyluq+804ziPs4uvsZazu3Y6XNiVETwP4J/VU/15qLfJfVrokqCxJgD6R/ImYz/Lj698ad78B9",
    "Vz7m",
);
const ED_KEY: &str = "MC4CAQAwBQYDK2VwBCIEIHhH3ULELe2EA8SmnRE2KmFNApsSiAiNxFbU45enynqL";
const RSA_KEY: &str = concat!(
    "MIIEogIBAAKCAQEAsWoSlTexSCTR5/LxJYzE+ZmOY1Ot0ochygfySm2KiqzHGD+cRGaIqDPu1FQIGGM+fD1runRQTu",
    "N3MhFzfrC2iczGm72o37Pf/6MXfZWZBy4mJIFZVAC4PSVPyC5BMQmUwvfomcys9V2211TgbLgT/uAhdaqhu9Ux+F5p",
    "w3YcOi/EotpjBG+a8DhHawII1cKE3V3wIwse6Xcr9t/dVlj7bWPT7TzIU1TsGBPHTJiVXR7ycp0AFt1GRVFUPN0tCD",
    "8u5odr0iGWsq6mP5wuYd3fUKcqLJNKezI7lXXfO5+3THZGuQcsqZfSFKyAPeEKnXvYs+XZp8gMhQHJsR475jhmMwID",
    "AQABAoH/UcaSyjThgl92YXOZs7UvFd2xxBbOCDxBVt5Sz/ut4D3Dh2nKnbylQOKvMy+Ii7UzGBE3lroGSlaOmoVwtv",
    "S9Lsc0xJSnQnWmyi5ipYBPCQA8lJcKla2/Pm/0VlD7u56u8y9SB5JQJskLfjWhPHucu96TjakY43thjRn3piDK4gZc",
    "jNsokghuUcm/Y537OHTatw0kLIXOpNuw7pLnKAT7b6mDLMbDqgHtkVs6kZv8KlYS2zyiqwDoJ+Yv6uQRoURCAPNlBP",
    "W1P52nOx7GOXGmy7a97T+B1+dPJRg2drozeyEMldu2TVvkpVeuDMh5K8qTOFl+SX7Xu0+CgqNKycoxAoGBAPIR0L3f",
    "O0VjJWd7ABTqJ+aeQnaIe8Xd2FUdEQHEIvBxfT7XP+gBGrFKOeevSygKLPYTTZfEgJAedvUjgdLcnHGWhMWFX6sxg4",
    "IxqDVk9DJkYwo25+KyldubJa42Kq3aEPS5bZeaLrNPspW5O1PA/CIGl5oCHyOV3nabrdlf1CG9AoGBALufwIOtd5Xf",
    "Cg0cxpKlOv+AZYyj94Y+PqeTzzdGcnz6gLpSG2GI9bDgwnNNYeuksGHrp0onwW42ddSmNFSzlfdNY2mebea2tAgu/K",
    "OhUhSJ2Kc/dDoGoo1ulwJAKdTtVyc6YIex9+IDYVhPkzkhWTam9evTPlK/E508K2PFIQ6vAoGBAO7lkiKwumgCLxnv",
    "E+eQJ4y7x0//5lciV6u4Id6iWPD+r+JiwBkRbexmGruCDiQX1sOLzVnofhC9YB0Ry7/0JRkcuS/OLtpe5TCKHT2Ewl",
    "MxK2UbRsI+CRNQDGHf50LoIS/ECFpDua8RCmglBF3l6W8THm7JhT2zXHelsG8E2e/pAoGBALEj48uulDAgk0nL+ELt",
    "0yT1YWsGR6Ur0VW//KzwSxlqHO1MpeNRPr4Phib8UU38gDcDGT+vBzX6Hwd1IAU0RItnOku2s4ZWyuTLD+WhYnBXsQ",
    "A+rYo3R3OGjPYoBBavOlCkEg0rXqC5lkedYZ9Xt/YcbiSHndjb5DXYYBLjRBGrAoGAc5wiYyUb2WdN1yzXwvsX9aHq",
    "9Cqb4+rCumTMmDfTRHqhW+eSWOdaJNM1WUbQ4HtxtigKaa1brHnXHpwdOpEUcRG/WkloYZOqiplnVd2CsELGLnu7Gn",
    "tG+wQ8jgMRSUbwFohUMBmeMNlv+P0x0DFJCszcEcBuAqd0WrttYtdYqgA=",
);
const RSA_MODULUS: &str = concat!(
    "sWoSlTexSCTR5_LxJYzE-ZmOY1Ot0ochygfySm2KiqzHGD-cRGaIqDPu1FQIGGM-fD1runRQTuN3MhFzfrC2iczGm7",
    "2o37Pf_6MXfZWZBy4mJIFZVAC4PSVPyC5BMQmUwvfomcys9V2211TgbLgT_uAhdaqhu9Ux-F5pw3YcOi_EotpjBG-a",
    "8DhHawII1cKE3V3wIwse6Xcr9t_dVlj7bWPT7TzIU1TsGBPHTJiVXR7ycp0AFt1GRVFUPN0tCD8u5odr0iGWsq6mP5",
    "wuYd3fUKcqLJNKezI7lXXfO5-3THZGuQcsqZfSFKyAPeEKnXvYs-XZp8gMhQHJsR475jhmMw",
);

fn key_set() -> Value {
    json!({ "keys": [
        { "kid": "ec", "kty": "EC", "crv": "P-256", "alg": "ES256",
          "x": "NiHYTnzD8pbqvvNOM4j7OLr7GWs7t2OlzYlRE8D-Cf0", "y": "VT_Xmot8l9WuiSoLEmAPpH8iZjP8uPr3xp3vwH1XPuY" },
        { "kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": "80r_UiA6oqTOgD-GjQCxxFj9tvFXHRiwwckdixpJEu0" },
        { "kid": "rsa", "kty": "RSA", "n": RSA_MODULUS, "e": "AQAB" },
        { "kid": "shared", "kty": "oct", "k": URL_SAFE_NO_PAD.encode("the secret of the key set's own octets") },
        { "kid": "ed448", "kty": "OKP", "crv": "Ed448", "x": "AAAA" },
        { "kty": "something new" },
    ]})
}

fn verifier_with(requirements: Requirements) -> Verifier {
    let keys = KeySet::new(
        Some(SECRET),
        Some(NEXT_SECRET),
        Some(&key_set().to_string()),
    )
    .expect("keys are good");
    Verifier::new(keys, requirements)
}

fn verifier() -> Verifier {
    verifier_with(Requirements::default())
}

fn claims() -> Value {
    json!({ "sub": ANA, "role": "authenticated", "aud": "authenticated", "exp": NOW + 60, "iat": NOW - 60 })
}

fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn signed(header: Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("the key fits");
    format!("{message}.{signature}")
}

fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

#[test]
fn a_valid_token_passes_both_profiles_repeatedly() {
    let verifier = verifier();
    let token = mint(SECRET, &claims()).expect("signs");
    for _ in 0..2 {
        let socket = verifier.verify_socket_at(&token, NOW).expect("good");
        let caller = verifier.verify_caller_at(&token, NOW).expect("good");
        assert_eq!(socket, caller);
        assert_eq!(caller.subject.as_deref(), Some(ANA));
        assert_eq!(caller.role, "authenticated");
        assert_eq!(caller.expires_at, NOW + 60);
        assert_eq!(
            serde_json::from_str::<Value>(&caller.json).expect("JSON"),
            claims()
        );
    }
}

#[test]
fn white_space_and_percent_encoding_are_removed() {
    let verifier = verifier();
    let token = mint(SECRET, &claims()).expect("signs");
    let messy = format!(" {}%0a\n", token.replace('.', "%2E\t"));
    assert!(verifier.verify_socket_at(&messy, NOW).is_ok());
}

#[test]
fn a_token_needs_a_signature_by_a_matching_key() {
    let ec = EncodingKey::from_ec_der(&der(EC_KEY));
    let ed = EncodingKey::from_ed_der(&der(ED_KEY));
    let rsa = EncodingKey::from_rsa_der(&der(RSA_KEY));
    let hmac = |secret: &str| EncodingKey::from_secret(secret.as_bytes());
    let shared = hmac("the secret of the key set's own octets");
    let claims = claims();
    let unknown_kid = |kid: &str| {
        Err(TokenError::Signer {
            kid: Some(kid.to_owned()),
        })
    };
    let no_signer = Err(TokenError::Signer { kid: None });

    let cases: Vec<(&str, String, Result<(), TokenError>)> = vec![
        (
            "HS256",
            signed(
                json!({"alg":"HS256"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS256,
            ),
            Ok(()),
        ),
        (
            "HS384",
            signed(
                json!({"alg":"HS384"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS384,
            ),
            Ok(()),
        ),
        (
            "HS512",
            signed(
                json!({"alg":"HS512"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS512,
            ),
            Ok(()),
        ),
        (
            "next secret",
            signed(
                json!({"alg":"HS256"}),
                &claims,
                &hmac(NEXT_SECRET),
                Algorithm::HS256,
            ),
            Ok(()),
        ),
        (
            "unknown kid",
            signed(
                json!({"alg":"HS256","kid":"?"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS256,
            ),
            Ok(()),
        ),
        (
            "oct key",
            signed(
                json!({"alg":"HS256","kid":"shared"}),
                &claims,
                &shared,
                Algorithm::HS256,
            ),
            Ok(()),
        ),
        (
            "the id of an oct key excludes other keys",
            signed(
                json!({"alg":"HS256","kid":"shared"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS256,
            ),
            Err(TokenError::BadSignature),
        ),
        (
            "another secret",
            signed(
                json!({"alg":"HS256"}),
                &claims,
                &hmac("wrong"),
                Algorithm::HS256,
            ),
            Err(TokenError::BadSignature),
        ),
        (
            "ES256",
            signed(
                json!({"alg":"ES256","kid":"ec"}),
                &claims,
                &ec,
                Algorithm::ES256,
            ),
            Ok(()),
        ),
        (
            "RS256",
            signed(
                json!({"alg":"RS256","kid":"rsa"}),
                &claims,
                &rsa,
                Algorithm::RS256,
            ),
            Ok(()),
        ),
        (
            "RS512",
            signed(
                json!({"alg":"RS512","kid":"rsa"}),
                &claims,
                &rsa,
                Algorithm::RS512,
            ),
            Ok(()),
        ),
        (
            "EdDSA",
            signed(
                json!({"alg":"EdDSA","kid":"ed"}),
                &claims,
                &ed,
                Algorithm::EdDSA,
            ),
            Ok(()),
        ),
        (
            "Ed25519",
            signed(
                json!({"alg":"Ed25519","kid":"ed"}),
                &claims,
                &ed,
                Algorithm::EdDSA,
            ),
            Ok(()),
        ),
        (
            "no kid, and one key of the algorithm",
            signed(json!({"alg":"ES256"}), &claims, &ec, Algorithm::ES256),
            Ok(()),
        ),
        (
            "no kid, and no key of the algorithm",
            signed(json!({"alg":"ES384"}), &claims, &ec, Algorithm::ES256),
            no_signer.clone(),
        ),
        (
            "no kid, and HMAC with the secret of a key",
            signed(json!({"alg":"HS256"}), &claims, &shared, Algorithm::HS256),
            Err(TokenError::BadSignature),
        ),
        (
            "another curve",
            signed(
                json!({"alg":"ES384","kid":"ec"}),
                &claims,
                &ec,
                Algorithm::ES256,
            ),
            unknown_kid("ec"),
        ),
        (
            "an oct key's id with a public algorithm",
            signed(
                json!({"alg":"ES256","kid":"shared"}),
                &claims,
                &ec,
                Algorithm::ES256,
            ),
            unknown_kid("shared"),
        ),
        (
            "unknown kid",
            signed(
                json!({"alg":"ES256","kid":"x"}),
                &claims,
                &ec,
                Algorithm::ES256,
            ),
            unknown_kid("x"),
        ),
        (
            "kid of another type",
            signed(
                json!({"alg":"ES256","kid":"rsa"}),
                &claims,
                &ec,
                Algorithm::ES256,
            ),
            unknown_kid("rsa"),
        ),
        (
            "HMAC with a public key's text",
            signed(
                json!({"alg":"HS256","kid":"rsa"}),
                &claims,
                &hmac(RSA_MODULUS),
                Algorithm::HS256,
            ),
            Err(TokenError::BadSignature),
        ),
        (
            "PS256 is not accepted",
            signed(
                json!({"alg":"PS256","kid":"rsa"}),
                &claims,
                &rsa,
                Algorithm::PS256,
            ),
            no_signer.clone(),
        ),
        (
            "none",
            signed(
                json!({"alg":"none"}),
                &claims,
                &hmac(SECRET),
                Algorithm::HS256,
            ),
            no_signer.clone(),
        ),
        (
            "none, unsigned",
            format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
                URL_SAFE_NO_PAD.encode(claims.to_string())
            ),
            no_signer,
        ),
    ];
    let verifier = verifier();
    for (name, token, expected) in cases {
        assert_eq!(
            verifier.verify_socket_at(&token, NOW).map(drop),
            expected,
            "{name}"
        );
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let good = mint(SECRET, &claims()).expect("signs");
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let cases = [
        (String::new(), TokenError::Missing),
        (" \n".to_owned(), TokenError::Missing),
        ("abc".to_owned(), TokenError::Malformed),
        ("a.b.c".to_owned(), TokenError::Malformed),
        (head.to_owned(), TokenError::Malformed),
        (format!("{good}.x"), TokenError::Malformed),
        (format!("{head}.!{signature}"), TokenError::BadSignature),
        (format!("{head}."), TokenError::BadSignature),
        (
            mint(SECRET, &json!([1])).expect("signs"),
            TokenError::Malformed,
        ),
        ("%".to_owned(), TokenError::Malformed),
        ("%ff%é".to_owned(), TokenError::Malformed),
    ];
    for (token, expected) in cases {
        assert_eq!(
            verifier().verify_socket_at(&token, NOW),
            Err(expected),
            "{token}"
        );
    }
}

#[test]
fn headers_that_change_what_a_token_means_are_refused() {
    let refused = [
        // `crit` names extensions that a recipient must support.
        r#"{"alg":"HS256","crit":["exp2"],"exp2":1}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":true}"#,
        r#"{"alg":"HS256","\u0063rit":["exp2"],"exp2":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":"exp2"}"#,
        r#"{"alg":"HS256","crit":[1]}"#,
        r#"{"alg":"HS256","crit":["exp2"],"crit":null}"#,
        // With `b64: false`, the payload is not base64url.
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":null}"#,
        r#"{"alg":"HS256","b64":"true"}"#,
        r#"{"alg":"HS256","b64":false,"b64":true}"#,
        // These are not types of access tokens.
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","typ":1}"#,
        // Two parsers may read different values of a repeated member.
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#,
        // Serde would read this array as the header, in the order of its fields.
        r#"["HS256",null,"JWT",[],true]"#,
    ];
    let accepted = [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"jwt"}"#,
        r#"{"alg":"HS256","typ":"application/at+JWT"}"#,
        r#"{"alg":"HS256","typ":null,"kid":null,"cty":"x"}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"x":1,"alg":"HS256","x":2}"#,
    ];
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let with_header = |header: &str| {
        let head = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        let signature = crypto::sign(head.as_bytes(), &key, Algorithm::HS256).expect("signs");
        format!("{head}.{signature}")
    };
    for header in refused {
        let token = with_header(header);
        let expected = Err(TokenError::Malformed);
        assert_eq!(
            verifier().verify_socket_at(&token, NOW),
            expected,
            "{header}"
        );
        assert_eq!(
            verifier().verify_caller_at(&token, NOW),
            expected,
            "{header}"
        );
    }
    for header in accepted {
        let token = with_header(header);
        assert!(verifier().verify_socket_at(&token, NOW).is_ok(), "{header}");
        assert!(verifier().verify_caller_at(&token, NOW).is_ok(), "{header}");
    }
}

#[test]
fn claims_are_checked_under_each_profile() {
    let expired = |seconds_ago| Err(TokenError::Expired { seconds_ago });
    let invalid = |claim| Err(TokenError::InvalidClaim { claim });
    let both = |result: Result<(), TokenError>| (result.clone(), result);
    let only_caller = |error| (Ok(()), Err(error));
    let cases = [
        (json!({}), both(Ok(()))),
        (json!({ "exp": NOW + 1 }), both(Ok(()))),
        (json!({ "exp": NOW }), (expired(0), Ok(()))),
        (json!({ "exp": NOW - 29 }), (expired(29), Ok(()))),
        (json!({ "exp": NOW - 30 }), both(expired(30))),
        (json!({ "exp": 1_800_000_000.6 }), both(Ok(()))),
        (json!({ "exp": "soon" }), both(invalid("exp"))),
        (json!({ "exp": null }), both(Err(TokenError::MissingClaims))),
        (
            json!({ "role": null }),
            both(Err(TokenError::MissingClaims)),
        ),
        (json!({ "role": "" }), both(invalid("role"))),
        (json!({ "role": ["authenticated"] }), both(invalid("role"))),
        (json!({ "iat": "then" }), both(invalid("iat"))),
        (json!({ "iat": null }), both(Ok(()))),
        (
            json!({ "nbf": NOW + 31 }),
            both(Err(TokenError::NotYetValid)),
        ),
        (json!({ "nbf": 1e300 }), both(Err(TokenError::NotYetValid))),
        (json!({ "nbf": NOW + 30 }), both(Ok(()))),
        (json!({ "nbf": 1_800_000_000.4 }), both(Ok(()))),
        (json!({ "nbf": null }), both(Ok(()))),
        (json!({ "nbf": "later" }), both(invalid("nbf"))),
        (
            json!({ "role": "anon" }),
            only_caller(TokenError::WrongRole),
        ),
        (
            json!({ "role": "service_role" }),
            only_caller(TokenError::WrongRole),
        ),
        (json!({ "sub": null }), only_caller(TokenError::NoSubject)),
        (json!({ "sub": "ana" }), only_caller(TokenError::NoSubject)),
        (
            json!({ "aud": "others" }),
            only_caller(TokenError::WrongAudience),
        ),
        (
            json!({ "aud": null }),
            only_caller(TokenError::WrongAudience),
        ),
        (json!({ "aud": ["x", "authenticated"] }), both(Ok(()))),
        (json!({ "iss": "https://anyone.example" }), both(Ok(()))),
    ];
    let verifier = verifier();
    for (changes, (socket, caller)) in cases {
        let token = mint(SECRET, &claims_with(changes.clone())).expect("signs");
        assert_eq!(
            verifier.verify_socket_at(&token, NOW).map(drop),
            socket,
            "socket {changes}"
        );
        assert_eq!(
            verifier.verify_caller_at(&token, NOW).map(drop),
            caller,
            "caller {changes}"
        );
    }
}

#[test]
fn both_profiles_require_the_configured_audience_and_issuer() {
    let verifier = verifier_with(Requirements {
        audiences: vec!["team".into()],
        issuers: vec!["https://a.example".into()],
        ..Requirements::default()
    });
    let cases = [
        (json!({ "aud": "team", "iss": "https://a.example" }), Ok(())),
        (
            json!({ "iss": "https://a.example" }),
            Err(TokenError::WrongAudience),
        ),
        (json!({ "aud": "team" }), Err(TokenError::WrongIssuer)),
        (
            json!({ "aud": "team", "iss": "https://b.example" }),
            Err(TokenError::WrongIssuer),
        ),
    ];
    for (changes, expected) in cases {
        let token = mint(SECRET, &claims_with(changes.clone())).expect("signs");
        assert_eq!(
            verifier.verify_socket_at(&token, NOW).map(drop),
            expected,
            "{changes}"
        );
        assert_eq!(
            verifier.verify_caller_at(&token, NOW).map(drop),
            expected,
            "{changes}"
        );
    }
}

#[test]
fn a_token_before_its_nbf_is_valid_later() {
    let verifier = verifier();
    let token = mint(SECRET, &claims_with(json!({ "nbf": NOW + 40 }))).expect("signs");
    let early = Err(TokenError::NotYetValid);
    assert_eq!(verifier.verify_socket_at(&token, NOW).map(drop), early);
    assert!(verifier.verify_socket_at(&token, NOW + 10).is_ok());
}

#[test]
fn a_cached_token_still_expires() {
    let verifier = verifier();
    let token = mint(SECRET, &claims()).expect("signs");
    assert!(verifier.verify_socket_at(&token, NOW).is_ok());
    assert_eq!(
        verifier.verify_socket_at(&token, NOW + 65),
        Err(TokenError::Expired { seconds_ago: 5 })
    );
}

/// Returns a token with these claims as text.
fn signed_text(claims: &str) -> String {
    let head = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(head.as_bytes(), &key, Algorithm::HS256).expect("signs");
    format!("{head}.{signature}")
}

#[test]
fn numbers_in_claims_keep_their_digits() {
    let claims_of = |account: &str| {
        let token = signed_text(&format!(
            r#"{{"role":"authenticated", "exp":{}, "of": {{"account":{account}}}}}"#,
            NOW + 60
        ));
        verifier().verify_socket_at(&token, NOW).expect("good")
    };
    // These numbers are equal as floating-point numbers.
    let one = claims_of("100000000000000000001");
    let other = claims_of("100000000000000000002");
    assert_ne!(one, other);
    let expected = format!(
        r#"{{"exp":{},"of":{{"account":100000000000000000001}},"role":"authenticated"}}"#,
        NOW + 60
    );
    assert_eq!(&*one.json, expected);
}

#[test]
fn claims_are_parsed_only_after_the_signature_is_checked() {
    // Parsing these claims fails because of their depth.
    let claims = format!(r#"{{"a":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    let token = signed_text(&claims);
    let forged = token.replacen("eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzM4NCJ9", 1);
    assert_ne!(token, forged);
    for (token, error) in [
        (token, TokenError::Malformed),
        (forged, TokenError::BadSignature),
    ] {
        assert_eq!(verifier().verify_socket_at(&token, NOW), Err(error));
    }
}

#[test]
fn a_repeated_claim_has_one_value() {
    let token = signed_text(&format!(
        r#"{{"role":"authenticated","exp":{},"sub":"x","sub":"{ANA}"}}"#,
        NOW + 60
    ));
    let claims = verifier().verify_socket_at(&token, NOW).expect("good");
    assert_eq!(claims.json.matches("\"sub\"").count(), 1);
    assert_eq!(claims.subject.as_deref(), Some(ANA));
}

#[test]
fn texts_are_those_of_the_protocol() {
    let cases = [
        (TokenError::Missing, "API key is missing"),
        (
            TokenError::Malformed,
            "The token provided is not a valid JWT",
        ),
        (TokenError::BadSignature, "Failed to validate JWT signature"),
        (
            TokenError::Signer { kid: None },
            "Failed to generate JWT signer, check your JWT secret or JWKS configuration",
        ),
        (
            TokenError::Signer {
                kid: Some("k".into()),
            },
            "Failed to generate JWT signer for key ID (kid) \"k\", check your JWT secret or JWKS configuration",
        ),
        (
            TokenError::Expired { seconds_ago: 7 },
            "Token has expired 7 seconds ago",
        ),
        (
            TokenError::MissingClaims,
            "Fields `role` and `exp` are required in JWT",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_published_key_is_used_only_as_its_attributes_allow() {
    let encoding = EncodingKey::from_rsa_der(&der(RSA_KEY));
    let is_accepted = |attributes: Value, algorithm: Algorithm, name: &str| {
        let mut key = json!({ "kid": "rsa", "kty": "RSA", "n": RSA_MODULUS, "e": "AQAB" });
        let more = attributes.as_object().expect("an object").clone();
        key.as_object_mut().expect("an object").extend(more);
        let keys = json!({ "keys": [key] }).to_string();
        let keys = KeySet::new(Some(SECRET), None, Some(&keys)).expect("a key set");
        let verifier = Verifier::new(keys, Requirements::default());
        let header = json!({ "alg": name, "kid": "rsa" });
        let token = signed(header, &claims(), &encoding, algorithm);
        verifier.verify_caller(&token).is_ok()
    };
    for (attributes, rs256, rs512) in [
        (json!({}), true, true),
        (
            json!({ "use": "sig", "key_ops": ["verify"], "alg": "RS256" }),
            true,
            false,
        ),
        (json!({ "key_ops": ["sign", "verify"] }), true, true),
        (json!({ "alg": "RS512" }), false, true),
        (json!({ "alg": "RSA-OAEP" }), false, false),
        (json!({ "use": "enc" }), false, false),
        (json!({ "key_ops": ["encrypt"] }), false, false),
    ] {
        let accepted = [(Algorithm::RS256, "RS256"), (Algorithm::RS512, "RS512")]
            .map(|(algorithm, name)| is_accepted(attributes.clone(), algorithm, name));
        assert_eq!(accepted, [rs256, rs512], "{attributes}");
    }
}

#[test]
fn a_token_without_a_key_id_needs_the_only_key_of_its_algorithm() {
    let ec = EncodingKey::from_ec_der(&der(EC_KEY));
    let token = signed(json!({"alg":"ES256"}), &claims(), &ec, Algorithm::ES256);
    let mut keys = key_set();
    let mut second = keys["keys"][0].clone();
    for (kid, expected) in [
        (json!(null), Ok(())),
        (json!("second"), Err(TokenError::Signer { kid: None })),
    ] {
        if kid.is_null() {
            // A key without an id is the only one if the set has no other.
            keys = json!({ "keys": [key_set()["keys"][0].clone()] });
            keys["keys"][0]["kid"] = kid;
        } else {
            second["kid"] = kid;
            keys["keys"]
                .as_array_mut()
                .expect("a list")
                .push(second.clone());
        }
        let set = KeySet::new(None, None, Some(&keys.to_string())).expect("a key set");
        let verifier = Verifier::new(set, Requirements::default());
        let verified = verifier.verify_socket_at(&token, NOW).map(drop);
        assert_eq!(verified, expected, "{keys}");
    }
}

#[test]
fn a_short_rsa_key_is_refused() {
    let set = |modulus: &[u8]| {
        let key =
            json!({ "kid": "a", "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus) });
        KeySet::new(None, None, Some(&json!({ "keys": [key] }).to_string())).map(drop)
    };
    assert!(set(&[255; 256]).is_ok());
    let padded = [&[0; 8][..], &[255; 255]].concat();
    for modulus in [&[255; 255][..], &padded] {
        assert!(matches!(set(modulus), Err(KeyError::BadKey { index: 0 })));
    }
}

#[test]
fn users_without_an_account_or_a_second_factor_are_refused_if_the_chat_requires_them() {
    let verifier = |allow_anonymous, requires_second_factor| {
        verifier().for_chat(&ChatConfig {
            host_preset: HostPreset::AUTO,
            presence_grace: Duration::ZERO,
            presence_lease: Duration::ZERO,
            allow_anonymous,
            requires_second_factor,
        })
    };
    let (anonymous, factor) = (
        Err(TokenError::Anonymous),
        Err(TokenError::SecondFactorRequired),
    );
    // (claims, by default, if anonymous users are allowed, if a second factor is required)
    for (changes, plain, allowed, strict) in [
        (json!({}), Ok(()), Ok(()), factor.clone()),
        (
            json!({ "is_anonymous": false, "aal": "aal1" }),
            Ok(()),
            Ok(()),
            factor.clone(),
        ),
        (
            json!({ "is_anonymous": null, "aal": "aal2" }),
            Ok(()),
            Ok(()),
            Ok(()),
        ),
        (
            json!({ "is_anonymous": true }),
            anonymous.clone(),
            Ok(()),
            anonymous.clone(),
        ),
        (
            json!({ "is_anonymous": "true" }),
            anonymous.clone(),
            Ok(()),
            anonymous,
        ),
        (json!({ "aal": ["aal2"] }), Ok(()), Ok(()), factor),
    ] {
        let token = mint(SECRET, &claims_with(changes.clone())).expect("signs");
        for (verifier, expected) in [
            (verifier(false, false), plain),
            (verifier(true, false), allowed),
            (verifier(false, true), strict),
        ] {
            let verified = verifier.verify_caller_at(&token, NOW).map(drop);
            assert_eq!(verified, expected, "{changes}");
            assert!(verifier.verify_socket_at(&token, NOW).is_ok(), "{changes}");
        }
    }
}

#[test]
fn tokens_of_a_clock_that_is_ahead_are_accepted_and_counted() {
    let metrics = AuthMetrics::default();
    let verifier = verifier().counting(metrics.clone());
    for (issued_at, count) in [(NOW, 0), (NOW + 300, 0), (NOW + 301, 1), (NOW + 9_000, 2)] {
        let token = mint(SECRET, &claims_with(json!({ "iat": issued_at }))).expect("signs");
        for _ in 0..2 {
            assert!(verifier.verify_socket_at(&token, NOW).is_ok());
        }
        assert_eq!(metrics.clock_ahead.get(), count, "{issued_at}");
    }
}

#[test]
fn errors_of_invalid_keys_do_not_contain_them() {
    let secret = "hush";
    assert!(KeySet::new(None, Some(""), None).is_err());
    assert!(KeySet::new(Some("x"), None, Some("[]")).is_err());
    let broken =
        json!({ "keys": [{ "kid": "a", "kty": "oct", "k": format!("{secret}!") }] }).to_string();
    let error = KeySet::new(None, None, Some(&broken))
        .err()
        .expect("not base64");
    assert!(!error.to_string().contains(secret));
}

#[test]
fn an_opaque_key_has_its_configured_role() {
    let secret = |text: &str| Some(crate::config::Secret::new(text));
    let config = AuthConfig {
        jwt_secret: secret(SECRET),
        jwt_secret_next: None,
        jwks: None,
        jwks_refresh: Duration::from_secs(600),
        jwks_max_age: Duration::from_secs(86_400),
        issuers: Vec::new(),
        audience: None,
        issuer: None,
        cookie_names: Vec::new(),
        anon_key: secret("sb_publishable_1"),
        service_role_key: secret("sb_secret_1"),
        publishable_keys: secret("sb_publishable_3").into_iter().collect(),
        secret_keys: secret("sb_secret_3").into_iter().collect(),
    };
    let verifier = Verifier::from_config(&config).expect("good keys");
    for (key, role) in [
        ("sb_publishable_1", Some("anon")),
        ("sb_secret_1", Some("service_role")),
        ("sb_publishable_3", Some("anon")),
        ("sb_secret_3", Some("service_role")),
        ("sb_secret_2", None),
        ("sb_", None),
    ] {
        let claims = verifier.verify_api_key(key).ok();
        assert_eq!(claims.as_ref().map(|claims| &*claims.role), role, "{key}");
        assert!(claims.is_none_or(|claims| claims.subject.is_none()));
        // A key is not a token, so it neither authenticates a caller nor replaces the token of a
        // join.
        assert!(verifier.verify_socket(key).is_err());
        assert!(verifier.verify_caller(key).is_err());
    }
}
