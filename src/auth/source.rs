//! The keys of one issuer, and whether they must be fetched.
//!
//! This file performs no I/O. Another module fetches key sets and passes them to a [`KeyFeed`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::error::TokenError;
use super::keys::{KeyId, KeySet, Signer, may_be_published, verify};
use super::requirements::Requirements;
use crate::config::KeySource;

/// Minimum time between two fetches because of unknown keys. Anyone can send a token with a made-up
/// `kid`, so such tokens must not let the server flood the issuer. Issuers publish a key minutes
/// before they use it, so one fetch suffices.
const DEMAND_INTERVAL: Duration = Duration::from_secs(30);

/// An issuer: its keys, and the requirements that its tokens must meet.
pub(super) struct Source {
    pub(super) requirements: Requirements,
    /// The lock is held for one copy of a pointer, and never across an await.
    keys: RwLock<Arc<Keys>>,
    /// The generation of `keys`. The cached result of a signature check counts only if it has the
    /// same generation.
    generation: AtomicU64,
    remote: Option<Remote>,
}

/// The current keys of an issuer.
pub(super) struct Keys {
    configured: Arc<KeySet>,
    /// The published set, once it has been fetched.
    fetched: Option<KeySet>,
    pub(super) generation: u64,
}

/// A published set.
struct Remote {
    location: KeySource,
    attempts: Mutex<Attempts>,
    /// Wakes the task that fetches the set.
    wanted: Notify,
    /// The number of published sets, of all issuers, whose fetch is running or requested.
    pending: watch::Sender<usize>,
}

/// The attempts to fetch a set.
struct Attempts {
    /// Whether an attempt is running or requested.
    is_pending: bool,
    /// Whether the last attempt failed.
    has_failed: bool,
    /// When an unknown key last caused a request.
    demanded: Option<Instant>,
    /// Whether a token was refused that may be valid after the next attempt.
    has_waiting: bool,
}

impl Keys {
    fn sets(&self) -> Vec<&KeySet> {
        std::iter::once(&*self.configured)
            .chain(&self.fetched)
            .collect()
    }

    /// Checks a signature. Returns the id of the key, if the published set contains the key.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        signed: &[u8],
        signature: &str,
    ) -> Result<Signer<'_>, TokenError> {
        let signer = verify(&self.sets(), algorithm, kid, signed, signature)?;
        Ok(signer.filter(|id| self.has_fetched(id)))
    }

    /// Returns whether the published set contains this key.
    pub(super) fn has_fetched(&self, id: &KeyId) -> bool {
        self.fetched.as_ref().is_some_and(|set| set.contains(id))
    }
}

impl Source {
    /// Creates a source with configured keys.
    pub(super) fn new(keys: KeySet, requirements: Requirements) -> Self {
        Self {
            requirements,
            keys: RwLock::new(Arc::new(Keys {
                configured: Arc::new(keys),
                fetched: None,
                generation: 0,
            })),
            generation: AtomicU64::new(0),
            remote: None,
        }
    }

    /// Adds a published set, whose first fetch is expected immediately.
    pub(super) fn with_published(
        mut self,
        location: KeySource,
        pending: &watch::Sender<usize>,
    ) -> Self {
        pending.send_modify(|count| *count += 1);
        self.remote = Some(Remote {
            location,
            attempts: Mutex::new(Attempts {
                is_pending: true,
                has_failed: false,
                demanded: None,
                has_waiting: false,
            }),
            wanted: Notify::new(),
            pending: pending.clone(),
        });
        self
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn is_published(&self) -> bool {
        self.remote.is_some()
    }

    /// Decides about a token whose key is not among `keys`, and requests a fetch if the last one
    /// for an unknown key was requested at least 30 seconds ago. Returns
    /// [`TokenError::KeysUnavailable`] if the issuer's current set may contain the key: a fetch is
    /// pending, the last one failed, or none has succeeded. Otherwise returns `error`.
    pub(super) fn unknown_key(
        &self,
        algorithm: Algorithm,
        keys: &Keys,
        error: TokenError,
    ) -> TokenError {
        let Some(remote) = &self.remote else {
            return error;
        };
        if !may_be_published(algorithm) {
            return error;
        }
        let mut attempts = remote.attempts();
        if !attempts.is_pending {
            let now = Instant::now();
            let is_due = attempts
                .demanded
                .is_none_or(|last| now.duration_since(last) >= DEMAND_INTERVAL);
            if is_due {
                attempts.demanded = Some(now);
                remote.request(&mut attempts);
            }
        }
        let is_unknown = attempts.is_pending || attempts.has_failed || keys.fetched.is_none();
        if !is_unknown {
            return error;
        }
        attempts.has_waiting = true;
        TokenError::KeysUnavailable
    }

    /// Requests a fetch, without the minimum time between two requests.
    pub(super) fn refresh(&self) {
        if let Some(remote) = &self.remote {
            remote.request(&mut remote.attempts());
        }
    }

    /// Replaces the published set. `None` removes it. Returns whether anything changed.
    fn replace(&self, fetched: Option<KeySet>) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (&keys.fetched, &fetched) {
            (None, None) => true,
            (Some(old), Some(new)) => old.is_same_as(new),
            _ => false,
        };
        if is_same {
            // Results of signature checks stay cached, and sockets are not woken.
            return false;
        }
        let generation = keys.generation + 1;
        *keys = Arc::new(Keys {
            configured: Arc::clone(&keys.configured),
            fetched,
            generation,
        });
        self.generation.store(generation, Ordering::Release);
        true
    }
}

impl Remote {
    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, attempts: &mut Attempts) {
        if !attempts.is_pending {
            attempts.is_pending = true;
            self.pending.send_modify(|count| *count += 1);
        }
        self.wanted.notify_one();
    }
}

/// One published key set, for the task that fetches it.
pub struct KeyFeed {
    sources: Arc<[Source]>,
    index: usize,
    location: KeySource,
    changes: watch::Sender<()>,
}

impl KeyFeed {
    /// Returns one feed per published set.
    pub(super) fn all(sources: &Arc<[Source]>, changes: &watch::Sender<()>) -> Vec<Self> {
        let published = sources.iter().enumerate();
        published
            .filter_map(|(index, source)| {
                Some(Self {
                    location: source.remote.as_ref()?.location.clone(),
                    sources: Arc::clone(sources),
                    index,
                    changes: changes.clone(),
                })
            })
            .collect()
    }

    /// Returns the location of the set.
    pub fn location(&self) -> &KeySource {
        &self.location
    }

    /// Returns the accepted values of `iss`. If there are none, this is the first issuer, and any
    /// value is accepted that no other issuer has.
    pub fn issuers(&self) -> &[String] {
        &self.source().requirements.issuers
    }

    /// Waits until the set must be fetched.
    pub async fn wanted(&self) {
        if let Some(remote) = &self.source().remote {
            remote.wanted.notified().await;
        }
    }

    /// Reports that an attempt to fetch the set begins.
    pub fn begin(&self) {
        if let Some(remote) = &self.source().remote {
            let mut attempts = remote.attempts();
            if !attempts.is_pending {
                attempts.is_pending = true;
                remote.pending.send_modify(|count| *count += 1);
            }
        }
    }

    /// Uses a fetched set from now on. Returns whether its keys differ from the previous ones.
    pub fn replace(&self, keys: KeySet) -> bool {
        let has_changed = self.source().replace(Some(keys));
        if has_changed {
            self.changes.send_replace(());
        }
        has_changed
    }

    /// Stops using the set, because it is too old.
    pub fn remove(&self) {
        if self.source().replace(None) {
            self.changes.send_replace(());
        }
    }

    /// Reports the end of an attempt. Tokens that waited for it are verified again.
    pub fn end(&self, is_success: bool) {
        let Some(remote) = &self.source().remote else {
            return;
        };
        let mut attempts = remote.attempts();
        attempts.has_failed = !is_success;
        if std::mem::take(&mut attempts.is_pending) {
            remote
                .pending
                .send_modify(|count| *count = count.saturating_sub(1));
        }
        if std::mem::take(&mut attempts.has_waiting) {
            self.changes.send_replace(());
        }
    }

    fn source(&self) -> &Source {
        &self.sources[self.index]
    }
}
