//! Which tokens are accepted.

use super::reader::Reader;
use super::secret::Secret;

/// `[auth]`. At least one of the secret and the key set is there.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The secret of HS256 tokens.
    pub jwt_secret: Option<Secret>,
    /// The other secret while one replaces the other.
    pub jwt_secret_next: Option<Secret>,
    /// A JSON Web Key Set, as text: a path has been read.
    pub jwks: Option<String>,
    /// The audience a token must name.
    pub audience: Option<String>,
    /// The issuer a token must have.
    pub issuer: Option<String>,
    /// Names of the cookies that sessions are read from; none: any that looks like Supabase's.
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
                "is not set, and neither is `auth.jwks`: set SUPABASE_JWT_SECRET, or no token can be verified",
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

/// The key set itself: a JSON object is taken as it is, anything else is a path.
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
