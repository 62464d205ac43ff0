//! The keys of a development server, one set per data directory: a secret with the tokens signed
//! by it, and the password of the requests' login.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::demonstration::Person;
use super::postgres::{ClusterError, kept_secret};
use crate::auth::{KeyError, mint};

/// When the two project keys expire: the year 2100. A fixed moment, so that the same secret gives
/// the same keys at every start and a configured client keeps working.
const KEYS_EXPIRE_AT: u64 = 4_102_444_800;

/// How long a person's token is good: a working day and the night after it.
pub const PERSON_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The secret's file cannot be read or written.
    #[error(transparent)]
    Secret(#[from] ClusterError),
    /// A token cannot be signed.
    #[error(transparent)]
    Sign(#[from] KeyError),
}

/// The secret and the two keys a Supabase project has, and what its API logs in with.
pub struct Keys {
    /// Signs every token (HS256).
    pub jwt_secret: String,
    /// For browsers: a token with the role `anon`.
    pub anon_key: String,
    /// For servers: a token with the role `service_role`, which passes by every policy.
    pub service_role_key: String,
    /// The password of [`super::demonstration::REQUEST_LOGIN`].
    pub request_password: String,
}

impl Keys {
    /// The keys of `directory`; its secrets are made at the first start.
    ///
    /// # Errors
    /// When a secret cannot be read or kept.
    pub fn of_directory(directory: &Path) -> Result<Self, KeysError> {
        let jwt_secret = kept_secret(&directory.join("jwt.secret"))?;
        let key = |role| {
            let claims = json!({ "iss": "rapport-dev", "role": role, "exp": KEYS_EXPIRE_AT });
            mint(&jwt_secret, &claims)
        };
        Ok(Self {
            anon_key: key("anon")?,
            service_role_key: key("service_role")?,
            request_password: kept_secret(&directory.join("authenticator.password"))?,
            jwt_secret,
        })
    }

    /// A token of `person`, as a sign-in would give.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token_of(&self, person: &Person) -> Result<String, KeyError> {
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

/// Seconds since the epoch, as tokens count; 0 on a machine whose clock stands before it.
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_directory_has_the_same_keys() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keys::of_directory(directory.path()).unwrap();
        let second = Keys::of_directory(directory.path()).unwrap();
        assert_eq!(first.anon_key, second.anon_key);
        assert_eq!(first.service_role_key, second.service_role_key);
        assert_eq!(first.request_password, second.request_password);
        let other = Keys::of_directory(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(first.anon_key, other.anon_key);
        assert_ne!(first.request_password, other.request_password);
    }
}
