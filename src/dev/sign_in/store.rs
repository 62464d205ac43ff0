//! Accounts and sign-in sessions in the private database.
//!
//! Each call opens its own connection. Sign-ins are rare, and a restart of the database needs no
//! handling this way.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::{Client, GenericClient, Row};
use uuid::Uuid;

use super::refusal::{self, Failure, Refusal};
use super::session::{RefreshToken, Secrets, Session, Verdict};
use crate::db::connect::{ConnectError, Connector};
use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::shutdown::Tasks;

/// An account as clients of Supabase Auth store it.
const USER: &str = "\
    select json_build_object( \
        'id', u.id, \
        'aud', 'authenticated', \
        'role', 'authenticated', \
        'email', u.email, \
        'email_confirmed_at', u.created_at, \
        'phone', '', \
        'confirmed_at', u.created_at, \
        'last_sign_in_at', u.last_sign_in_at, \
        'app_metadata', '{\"provider\": \"email\", \"providers\": [\"email\"]}'::jsonb || u.raw_app_meta_data, \
        'user_metadata', u.raw_user_meta_data, \
        'identities', '[]'::json, \
        'created_at', u.created_at, \
        'updated_at', u.updated_at, \
        'is_anonymous', false \
    ) \
    from auth.users u \
    where u.id = $1 and u.deleted_at is null and coalesce(u.banned_until <= now(), true)";

const PEOPLE: &str = "\
    select coalesce(json_agg(json_build_object( \
        'id', d.user_id, \
        'name', d.display_name, \
        'email', d.email, \
        'avatar_url', d.avatar_url, \
        'role', d.role, \
        'team', ( \
            select coalesce(t.name, m.team_id) \
            from chat.memberships m left join chat.teams t on t.team_id = m.team_id \
            where m.user_id = d.user_id \
            order by 1 limit 1 \
        ) \
    ) order by d.user_id), '[]') \
    from chat.directory d \
    join auth.users u on u.id = d.user_id \
    where d.is_active";

/// Maximum sessions of a user. Pages of other sites can open sessions, although they cannot read
/// the responses, so the number needs a limit. A developer has fewer browsers.
const SESSIONS_PER_USER: i64 = 100;

/// Removes the sessions of a user that were not used for a month, and the least recently used ones
/// above the limit.
const REMOVE_OLD: &str = "\
    delete from rapport_dev.sessions \
    where user_id = $1 and ( \
        rotated_at < now() - interval '30 days' \
        or id in ( \
            select id from rapport_dev.sessions where user_id = $1 order by rotated_at desc, id offset $2 \
        ) \
    )";

/// Access to the accounts and sessions in the database.
pub(super) struct Store {
    database: Connector,
    tasks: Tasks,
}

impl Store {
    pub(super) fn new(database: Connector, tasks: Tasks) -> Self {
        Self { database, tasks }
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let connected = self.database.connect("rapport dev sign-in", &self.tasks);
        Ok(connected.await?)
    }

    /// Opens a session for the account with this email address, if there is one.
    pub(super) async fn open(
        &self,
        email: &str,
        lifetime_s: u64,
    ) -> Result<Option<Session>, StoreError> {
        let client = self.connect().await?;
        let signed_in = "\
            update auth.users set last_sign_in_at = now() where lower(email) = lower($1) returning id";
        let Some(found) = client.query_opt(signed_in, &[&email]).await? else {
            return Ok(None);
        };
        let Some(user) = user(&client, found.try_get(0)?).await? else {
            return Ok(None);
        };
        let token = RefreshToken::new(Uuid::new_v4());
        let insert = "\
            insert into rapport_dev.sessions (id, user_id, secret, token_lifetime_s) \
            values ($1, $2, $3, $4)";
        let id: Uuid = found.try_get(0)?;
        client
            .execute(
                insert,
                &[&token.session, &id, &token.secret, &stored(lifetime_s)],
            )
            .await?;
        client
            .execute(REMOVE_OLD, &[&id, &SESSIONS_PER_USER])
            .await?;
        Ok(Some(Session {
            token,
            lifetime_s,
            user,
        }))
    }

    /// Refreshes a session. `lifetime_s` changes the lifetime of its access tokens.
    pub(super) async fn refresh(
        &self,
        presented: &RefreshToken,
        lifetime_s: Option<u64>,
    ) -> Result<Result<Session, Refusal>, StoreError> {
        let mut client = self.connect().await?;
        let transaction = client.transaction().await?;
        let select = "\
            select user_id, secret, previous_secret, token_lifetime_s, \
                extract(epoch from clock_timestamp() - rotated_at)::float8 \
            from rapport_dev.sessions where id = $1 for update";
        let found = transaction.query_opt(select, &[&presented.session]).await?;
        let Some(row) = found else {
            return Ok(Err(refusal::UNKNOWN_REFRESH_TOKEN));
        };
        let secrets = secrets(&row)?;
        let kept: i32 = row.try_get(3)?;
        let lifetime_s = lifetime_s.unwrap_or(kept.unsigned_abs().into());
        let mut token = RefreshToken::new(presented.session);
        match secrets.judge(&presented.secret) {
            Verdict::Rotate => {
                let update = "\
                    update rapport_dev.sessions \
                    set secret = $2, previous_secret = secret, rotated_at = clock_timestamp(), token_lifetime_s = $3 \
                    where id = $1";
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                    [&token.session, &token.secret, &stored(lifetime_s)];
                transaction.execute(update, &parameters).await?;
            }
            Verdict::Repeat => token.secret = secrets.current,
            Verdict::End => {
                let delete = "delete from rapport_dev.sessions where id = $1";
                transaction.execute(delete, &[&token.session]).await?;
                transaction.commit().await?;
                return Ok(Err(refusal::USED_REFRESH_TOKEN));
            }
        }
        let Some(user) = user(&transaction, row.try_get(0)?).await? else {
            return Ok(Err(refusal::UNKNOWN_REFRESH_TOKEN));
        };
        transaction.commit().await?;
        Ok(Ok(Session {
            token,
            lifetime_s,
            user,
        }))
    }

    /// Returns the account. If its token has a session, that session must still exist.
    pub(super) async fn user(
        &self,
        id: Uuid,
        session: Option<Uuid>,
    ) -> Result<Result<Value, Refusal>, StoreError> {
        let client = self.connect().await?;
        if let Some(session) = session {
            let select = "select from rapport_dev.sessions where id = $1 and user_id = $2";
            if client.query_opt(select, &[&session, &id]).await?.is_none() {
                return Ok(Err(refusal::UNKNOWN_SESSION));
            }
        }
        Ok(user(&client, id).await?.ok_or(refusal::UNKNOWN_USER))
    }

    /// Ends all sessions of a user except `but`.
    pub(super) async fn end_all(&self, user: Uuid, but: Option<Uuid>) -> Result<(), StoreError> {
        let delete =
            "delete from rapport_dev.sessions where user_id = $1 and id is distinct from $2";
        let client = self.connect().await?;
        client.execute(delete, &[&user, &but]).await?;
        Ok(())
    }

    /// Ends a session.
    pub(super) async fn end(&self, session: Option<Uuid>) -> Result<(), StoreError> {
        let client = self.connect().await?;
        let delete = "delete from rapport_dev.sessions where id = $1";
        client.execute(delete, &[&session]).await?;
        Ok(())
    }

    /// Returns all users who can sign in, ordered by id.
    pub(super) async fn people(&self) -> Result<Value, StoreError> {
        let client = self.connect().await?;
        Ok(client.query_one(PEOPLE, &[]).await?.try_get(0)?)
    }
}

async fn user(client: &impl GenericClient, id: Uuid) -> Result<Option<Value>, StoreError> {
    let row = client.query_opt(USER, &[&id]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

fn secrets(row: &Row) -> Result<Secrets, tokio_postgres::Error> {
    let age_s: f64 = row.try_get(4)?;
    Ok(Secrets {
        current: row.try_get(1)?,
        previous: row.try_get(2)?,
        // A clock that was set back makes the age negative.
        age: Duration::try_from_secs_f64(age_s).unwrap_or_default(),
    })
}

/// Converts a lifetime for the table. The accepted range fits.
fn stored(lifetime_s: u64) -> i32 {
    i32::try_from(lifetime_s).unwrap_or(i32::MAX)
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Other(match error {
            StoreError::Connect(_) => ApiError::new(ErrorCode::DatabaseUnavailable),
            StoreError::Query(error) => ApiError::internal(error.to_string()),
        })
    }
}
