//! The claims of a verified token.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::keys::KeyId;

/// Verified claims.
///
/// Two values are equal if their JSON texts are equal. All claims count, because a policy may read
/// any of them. So the claims of two users are never equal, and neither are those of one user
/// before and after a change of role.
#[derive(Clone, Debug)]
pub struct Claims {
    /// All claims as JSON. The keys are sorted and unique, and the values have the same digits as
    /// in the token. Policies read this text as `request.jwt.claims`. If a token repeats a key,
    /// Rapport and the policies therefore see the same value.
    pub json: Arc<str>,
    /// The `role` claim: the database role for which policies are evaluated.
    pub role: String,
    /// The `sub` claim: the user id, if there is one.
    pub subject: Option<String>,
    /// The `exp` claim in Unix seconds, rounded if it has a fraction. `i64::MAX` for claims that do
    /// not expire.
    pub expires_at: i64,
    /// The published key that verified the token. `None` if a configured key or secret did, or if
    /// the claims do not come from a token.
    pub signer: Option<PublishedKey>,
}

/// A key of a set that is fetched, and so may disappear.
#[derive(Clone, Debug)]
pub struct PublishedKey {
    /// The position of the key's issuer in the verifier.
    pub(super) source: usize,
    pub(super) id: Arc<KeyId>,
}

impl Claims {
    /// Returns the claims of an opaque API key: a role without a user. They do not expire, because
    /// a key is revoked in the configuration.
    pub(super) fn of_role(role: &str) -> Self {
        Self {
            json: serde_json::json!({ "role": role }).to_string().into(),
            role: role.to_owned(),
            subject: None,
            expires_at: i64::MAX,
            signer: None,
        }
    }

    /// Returns the claims of the server itself, which it uses to write or count for many users at
    /// once.
    pub fn of_service() -> Self {
        Self::of_role("service_role")
    }

    /// Returns whether these are the claims of the server itself. Those of a service key look the
    /// same, but the chat routes refuse such keys, so no statement of a chat request runs with
    /// them.
    pub fn is_of_service(&self) -> bool {
        self.role == "service_role" && self.subject.is_none()
    }

    /// Returns claims with the role of signed-in users but without a user, for queries whose result
    /// every user may know. Row-level security hides all rows from these claims.
    pub fn of_nobody() -> Self {
        Self {
            json: "{}".into(),
            role: "authenticated".to_owned(),
            subject: None,
            expires_at: i64::MAX,
            signer: None,
        }
    }
}

impl Claims {
    /// Returns the user id, if this is a user's token: its role is that of users, and `sub` is a
    /// UUID.
    pub fn user_id(&self) -> Option<Uuid> {
        let subject = self.subject.as_deref()?;
        (self.role == "authenticated")
            .then(|| Uuid::try_parse(subject).ok())
            .flatten()
    }
}

impl PartialEq for Claims {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Claims {}

impl Hash for Claims {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.json.hash(state);
    }
}
