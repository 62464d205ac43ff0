//! Asks by writing: messages that do not exist are inserted, looked for in the caller's name, and
//! rolled back (protocol 4.3). Nothing of it is ever committed.
//!
//! Nothing is prepared beforehand: what is asked in a caller's name is also analysed and planned in it, as
//! it is for him. That a plan of one caller would serve another is thereby out of the question.

use futures_util::future::{join, join3, join4};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::error::AuthorizeError;
use super::{BROADCAST, PRESENCE, Permissions, Question, Subject};
use crate::db::connect::Connector;
use crate::db::roles::MAY_BE_A_CALLERS;
use crate::shutdown::Tasks;

/// A policy may be a slow query; it is stopped on the server before nobody waits for it any more.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                       set idle_in_transaction_session_timeout = '30s'";

/// A message that is asked about. Everything else is left to its default, so that policies see
/// what they see in the original.
const INSERT: &str = "\
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
    values ($1, $2, $3, now(), now())";

const LOOK: &str = "select id from realtime.messages where id = any ($1)";

/// Takes on a role and its claims, in both conventions of PostgREST, for one transaction. There is no
/// role with an empty name: where the claim names none that is a caller's, the statement fails.
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
                    where r.rolname = $4 and {MAY_BE_A_CALLERS}), ''), true)"
    )
}

/// What PostgreSQL says of a row that `with check` does not let in, and of a missing grant.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A connection that asks in this way. The login's own rights are used for inserting what is read.
pub(super) struct Prober {
    pub(super) client: Client,
}

impl Prober {
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        client.batch_execute(SESSION).await?;
        Ok(Self { client })
    }

    /// Asks, and ends the transaction. Whether the connection can be used again is told as well.
    pub(super) async fn ask(
        &self,
        subject: &Subject,
    ) -> (Result<Permissions, AuthorizeError>, bool) {
        let answer = match subject.question {
            Question::Read { presence } => self.read(subject, presence).await,
            Question::Write => self.write(subject).await,
        };
        let ended = self.client.batch_execute("rollback").await;
        (answer, ended.is_ok())
    }

    /// The transaction is open for certain before anything is written in it; the rest goes out in
    /// one flight. Futures are polled in the order in which their messages are to be written.
    async fn read(&self, subject: &Subject, presence: bool) -> Result<Permissions, AuthorizeError> {
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        self.client.batch_execute("begin").await?;
        let (broadcast, presence, become_caller, found) = join4(
            self.insert(ids[0], subject, BROADCAST),
            async {
                match presence {
                    true => self.insert(ids[1], subject, PRESENCE).await,
                    false => Ok(()),
                }
            },
            self.become_caller(subject),
            async {
                self.client
                    .query_typed(LOOK, &[(&ids.as_slice(), Type::UUID_ARRAY)])
                    .await
            },
        )
        .await;
        // The first error is the cause of the others.
        broadcast?;
        presence?;
        become_caller?;
        let mut permissions = Permissions::default();
        for row in found? {
            let id: Uuid = row.try_get(0)?;
            permissions.set(if id == ids[0] { BROADCAST } else { PRESENCE }, true);
        }
        Ok(permissions)
    }

    async fn write(&self, subject: &Subject) -> Result<Permissions, AuthorizeError> {
        self.client.batch_execute("begin").await?;
        let (become_caller, savepoint, broadcast) = join3(
            self.become_caller(subject),
            self.client.batch_execute("savepoint extension"),
            self.insert(Uuid::new_v4(), subject, BROADCAST),
        )
        .await;
        become_caller?;
        savepoint?;
        let broadcast = is_let_in(broadcast)?;
        let (back, presence) = join(
            self.client.batch_execute("rollback to savepoint extension"),
            self.insert(Uuid::new_v4(), subject, PRESENCE),
        )
        .await;
        back?;
        Ok(Permissions {
            broadcast,
            presence: is_let_in(presence)?,
        })
    }

    async fn insert(
        &self,
        id: Uuid,
        subject: &Subject,
        extension: &str,
    ) -> Result<(), tokio_postgres::Error> {
        self.client
            .query_typed(
                INSERT,
                &[
                    (&id, Type::UUID),
                    (&&*subject.topic, Type::TEXT),
                    (&extension, Type::TEXT),
                ],
            )
            .await?;
        Ok(())
    }

    async fn become_caller(&self, subject: &Subject) -> Result<Row, tokio_postgres::Error> {
        let claims = &subject.claims;
        self.client
            .query_typed_one(
                &become_statement(),
                &[
                    (&&*subject.topic, Type::TEXT),
                    (&&*claims.json, Type::TEXT),
                    (&claims.subject.as_deref().unwrap_or_default(), Type::TEXT),
                    (&claims.role, Type::TEXT),
                    (&&*subject.headers, Type::TEXT),
                ],
            )
            .await
    }
}

/// Whether an insertion was let in by the policies and the grants.
fn is_let_in(result: Result<(), tokio_postgres::Error>) -> Result<bool, AuthorizeError> {
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
