//! Opaque API keys and their roles.
//!
//! The gateway of a hosted project exchanges an opaque key for a short-lived token, so the servers
//! behind it receive no opaque keys. Rapport accepts an opaque key only if it is configured.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::claims::Claims;
use crate::config::AuthConfig;

/// The prefix of opaque API keys (`sb_publishable_…`, `sb_secret_…`). Such a key is not a token and
/// does not identify a user.
const OPAQUE_KEY_PREFIX: &str = "sb_";

/// Returns whether this is an opaque API key and not a JSON Web Token. Clients send such a key as
/// `Authorization: Bearer sb_…` while no user is signed in.
pub fn is_opaque_key(token: &str) -> bool {
    token.starts_with(OPAQUE_KEY_PREFIX)
}

/// The role of the public key, which every client has.
pub const PUBLIC_ROLE: &str = "anon";

/// The role of the server-side key, which bypasses row-level security.
pub const SERVICE_ROLE: &str = "service_role";

/// The opaque keys of the project.
#[derive(Default)]
pub(super) struct ApiKeys {
    /// SHA-256 of each key, and its claims. Hashes are compared, so that the time of a comparison
    /// reveals nothing about a key.
    known: Vec<([u8; 32], Arc<Claims>)>,
}

impl ApiKeys {
    /// Returns the configured keys that are opaque. A key that is a token is verified as such.
    pub(super) fn from_config(config: &AuthConfig) -> Self {
        let public = config.anon_key.iter().chain(&config.publishable_keys);
        let server_side = config.service_role_key.iter().chain(&config.secret_keys);
        let known = public
            .map(|key| (key.expose(), PUBLIC_ROLE))
            .chain(server_side.map(|key| (key.expose(), SERVICE_ROLE)))
            .filter(|(key, _)| is_opaque_key(key))
            .map(|(key, role)| (Sha256::digest(key).into(), Arc::new(Claims::of_role(role))))
            .collect();
        Self { known }
    }

    /// Returns the claims of `key`, if it is one of the configured keys.
    pub(super) fn claims(&self, key: &str) -> Option<Arc<Claims>> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let found = self.known.iter().find(|(known, _)| *known == hash)?;
        Some(Arc::clone(&found.1))
    }
}
