//! Token verification settings.

use super::reader::Reader;
use super::secret::Secret;

/// `[auth]`. At least one of the secret and the key set is present.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The secret that signs HS256 tokens.
    pub jwt_secret: Option<Secret>,
    /// The second secret during a rotation.
    pub jwt_secret_next: Option<Secret>,
    /// A JSON Web Key Set as text. A configured path has already been read.
    pub jwks: Option<String>,
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
}

impl AuthConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let jwt_secret = reader.secret("auth.jwt_secret");
        let jwks = reader
            .text("auth.jwks")
            .map(|written| key_set(&written, reader));
        if jwt_secret.is_none() && jwks.is_none() {
            reader.problem(
                "auth.jwt_secret",
                "is not set, and neither is `auth.jwks`: set SUPABASE_JWT_SECRET, otherwise no token can be verified",
            );
        }
        Self {
            jwt_secret,
            jwt_secret_next: reader.secret("auth.jwt_secret_next"),
            jwks,
            audience: reader.text("auth.audience"),
            issuer: reader.text("auth.issuer"),
            cookie_names: reader.list("auth.cookie_names"),
            anon_key: reader.secret("auth.anon_key"),
            service_role_key: reader.secret("auth.service_role_key"),
        }
    }
}

/// The text of the key set. A value that starts with `{` is the key set itself, anything else a
/// path.
fn key_set(written: &str, reader: &mut Reader) -> String {
    if written.starts_with('{') {
        return written.to_owned();
    }
    std::fs::read_to_string(written).unwrap_or_else(|error| {
        reader.problem(
            "auth.jwks",
            &format!("names a file that cannot be read: {error}"),
        );
        String::new()
    })
}
