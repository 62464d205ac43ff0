//! Token verification settings.

use std::time::Duration;

use super::issuer::{self, IssuerConfig};
use super::key_set::MIN_SECRET_BYTES;
use super::key_source::KeySource;
use super::reader::Reader;
use super::secret::Secret;

/// `[auth]`. At least one of `jwt_secret`, `jwks` and `issuers` is present.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The secret that signs tokens with HMAC (HS256, HS384 or HS512).
    pub jwt_secret: Option<Secret>,
    /// The second secret during a rotation.
    pub jwt_secret_next: Option<Secret>,
    /// The JSON Web Key Set of the first issuer.
    pub jwks: Option<KeySource>,
    /// How often key sets are fetched.
    pub jwks_refresh: Duration,
    /// How long a key set is used if it cannot be fetched again.
    pub jwks_max_age: Duration,
    /// Further issuers, each with its own keys, audience and roles.
    pub issuers: Vec<IssuerConfig>,
    /// The required audience of a token of the first issuer.
    pub audience: Option<String>,
    /// The name (`iss`) of the first issuer. If it is absent, the first issuer has every name that
    /// is not in `issuers`.
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
        let jwks = match reader.key_set("auth.jwks") {
            Some(written) => Some(KeySource::parse("auth.jwks", &written, reader)),
            None if jwt_secret.is_none() => KeySource::of_project(reader),
            None => None,
        };
        let issuer = reader.text("auth.issuer");
        let issuers = issuer::read(issuer.as_deref(), reader);
        if jwt_secret.is_none() && jwks.is_none() && issuers.is_empty() {
            reader.problem(
                "auth.jwt_secret",
                "is not set, and neither is `auth.jwks`, `auth.issuers` or `supabase.url`: set \
                 SUPABASE_URL or SUPABASE_JWT_SECRET, otherwise no token can be verified",
            );
        }
        Self {
            jwt_secret,
            jwt_secret_next: signing_secret("auth.jwt_secret_next", reader),
            jwks,
            jwks_refresh: reader.seconds("auth.jwks_refresh_s", 10..=86_400),
            jwks_max_age: reader.seconds("auth.jwks_max_age_s", 60..=31_536_000),
            issuers,
            audience: reader.text("auth.audience"),
            issuer,
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
