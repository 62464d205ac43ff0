//! The names of the slot, the publication of `realtime.messages` and the database connections.

use std::fmt;

use sha2::{Digest, Sha256};

use super::error::ReplicationError;

/// The publication of `realtime.messages`. Supabase's server creates and expects it under this
/// name. Rapport's schema creates it together with the table. This module never alters it.
pub const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// The `application_name` of the replication connection. A walsender with this name may be
/// terminated if its client is gone.
pub(super) const APPLICATION_NAME: &str = "rapport replication";

/// The `application_name` of the ordinary connection that accompanies the replication connection.
pub(super) const CONTROL_APPLICATION_NAME: &str = "rapport replication control";

/// PostgreSQL's limit for names (`NAMEDATALEN` − 1).
const NAME_LIMIT_BYTES: usize = 63;

/// A valid name of a slot: lower-case letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotName(String);

impl SlotName {
    /// Returns the slot name for `database`, derived from the configured name. All databases of a
    /// cluster share the slot names, so the name contains the database. Capital letters become
    /// lower case, other invalid characters become underscores, and a long name is cut. A name that
    /// was changed in this way ends with a checksum, which keeps different names different.
    ///
    /// # Errors
    /// [`ReplicationError::SlotName`] if `configured` contains no ASCII letter or digit.
    pub(super) fn new(configured: &str, database: &str) -> Result<Self, ReplicationError> {
        if !configured.chars().any(|c| c.is_ascii_alphanumeric()) {
            return Err(ReplicationError::SlotName(configured.to_owned()));
        }
        let wanted = format!("{configured}_{database}");
        let mut name: String = wanted
            .chars()
            .map(|c| match c {
                'a'..='z' | '0'..='9' | '_' => c,
                'A'..='Z' => c.to_ascii_lowercase(),
                _ => '_',
            })
            .collect();
        if name != wanted || name.len() > NAME_LIMIT_BYTES {
            let digest = Sha256::digest(wanted.as_bytes());
            let suffix = format!(
                "_{:02x}{:02x}{:02x}{:02x}",
                digest[0], digest[1], digest[2], digest[3]
            );
            name.truncate(NAME_LIMIT_BYTES - suffix.len());
            name.push_str(&suffix);
        }
        Ok(Self(name))
    }

    /// Returns the name as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_in_postgres_and_differ_by_database() {
        let long = "x".repeat(80);
        let cases = [
            ("rapport", "postgres", Some("rapport_postgres")),
            ("rapport", "my_app2", Some("rapport_my_app2")),
            ("Rapport", "My App", None),
            ("rapport", "my-app", None),
            ("rapport", "mÿ", None),
            ("rapport", long.as_str(), None),
        ];
        for (configured, database, exact) in cases {
            let name = SlotName::new(configured, database).expect("a usable name");
            if let Some(exact) = exact {
                assert_eq!(name.as_str(), exact);
            }
            assert!(name.as_str().len() <= NAME_LIMIT_BYTES, "{name}");
            assert!(
                name.as_str()
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{name}"
            );
        }
        let names = ["my-app", "my_app", "my.app", "MY-APP"]
            .map(|database| SlotName::new("rapport", database).expect("a usable name"));
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name}");
        }
        assert!(SlotName::new("--", "postgres").is_err());
    }
}
