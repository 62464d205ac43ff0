//! The claims of a token whose signature was good.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

/// Verified claims.
///
/// Two values are equal when their JSON is: policies may look at any claim, so two people,
/// or one person before and after a change of role, are never taken for one another.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The whole claims object as JSON with sorted keys, each key once, and values as the token has
    /// them, digit for digit: this is what policies read as `request.jwt.claims`, so both sides read
    /// the same value of a key that a token repeats.
    pub json: Arc<str>,
    /// The `role` claim: the database role that policies are evaluated for.
    pub role: String,
    /// The `sub` claim: the person, where there is one.
    pub subject: Option<String>,
    /// The `exp` claim in unix seconds, rounded where the token has a fraction.
    pub expires_at: i64,
}

impl Claims {
    /// What an opaque API key allows: a role, and nobody's identity. It does not expire; keys are
    /// withdrawn by configuration.
    pub(super) fn of_role(role: &str) -> Self {
        Self {
            json: serde_json::json!({ "role": role }).to_string().into(),
            role: role.to_owned(),
            subject: None,
            expires_at: i64::MAX,
        }
    }

    /// The server itself, where it writes down or counts for many people at once.
    pub fn of_service() -> Self {
        Self::of_role("service_role")
    }

    /// Nobody in particular: what anybody may know is asked for with the role of people and
    /// without a person, to whom row-level security shows nothing.
    pub fn of_nobody() -> Self {
        Self {
            json: "{}".into(),
            role: "authenticated".to_owned(),
            subject: None,
            expires_at: i64::MAX,
        }
    }
}

impl Claims {
    /// The person, where the token is one of a person: its role is that of people, and `sub` is an id.
    pub fn person(&self) -> Option<Uuid> {
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
