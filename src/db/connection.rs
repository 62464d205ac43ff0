//! A connection of the pool. It is *parked*, which means that its role is [`PARKED_ROLE`], except
//! while a transaction acts for a caller.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::error::DbError;
use crate::auth::Claims;

/// The role of a connection that acts for no caller. A migration creates it. It cannot log in, is
/// granted to the login, and must never be granted any privilege.
pub const PARKED_ROLE: &str = "rapport_request";

/// How long the check of a connection in an uncertain state may take before the connection is
/// closed. The check is one round trip. If it takes longer, a statement of a dropped request is
/// still running.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks that the connection is outside a transaction and parked. The check must be sent as a
/// simple query, because then the two clock readings differ only inside an older transaction.
const CHECK: &str = "select current_user = 'rapport_request' and now() = statement_timestamp()";

/// Switches the connection to the caller for one transaction, as PostgREST does. It sets the claims
/// in both forms that policies read (`request.jwt.claims` and `request.jwt.claim.…`), and then the
/// role.
///
/// A connection that is not parked does not switch to the caller's role. Otherwise, after a lost
/// `BEGIN`, it would keep that role or the one that it had before.
const BECOME_CALLER: &str = "\
    select \
        set_config('request.jwt.claims', $1, true), \
        set_config('request.jwt.claim.sub', $2, true), \
        set_config('request.jwt.claim.role', $3, true), \
        set_config('role', case current_user when 'rapport_request' then $3 else 'rapport_request' end, true)";

/// Index of the role among the columns of [`BECOME_CALLER`].
const ROLE_COLUMN: usize = 3;

/// A connection with its prepared statements.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The prepared [`BECOME_CALLER`].
    become_caller: Statement,
    /// Prepared statements by their text. All statements of this program are constants.
    pub(super) statements: HashMap<&'static str, Statement>,
    /// Set while a transaction is in progress. It stays set if the transaction fails or its request
    /// is dropped, and the connection is then checked before its next use.
    pub(super) needs_check: bool,
}

impl Connection {
    /// Runs the statements in `settings`, which park a new connection.
    pub(super) async fn park(
        client: Client,
        settings: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute(settings).await?;
        let become_caller = client.prepare(BECOME_CALLER).await?;
        Ok(Self {
            client,
            become_caller,
            statements: HashMap::new(),
            needs_check: false,
        })
    }

    /// Returns whether the connection is outside a transaction and parked. Waits for statements
    /// still in progress, but no longer than `limit`.
    pub(super) async fn check(&mut self, limit: Duration) -> bool {
        let answer = tokio::time::timeout(limit, self.client.simple_query(CHECK)).await;
        let Ok(Ok(messages)) = answer else {
            return false;
        };
        messages.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")),
        )
    }

    /// Switches to the role and claims of `caller` until the end of the transaction.
    ///
    /// # Errors
    /// [`DbError::Unexpected`] if the connection has another role afterwards.
    pub(super) async fn become_caller(&self, caller: &Claims) -> Result<(), DbError> {
        let subject = caller.subject.as_deref().unwrap_or_default();
        let row = self
            .client
            .query_one(
                &self.become_caller,
                &[&&*caller.json, &subject, &caller.role],
            )
            .await
            .map_err(DbError::outside_statement)?;
        let role: &str = row
            .try_get(ROLE_COLUMN)
            .map_err(DbError::outside_statement)?;
        if role == caller.role {
            return Ok(());
        }
        Err(DbError::Unexpected(
            "the connection did not switch to the caller's role".into(),
        ))
    }
}

/// Returns the statements that set up every connection. The role is set last, because the
/// connection has no rights afterwards.
///
/// `search_path` is the one that PostgREST sets, for functions and policies of the application that
/// rely on it; our own statements qualify every name. UTC and ISO determine how JSON built in the
/// database formats times.
///
/// Users can hold locks on their own rows for as long as they like, so a statement waits for a lock
/// only for `lock_timeout`. Otherwise it would occupy its connection until the statement timeout.
pub(super) fn connection_settings(statement_timeout: Duration, lock_timeout: Duration) -> String {
    let (statement_timeout, lock_timeout) =
        (statement_timeout.as_millis(), lock_timeout.as_millis());
    format!(
        "set statement_timeout = {statement_timeout};
         set lock_timeout = {lock_timeout};
         set idle_in_transaction_session_timeout = {statement_timeout};
         set search_path = public, extensions;
         set timezone = 'UTC';
         set datestyle = 'ISO';
         set role {PARKED_ROLE}"
    )
}
