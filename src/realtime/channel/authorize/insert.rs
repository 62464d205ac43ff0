//! Asks by writing: messages that do not exist are inserted, looked for in the caller's name, and
//! rolled back (protocol 4.3). Nothing of it is ever committed.

use futures_util::future::{join, join3, join4};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::error::AuthorizeError;
use super::{Permissions, Question, Request};
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// A policy may be a slow query; it is stopped on the server before nobody waits for it any more.
/// A plan is made for each caller, because a function that is wrongly declared immutable would
/// put one caller's answer into a plan that others use.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                       set idle_in_transaction_session_timeout = '30s'; \
                       set plan_cache_mode = force_custom_plan";

/// A message that is asked about. Everything else is left to its default, so that policies see
/// what they see in the original.
const INSERT: &str = "\
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
    values ($1, $2, $3, now(), now())";

const LOOK: &str = "select extension from realtime.messages where id = any ($1)";

/// Takes on a role and its claims, in both conventions of PostgREST, for one transaction.
const BECOME: &str = "\
    select \
        set_config('realtime.topic', $1, true), \
        set_config('request.jwt.claims', $2, true), \
        set_config('request.jwt.claim.sub', $3, true), \
        set_config('request.jwt.claim.role', $4, true), \
        set_config('request.headers', $5, true), \
        set_config('role', $4, true)";

/// What PostgreSQL says of a row that `with check` does not let in, and of a missing grant.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

const BROADCAST: &str = "broadcast";
const PRESENCE: &str = "presence";

/// A connection that asks in this way. The login's own rights are used for inserting what is read.
pub(super) struct Prober {
    pub(super) client: Client,
    insert: Statement,
    become_caller: Statement,
    look: Statement,
}

impl Prober {
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        client.batch_execute(SESSION).await?;
        let prepared = async {
            Ok::<_, tokio_postgres::Error>((
                client.prepare(INSERT).await?,
                client.prepare(BECOME).await?,
                client.prepare(LOOK).await?,
            ))
        };
        // This is about the table, and says nothing of any caller.
        let (insert, become_caller, look) = prepared.await.map_err(|error| match error.into() {
            AuthorizeError::Policy { sqlstate } => AuthorizeError::Failed { sqlstate },
            error => error,
        })?;
        Ok(Self {
            insert,
            become_caller,
            look,
            client,
        })
    }

    /// Asks, and ends the transaction. Whether the connection can be used again is told as well.
    pub(super) async fn ask(
        &self,
        request: &Request<'_>,
    ) -> (Result<Permissions, AuthorizeError>, bool) {
        let answer = match request.question {
            Question::Read { presence } => self.read(request, presence).await,
            Question::Write => self.write(request).await,
        };
        let ended = self.client.batch_execute("rollback").await;
        (answer, ended.is_ok())
    }

    /// The transaction is open for certain before anything is written in it; the rest goes out in
    /// one flight. Futures are polled in the order in which their messages are to be written: all
    /// statements are prepared.
    async fn read(
        &self,
        request: &Request<'_>,
        presence: bool,
    ) -> Result<Permissions, AuthorizeError> {
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        self.client.batch_execute("begin").await?;
        let (broadcast, presence, become_caller, found) = join4(
            self.insert(ids[0], request, BROADCAST),
            async {
                match presence {
                    true => self.insert(ids[1], request, PRESENCE).await,
                    false => Ok(()),
                }
            },
            self.become_caller(request),
            async { self.client.query(&self.look, &[&ids.as_slice()]).await },
        )
        .await;
        // The first error is the cause of the others.
        broadcast?;
        presence?;
        become_caller?;
        let mut permissions = Permissions::default();
        for row in found? {
            match row.try_get::<_, &str>(0)? {
                BROADCAST => permissions.broadcast = true,
                PRESENCE => permissions.presence = true,
                _ => {}
            }
        }
        Ok(permissions)
    }

    async fn write(&self, request: &Request<'_>) -> Result<Permissions, AuthorizeError> {
        self.client.batch_execute("begin").await?;
        let (become_caller, savepoint, broadcast) = join3(
            self.become_caller(request),
            self.client.batch_execute("savepoint extension"),
            self.insert(Uuid::new_v4(), request, BROADCAST),
        )
        .await;
        become_caller?;
        savepoint?;
        let broadcast = is_let_in(broadcast)?;
        let (back, presence) = join(
            self.client.batch_execute("rollback to savepoint extension"),
            self.insert(Uuid::new_v4(), request, PRESENCE),
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
        request: &Request<'_>,
        extension: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&id, &request.topic, &extension];
        self.client.execute(&self.insert, &parameters).await?;
        Ok(())
    }

    async fn become_caller(&self, request: &Request<'_>) -> Result<Row, tokio_postgres::Error> {
        let claims = &request.claims;
        self.client
            .query_one(
                &self.become_caller,
                &[
                    &request.topic,
                    &&*claims.json,
                    &claims.subject.as_deref().unwrap_or_default(),
                    &claims.role,
                    &request.headers,
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
