//! Checks permissions by inserting messages, all of which are rolled back (protocol 4.3). To check
//! reading, messages are inserted with the rights of the login and then selected as the caller. To
//! check writing, they are inserted as the caller. Nothing is ever committed.
//!
//! No statement is prepared in advance. Each statement is analysed and planned as the caller it
//! runs for, so one caller's plan is never used for another.

use futures_util::future::{join, join3, join4};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::super::super::permissions::Permissions;
use super::check::{self, BROADCAST, Check, CheckKind, PRESENCE};
use super::error::AuthorizeError;
use crate::db::connect::Connector;
use crate::db::roles::MAY_BE_ASSUMED;
use crate::shutdown::Tasks;

/// Settings of the connection. A policy may be a slow query, so PostgreSQL stops it before the
/// check times out.
const CONNECTION_SETTINGS: &str = "\
    set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
    set idle_in_transaction_session_timeout = '30s'";

/// Inserts a message for a check. All columns that are not listed keep their defaults, so that
/// policies see the same values as in Supabase Realtime.
const INSERT: &str = "\
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
    values ($1, $2, $3, now(), now())";

const SELECT: &str = "select id from realtime.messages where id = any ($1)";

/// Returns the statement that switches to a role and its claims for one transaction. The claims are
/// set in both forms that PostgREST has used: as one object, and one by one. If callers may not
/// have the role in the claims, the statement sets the role to an empty name. It then fails,
/// because no role has that name.
fn become_statement() -> String {
    format!(
        "select \
            set_config('realtime.topic', $1, true), \
            set_config('request.jwt.claims', $2, true), \
            set_config('request.jwt.claim.sub', $3, true), \
            set_config('request.jwt.claim.role', $4, true), \
            set_config('request.headers', $5, true), \
            set_config('role', \
                coalesce((select r.rolname::text from pg_catalog.pg_roles r \
                    where r.rolname = $4 and {MAY_BE_ASSUMED}), ''), true)"
    )
}

/// The SQLSTATE for a row that `with check` refuses, and for a missing grant.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A connection that checks by insertion.
pub(super) struct Prober {
    pub(super) client: Client,
}

impl Prober {
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        client.batch_execute(CONNECTION_SETTINGS).await?;
        Ok(Self { client })
    }

    /// Runs a check and ends the transaction. Returns the result, and whether the connection can be
    /// used again.
    pub(super) async fn check(&self, check: &Check) -> (Result<Permissions, AuthorizeError>, bool) {
        let result = match check.kind {
            CheckKind::Read { presence } => self.read(check, presence).await,
            CheckKind::Write => self.write(check).await,
        };
        let ended = self.client.batch_execute("rollback").await;
        (result, ended.is_ok())
    }

    /// Checks what the caller may read. The transaction must be open before anything is written in
    /// it, so `begin` is awaited first. All other statements are sent together. The futures are
    /// polled in the order in which their messages must be written.
    async fn read(&self, check: &Check, presence: bool) -> Result<Permissions, AuthorizeError> {
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        self.client.batch_execute("begin").await?;
        let (broadcast, presence, become_caller, found) = join4(
            self.insert(ids[0], check, BROADCAST),
            async {
                match presence {
                    true => self.insert(ids[1], check, PRESENCE).await,
                    false => Ok(()),
                }
            },
            self.become_caller(check),
            async {
                self.client
                    .query_typed(SELECT, &[(&ids.as_slice(), Type::UUID_ARRAY)])
                    .await
            },
        )
        .await;
        // The first error causes the errors after it, so it is the one to return.
        broadcast?;
        presence?;
        become_caller?;
        let mut permissions = Permissions::default();
        for row in found? {
            let id: Uuid = row.try_get(0)?;
            let extension = if id == ids[0] { BROADCAST } else { PRESENCE };
            check::set(&mut permissions, extension, true);
        }
        Ok(permissions)
    }

    async fn write(&self, check: &Check) -> Result<Permissions, AuthorizeError> {
        self.client.batch_execute("begin").await?;
        let (become_caller, savepoint, broadcast) = join3(
            self.become_caller(check),
            self.client.batch_execute("savepoint extension"),
            self.insert(Uuid::new_v4(), check, BROADCAST),
        )
        .await;
        become_caller?;
        savepoint?;
        let broadcast = is_allowed(broadcast)?;
        let (back, presence) = join(
            self.client.batch_execute("rollback to savepoint extension"),
            self.insert(Uuid::new_v4(), check, PRESENCE),
        )
        .await;
        back?;
        Ok(Permissions {
            broadcast,
            presence: is_allowed(presence)?,
        })
    }

    async fn insert(
        &self,
        id: Uuid,
        check: &Check,
        extension: &str,
    ) -> Result<(), tokio_postgres::Error> {
        self.client
            .query_typed(
                INSERT,
                &[
                    (&id, Type::UUID),
                    (&&*check.topic, Type::TEXT),
                    (&extension, Type::TEXT),
                ],
            )
            .await?;
        Ok(())
    }

    async fn become_caller(&self, check: &Check) -> Result<Row, tokio_postgres::Error> {
        let claims = &check.claims;
        self.client
            .query_typed_one(
                &become_statement(),
                &[
                    (&&*check.topic, Type::TEXT),
                    (&&*claims.json, Type::TEXT),
                    (&claims.subject.as_deref().unwrap_or_default(), Type::TEXT),
                    (&claims.role, Type::TEXT),
                    (&&*check.headers, Type::TEXT),
                ],
            )
            .await
    }
}

/// Returns whether the policies and the grants allowed an insertion.
fn is_allowed(result: Result<(), tokio_postgres::Error>) -> Result<bool, AuthorizeError> {
    match result {
        Ok(()) => Ok(true),
        Err(error)
            if error
                .as_db_error()
                .is_some_and(|error| error.code().code() == INSUFFICIENT_PRIVILEGE) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
