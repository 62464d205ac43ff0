//! Key sets that are fetched from a server of their issuer, over real connections.

mod fetching;
mod issuers;
pub(crate) mod server;
mod serving;

use std::sync::Arc;

use rapport::auth::{Claims, TokenError, Verifier};
use rapport::config::{Config, Inputs};
use rapport::observability::metrics::Metrics;
use rapport::shutdown::Tasks;
use rapport::upstream::fetch_key_sets;
use serde_json::Value;

use crate::support::chat_server::Person::Ana;
use crate::support::config::config;
use crate::support::token::user_claims;

/// A verifier whose key sets are fetched.
struct Fetcher {
    verifier: Verifier,
    metrics: Metrics,
    tasks: Tasks,
}

impl Fetcher {
    /// Creates a verifier with the key set at this URL, and without a secret.
    fn start(url: &str) -> Self {
        let settings = [("SUPABASE_JWT_SECRET", ""), ("RAPPORT_AUTH_JWKS", url)];
        Self::with(&config("postgres://nobody@localhost/none", &settings))
    }

    /// Creates a verifier with the settings of a file that contains this text.
    fn with_file(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment: std::collections::BTreeMap<String, String> = [(
            "DATABASE_URL".to_owned(),
            "postgres://nobody@localhost/none".to_owned(),
        )]
        .into();
        let config = Config::load(&Inputs {
            file: Some(file.path().to_owned()),
            environment: &environment,
            flags: Vec::new(),
        });
        Self::with(&config.unwrap())
    }

    fn with(config: &Config) -> Self {
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let verifier = Verifier::from_config(&config.auth)
            .unwrap()
            .for_chat(&config.chat)
            .counting(metrics.auth.clone());
        fetch_key_sets(config, &verifier, &metrics.auth, &tasks).unwrap();
        Self {
            verifier,
            metrics,
            tasks,
        }
    }

    /// Verifies a token like a handshake. If its keys must be fetched first, waits for them.
    async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        match self.verifier.verify_socket(token) {
            Err(TokenError::KeysUnavailable) => {
                assert!(self.verifier.await_keys().await);
                self.verifier.verify_socket(token)
            }
            found => found,
        }
    }

    /// Requests a fetch and waits until it has ended.
    async fn refresh(&self) {
        self.verifier.refresh_keys();
        assert!(self.verifier.await_keys().await);
    }

    /// Returns the value of the metric with this name and labels, as they are exported.
    fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line[name.len()..].trim().parse().ok()
    }

    /// Returns how many attempts to fetch the first set had this outcome.
    fn attempts(&self, outcome: &str) -> Option<f64> {
        self.metric(&format!(
            "rapport_auth_key_set_refreshes_total{{source=\"project\",outcome=\"{outcome}\"}}"
        ))
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn unknown(kid: &str) -> Result<(), TokenError> {
    Err(TokenError::Signer {
        kid: Some(kid.to_owned()),
    })
}

/// Returns Ana's claims with these changes.
fn claims(changes: &Value) -> Value {
    let mut claims = user_claims(Ana.id());
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}
