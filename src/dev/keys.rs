//! The keys of a development server, one set per data directory: a signing secret with the tokens
//! that it signs, and the password of the request login.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::demonstration::Person;
use super::postgres::{ClusterError, load_or_create_secret};
use crate::auth::{KeyError, mint};

/// Expiry of the two project keys: the year 2100. The time is fixed, so the same secret yields the
/// same keys at every start, and a configured client keeps working.
const KEYS_EXPIRE_AT: u64 = 4_102_444_800;

/// Lifetime of a user's token: a working day and the night after it.
pub const PERSON_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the keys are not available.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file of a secret cannot be read or written.
    #[error(transparent)]
    Secret(#[from] ClusterError),
    /// A token cannot be signed.
    #[error(transparent)]
    Sign(#[from] KeyError),
}

/// The signing secret, the two keys of a Supabase project, and the password for user requests.
pub struct Keys {
    /// The secret that signs every token (HS256).
    pub jwt_secret: String,
    /// For browsers: a token with the role `anon`.
    pub anon_key: String,
    /// For servers: a token with the role `service_role`, which bypasses every policy.
    pub service_role_key: String,
    /// The password of [`super::demonstration::REQUEST_LOGIN`].
    pub request_password: String,
}

impl Keys {
    /// Loads the keys of `directory`. The first call creates its secrets.
    ///
    /// # Errors
    /// Fails if a secret cannot be read or written, or if a token cannot be signed.
    pub fn load(directory: &Path) -> Result<Self, KeysError> {
        let jwt_secret = load_or_create_secret(&directory.join("jwt.secret"))?;
        let key = |role| {
            let claims = json!({ "iss": "rapport-dev", "role": role, "exp": KEYS_EXPIRE_AT });
            mint(&jwt_secret, &claims)
        };
        Ok(Self {
            anon_key: key("anon")?,
            service_role_key: key("service_role")?,
            request_password: load_or_create_secret(&directory.join("authenticator.password"))?,
            jwt_secret,
        })
    }

    /// Returns a token for `person`, as a sign-in would issue it.
    ///
    /// # Errors
    /// Fails if the token cannot be signed.
    pub fn user_token(&self, person: &Person) -> Result<String, KeyError> {
        let now = now_s();
        mint(
            &self.jwt_secret,
            &json!({
                "sub": person.id,
                "email": person.email,
                "role": "authenticated",
                "aud": "authenticated",
                "iss": "rapport-dev",
                "iat": now,
                "exp": now + PERSON_TOKEN_LIFETIME.as_secs(),
            }),
        )
    }
}

/// Returns the seconds since the Unix epoch, the unit of token claims. 0 if the clock is set before
/// the epoch.
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_keys() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keys::load(directory.path()).unwrap();
        let second = Keys::load(directory.path()).unwrap();
        assert_eq!(first.anon_key, second.anon_key);
        assert_eq!(first.service_role_key, second.service_role_key);
        assert_eq!(first.request_password, second.request_password);
        let other = Keys::load(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(first.anon_key, other.anon_key);
        assert_ne!(first.request_password, other.request_password);
    }
}
