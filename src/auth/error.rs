//! Why a token or a key is refused.

use thiserror::Error;

/// Why a token is refused.
///
/// The first seven texts are those of the Realtime protocol (its specification 1.3 and 3.4)
/// and hold nothing but what the client sent, so they may be shown to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No token was given.
    #[error("API key is missing")]
    Missing,
    /// Not three base64url parts with a JSON header and a JSON object in them.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// The signature does not fit the key.
    #[error("Failed to validate JWT signature")]
    BadSignature,
    /// There is no key for the token's algorithm and key id.
    #[error("{}", signer_text(kid.as_deref()))]
    Signer {
        /// The `kid` of the token's header, when no key of that id fits.
        kid: Option<String>,
    },
    /// The token was good and has expired.
    #[error("Token has expired {seconds_ago} seconds ago")]
    Expired {
        /// Whole seconds since it expired.
        seconds_ago: i64,
    },
    /// `role` or `exp` is missing.
    #[error("Fields `role` and `exp` are required in JWT")]
    MissingClaims,
    /// A claim is there and has the wrong type.
    #[error("Claim `{claim}` is not valid")]
    InvalidClaim {
        /// The claim's name.
        claim: &'static str,
    },
    /// `nbf` lies in the future.
    #[error("Token is not valid yet")]
    NotYetValid,
    /// `aud` does not name the audience that is required.
    #[error("Token is meant for another audience")]
    WrongAudience,
    /// `iss` is not the issuer that is required.
    #[error("Token is from another issuer")]
    WrongIssuer,
    /// `sub` is not the id of a person.
    #[error("Token names no person")]
    NoSubject,
    /// `role` is not the role of signed-in people.
    #[error("Token does not have the role `authenticated`")]
    WrongRole,
}

impl TokenError {
    /// The name that stands before the text in a refused join (protocol specification 3.4),
    /// where it has one.
    pub fn protocol_name(&self) -> Option<&'static str> {
        match self {
            Self::Malformed | Self::Missing => Some("MalformedJWT"),
            Self::BadSignature => Some("JwtSignatureError"),
            Self::Signer { .. } => Some("JwtSignerError"),
            Self::Expired { .. } | Self::MissingClaims | Self::NotYetValid => {
                Some("InvalidJWTToken")
            }
            _ => None,
        }
    }
}

fn signer_text(kid: Option<&str>) -> String {
    const ADVICE: &str = "check your JWT secret or JWKS configuration";
    match kid {
        None => format!("Failed to generate JWT signer, {ADVICE}"),
        Some(kid) => format!("Failed to generate JWT signer for key ID (kid) \"{kid}\", {ADVICE}"),
    }
}

/// Why the configured keys cannot be used. Never holds key material.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The key set is not JSON of the form `{"keys":[…]}`.
    #[error("The JSON Web Key Set cannot be read (line {line}, column {column})")]
    NotAKeySet {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, from 1.
        column: usize,
    },
    /// A key of the set is broken.
    #[error("Key {index} of the JSON Web Key Set is not usable")]
    BadKey {
        /// Position in `keys`, from 0.
        index: usize,
    },
    /// There is neither a secret nor a key.
    #[error("There is no key to verify tokens with: set a JWT secret or a JSON Web Key Set")]
    NoKey,
    /// A token could not be signed.
    #[error("The token cannot be signed")]
    Sign,
}
