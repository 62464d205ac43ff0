//! Opaque API keys: which role each of the project's own stands for.
//!
//! A hosted gateway exchanges such a key for a short-lived token before any server sees it. Without
//! one the keys that are configured are known here, and no others.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::claims::Claims;
use crate::config::AuthConfig;

/// What every API key of the newer, opaque kind starts with (`sb_publishable_…`,
/// `sb_secret_…`): it is not a token and says nothing about a person.
const OPAQUE_KEY_PREFIX: &str = "sb_";

/// Whether this is an opaque API key and not a JSON Web Token. Clients send such a key as
/// `Authorization: Bearer sb_…` while nobody is signed in.
pub fn is_opaque_key(token: &str) -> bool {
    token.starts_with(OPAQUE_KEY_PREFIX)
}

/// The role of the public key, which everybody has.
pub const PUBLIC_ROLE: &str = "anon";

/// The role of the server-side key, which bypasses row-level security.
const SERVICE_ROLE: &str = "service_role";

/// The opaque keys of the project.
#[derive(Default)]
pub(super) struct ApiKeys {
    /// Hashes are compared, so that the time of a comparison says nothing about a key.
    known: Vec<([u8; 32], Arc<Claims>)>,
}

impl ApiKeys {
    /// Those of the two configured keys that are opaque; one that is a token needs no list.
    pub(super) fn from_config(config: &AuthConfig) -> Self {
        let keys = [
            (&config.anon_key, PUBLIC_ROLE),
            (&config.service_role_key, SERVICE_ROLE),
        ];
        let known = keys
            .into_iter()
            .filter_map(|(key, role)| Some((key.as_ref()?.expose(), role)))
            .filter(|(key, _)| is_opaque_key(key))
            .map(|(key, role)| (Sha256::digest(key).into(), Arc::new(Claims::of_role(role))))
            .collect();
        Self { known }
    }

    /// What `key` allows, if it is one of them.
    pub(super) fn claims(&self, key: &str) -> Option<Arc<Claims>> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let found = self.known.iter().find(|(known, _)| *known == hash)?;
        Some(Arc::clone(&found.1))
    }
}
