//! Why a token or a key is refused.

use thiserror::Error;

/// Why a token is refused.
///
/// The first seven texts are those of the Realtime protocol (protocol 1.3 and 3.4). No text
/// contains more than the client itself sent, so all of them may be sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No token was given.
    #[error("API key is missing")]
    Missing,
    /// The token is not three base64url parts, its header or payload is not a JSON object, or its
    /// header changes the meaning of the payload. Also an unknown opaque API key.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// The signature is invalid for every key that matches the token's algorithm and key id.
    #[error("Failed to validate JWT signature")]
    BadSignature,
    /// No key matches the token's algorithm and key id.
    #[error("{}", signer_text(kid.as_deref()))]
    Signer {
        /// The `kid` of the token's header, if no key has that id.
        kid: Option<String>,
    },
    /// The token has expired.
    #[error("Token has expired {seconds_ago} seconds ago")]
    Expired {
        /// Whole seconds since it expired.
        seconds_ago: i64,
    },
    /// `role` or `exp` is missing.
    #[error("Fields `role` and `exp` are required in JWT")]
    MissingClaims,
    /// A claim has the wrong type.
    #[error("Claim `{claim}` is not valid")]
    InvalidClaim {
        /// The claim's name.
        claim: &'static str,
    },
    /// `nbf` is more than 30 seconds in the future.
    #[error("Token is not valid yet")]
    NotYetValid,
    /// `aud` does not contain the required audience.
    #[error("Token is meant for another audience")]
    WrongAudience,
    /// `iss` is not an accepted issuer.
    #[error("Token is from another issuer")]
    WrongIssuer,
    /// `sub` is not the id of a user.
    #[error("Token names no person")]
    NoSubject,
    /// The token's issuer may not sign tokens with this `role`.
    #[error("The issuer of this token may not use its role")]
    RoleOfIssuer,
    /// No known key matches, and the issuer's current keys could not be fetched yet.
    #[error("The keys of this token's issuer are not available, try again")]
    KeysUnavailable,
    /// The user has an anonymous sign-in.
    #[error("An anonymous user may not do this; sign in with an account")]
    Anonymous,
    /// The user has signed in without a second factor.
    #[error("This requires a sign-in with a second factor")]
    SecondFactorRequired,
    /// `role` is not the role of signed-in users.
    #[error("Token does not have the role `authenticated`")]
    WrongRole,
}

impl TokenError {
    /// Returns the name that precedes the text in a refused join (protocol 3.4), if the error has
    /// one.
    pub fn protocol_name(&self) -> Option<&'static str> {
        match self {
            Self::Malformed | Self::Missing => Some("MalformedJWT"),
            Self::BadSignature => Some("JwtSignatureError"),
            Self::Signer { .. } => Some("JwtSignerError"),
            Self::Expired { .. } | Self::MissingClaims | Self::NotYetValid => {
                Some("InvalidJWTToken")
            }
            Self::KeysUnavailable => Some("JwtSignerError"),
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

/// Why keys are unusable. Never contains key material.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The key set is not JSON of the form `{"keys":[…]}`.
    #[error("The JSON Web Key Set cannot be read (line {line}, column {column})")]
    NotAKeySet {
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1.
        column: usize,
    },
    /// A key of the set is invalid.
    #[error("Key {index} of the JSON Web Key Set is not usable")]
    BadKey {
        /// Index in `keys`, from 0.
        index: usize,
    },
    /// The key set has too many keys.
    #[error("The JSON Web Key Set has more than {limit} keys")]
    TooManyKeys {
        /// Maximum number of keys.
        limit: usize,
    },
    /// Neither a secret nor a key is configured.
    #[error("No key to verify tokens with; set a JWT secret or a JSON Web Key Set")]
    NoKey,
    /// A token could not be signed.
    #[error("The token cannot be signed")]
    Sign,
}
