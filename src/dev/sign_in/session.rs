//! Sign-in sessions and the rotation of their refresh tokens.
//!
//! Each refresh replaces the token. Within [`REUSE_INTERVAL`], a replaced token yields the token
//! that replaced it, because two tabs may refresh at the same time. If a replaced token is
//! presented later, it was stolen or copied, so the session ends.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

/// Lifetimes of an access token that a request may ask for, in seconds. The longest is the lifetime
/// of the tokens that `rapport dev` prints.
pub(super) const LIFETIMES_S: RangeInclusive<u64> = 1..=24 * 60 * 60;

/// How long a replaced token still yields its successor. Supabase Auth has the same default.
const REUSE_INTERVAL: Duration = Duration::from_secs(10);

/// A session that was opened or refreshed.
pub(super) struct Session {
    /// The token for the next refresh.
    pub(super) token: RefreshToken,
    /// Lifetime of the access token in seconds.
    pub(super) lifetime_s: u64,
    /// The user as clients store it.
    pub(super) user: Value,
}

/// A refresh token: `<session>.<secret>`, both as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefreshToken {
    pub(super) session: Uuid,
    pub(super) secret: String,
}

impl RefreshToken {
    /// Creates a new token for a session.
    pub(super) fn new(session: Uuid) -> Self {
        Self {
            session,
            secret: Uuid::new_v4().simple().to_string(),
        }
    }

    /// Parses the text that a client presents.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (session, secret) = text.split_once('.')?;
        Some(Self {
            session: Uuid::try_parse(session).ok()?,
            secret: secret.to_owned(),
        })
    }
}

impl fmt::Display for RefreshToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.session.simple(), self.secret)
    }
}

/// The secrets of a stored session.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) current: String,
    pub(super) previous: Option<String>,
    /// Time since the current secret replaced the previous one.
    pub(super) age: Duration,
}

/// The effect of a presented secret on the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The secret is replaced.
    Rotate,
    /// The current secret is returned again.
    Repeat,
    /// The session ends.
    End,
}

impl Secrets {
    /// Judges a secret that is presented for the session.
    pub(super) fn judge(&self, presented: &str) -> Verdict {
        if presented == self.current {
            Verdict::Rotate
        } else if self.previous.as_deref() == Some(presented) && self.age < REUSE_INTERVAL {
            Verdict::Repeat
        } else {
            Verdict::End
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = RefreshToken::new(Uuid::from_u128(7));
        assert_eq!(RefreshToken::parse(&token.to_string()), Some(token));
        for wrong in ["", "x", "x.y", "00000000-0000-4000-8000-00000000000a"] {
            assert_eq!(RefreshToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_replaced_secret_works_only_for_a_moment() {
        let after = |age| Secrets {
            current: "c".to_owned(),
            previous: Some("b".to_owned()),
            age,
        };
        let (soon, late) = (after(REUSE_INTERVAL / 2), after(REUSE_INTERVAL));
        for (secrets, presented, expected) in [
            (&soon, "c", Verdict::Rotate),
            (&late, "c", Verdict::Rotate),
            (&soon, "b", Verdict::Repeat),
            (&late, "b", Verdict::End),
            (&soon, "a", Verdict::End),
            (&soon, "", Verdict::End),
        ] {
            assert_eq!(
                secrets.judge(presented),
                expected,
                "{secrets:?} {presented}"
            );
        }
    }
}
