//! Token verification settings.

use super::key_set::{MIN_SECRET_BYTES, is_inline_key_set, short_secrets};
use super::reader::Reader;
use super::secret::Secret;

/// `[auth]`. At least one of the secret and the key set is present.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The secret that signs tokens with HMAC (HS256, HS384 or HS512).
    pub jwt_secret: Option<Secret>,
    /// The second secret during a rotation.
    pub jwt_secret_next: Option<Secret>,
    /// A JSON Web Key Set as text. A configured path has already been read. It is a secret because
    /// it may contain symmetric keys.
    pub jwks: Option<Secret>,
    /// The required audience of a token.
    pub audience: Option<String>,
    /// The required issuer of a token.
    pub issuer: Option<String>,
    /// Names of session cookies. If empty, any cookie named like a Supabase session is used.
    pub cookie_names: Vec<String>,
    /// The project's public key.
    pub anon_key: Option<Secret>,
    /// The project's server-side key.
    pub service_role_key: Option<Secret>,
    /// Further public keys, usually opaque ones.
    pub publishable_keys: Vec<Secret>,
    /// Further server-side keys, usually opaque ones.
    pub secret_keys: Vec<Secret>,
}

impl AuthConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let jwt_secret = signing_secret("auth.jwt_secret", reader);
        let jwks = reader
            .key_set("auth.jwks")
            .map(|written| Secret::new(key_set(&written, reader)));
        if jwt_secret.is_none() && jwks.is_none() {
            reader.problem(
                "auth.jwt_secret",
                "is not set, and neither is `auth.jwks`: set SUPABASE_JWT_SECRET, otherwise no token can be verified",
            );
        }
        Self {
            jwt_secret,
            jwt_secret_next: signing_secret("auth.jwt_secret_next", reader),
            jwks,
            audience: reader.text("auth.audience"),
            issuer: reader.text("auth.issuer"),
            cookie_names: reader.list("auth.cookie_names"),
            anon_key: reader.secret("auth.anon_key"),
            service_role_key: reader.secret("auth.service_role_key"),
            publishable_keys: reader.secrets("auth.publishable_keys"),
            secret_keys: reader.secrets("auth.secret_keys"),
        }
    }
}

/// Reads a secret that signs tokens and checks its length.
fn signing_secret(key: &'static str, reader: &mut Reader) -> Option<Secret> {
    let secret = reader.secret(key)?;
    let bytes = secret.expose().len();
    if bytes < MIN_SECRET_BYTES {
        reader.problem(
            key,
            &format!(
                "has {bytes} bytes but must have at least {MIN_SECRET_BYTES}, because a shorter secret \
                 can be guessed from one token. `openssl rand -hex 32` generates one"
            ),
        );
    }
    Some(secret)
}

/// Returns the text of the key set. A value that starts with a brace or bracket is the key set
/// itself; any other value is a path.
fn key_set(written: &str, reader: &mut Reader) -> String {
    let text = if is_inline_key_set(written) {
        written.to_owned()
    } else {
        std::fs::read_to_string(written).unwrap_or_else(|error| {
            reader.problem(
                "auth.jwks",
                &format!("names a file that cannot be read: {error}"),
            );
            String::new()
        })
    };
    for position in short_secrets(&text) {
        reader.problem(
            "auth.jwks",
            &format!(
                "contains, at position {position} (from 0), a symmetric key of fewer than \
                 {MIN_SECRET_BYTES} bytes, which can be guessed from one token"
            ),
        );
    }
    text
}
