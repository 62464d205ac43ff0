//! Writes as the caller of a request, once per `Idempotency-Key`. A write needs a token of the rate
//! limits unless it changes nothing.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::allowance::{Allowance, Debt};
use super::class::{Class, Exemption};
use super::idempotency::{Claim, KeyStatements};
use crate::db::{Db, DbError, Query};
use crate::error_code::ErrorCode;
use crate::http::{ApiError, Caller};

/// The database access of a handler that writes: as its caller, and once per idempotency key.
pub struct Writer<C: Class> {
    /// The user who makes the request.
    pub caller: Caller,
    db: Db,
    allowance: Option<Allowance<C>>,
    /// Tokens that could not be taken. The write is refused for lack of them, unless it turns out
    /// to be exempt.
    debts: Vec<Debt<C>>,
    claim: Option<Arc<Claim>>,
}

impl<C: Class> Writer<C> {
    /// Takes a token of an additional class that applies to the request. If no token is left, the
    /// write is refused unless it turns out to be exempt.
    pub fn take(&mut self, class: C) {
        let taken = self
            .allowance
            .as_ref()
            .map(|allowance| allowance.take(class));
        self.debts.extend(taken.and_then(Result::err));
    }

    /// Puts back the token that [`Writer::take`] took, if the class did not apply after all.
    pub fn refund(&self, class: C) {
        if let Some(allowance) = &self.allowance
            && !self.debts.iter().any(|debt| debt.class == class)
        {
            allowance.refund(class);
        }
    }

    /// Makes changes whose response contains no data.
    pub async fn change(&self, changes: &[Query<'_>]) -> Result<(), ApiError> {
        self.write(changes, None, &[]).await.map(drop)
    }

    /// Makes a change and returns its rows; no rows if it is a retry.
    pub async fn change_returning(&self, change: Query<'_>) -> Result<Vec<Row>, ApiError> {
        self.write(&[change], None, &[]).await
    }

    /// Makes changes and returns the rows of `view` after them.
    pub async fn change_then_read(
        &self,
        changes: &[Query<'_>],
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        self.find_or_change(&[], changes, view).await
    }

    /// Like [`Writer::change_then_read`], for changes that may find an existing resource even
    /// without a key. For each class, `refuse_new` has a statement that refuses changes which would
    /// cost a token of the class.
    pub async fn find_or_change(
        &self,
        refuse_new: &[(C, Query<'_>)],
        changes: &[Query<'_>],
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        let queries: Vec<_> = changes.iter().copied().chain([view]).collect();
        self.write(&queries, Some(view), refuse_new).await
    }

    /// Makes a change and returns its rows. For a retry, returns the rows of `view`.
    pub async fn change_or_read(
        &self,
        change: Query<'_>,
        view: Query<'_>,
    ) -> Result<Vec<Row>, ApiError> {
        self.write(&[change], Some(view), &[]).await
    }

    /// Returns the rows of `view` without a change. The request needs no key and counts as a read.
    pub async fn read(&self, view: Query<'_>) -> Result<Vec<Row>, ApiError> {
        if let Some(allowance) = &self.allowance {
            allowance.count_as_read_request();
            if allowance.debt().is_some() {
                let taken = allowance.take(C::READ);
                taken.map_err(|debt| allowance.refuse(debt))?;
            }
        }
        let claims = &self.caller.claims;
        Ok(self.db.query_as(claims, view.sql, view.parameters).await?)
    }

    /// Returns the rows of the last statement, or of `again` if the statements ran before. If a
    /// required token is missing, the write is refused in the same transaction, before its
    /// statements, unless it is a retry.
    async fn write(
        &self,
        queries: &[Query<'_>],
        again: Option<Query<'_>>,
        refuse_new: &[(C, Query<'_>)],
    ) -> Result<Vec<Row>, ApiError> {
        let Some((allowance, debt)) = self.largest_debt() else {
            return self.run(queries, again).await;
        };
        let by_key = self.claim.as_ref().map(|claim| Query {
            sql: claim.statements.refuse_new,
            parameters: &[],
        });
        let refuse = |class| {
            let of_class = refuse_new.iter().find(|(refused, _)| *refused == class);
            of_class.map(|(_, query)| *query).or(by_key)
        };
        let refusals = self.debts.iter().map(|debt| refuse(debt.class));
        let Some(mut statements) = refusals.collect::<Option<Vec<_>>>() else {
            return Err(allowance.refuse(debt));
        };
        // Checking for a retry costs a read token, so a flood of new keys costs as much as a flood
        // of reads.
        if allowance.take(C::READ).is_err() {
            return Err(allowance.refuse(debt));
        }
        statements.extend_from_slice(queries);
        let rows = self.run(&statements, again).await;
        match rows {
            // A retry gets the read token back. A request that found an existing resource does not,
            // because no other token was taken for it.
            Ok(_)
                if allowance
                    .debt()
                    .is_none_or(|debt| debt.class.exemption() != Exemption::Existing)
                    || self.is_replay() =>
            {
                allowance.refund(C::READ);
            }
            Err(error) if error.code() == ErrorCode::RateLimited => {
                return Err(allowance.refuse(debt));
            }
            Ok(_) | Err(_) => {}
        }
        rows
    }

    fn is_replay(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.is_replay())
    }

    /// Returns the missing token with the longest wait.
    fn largest_debt(&self) -> Option<(&Allowance<C>, Debt<C>)> {
        let debt = self
            .debts
            .iter()
            .max_by_key(|debt| debt.exceeded.retry_after);
        self.allowance.as_ref().zip(debt.copied())
    }

    async fn run(
        &self,
        queries: &[Query<'_>],
        again: Option<Query<'_>>,
    ) -> Result<Vec<Row>, ApiError> {
        let claims = &self.caller.claims;
        let Some(claim) = &self.claim else {
            let results = self.db.run_as(claims, queries).await?;
            return Ok(results.into_iter().last().unwrap_or_default());
        };
        let (key, hash) = (&claim.key, &claim.hash.as_slice());
        let parameters: &[&(dyn ToSql + Sync)] = &[key, hash];
        let KeyStatements {
            claim: claim_key,
            store: store_key,
            recall,
            ..
        } = claim.statements;
        let [claim_key, store_key] = [claim_key, store_key].map(|sql| Query { sql, parameters });
        let mut statements = vec![claim_key];
        statements.extend_from_slice(queries);
        statements.push(store_key);
        match self.db.run_as(claims, &statements).await {
            Ok(results) => Ok(results.into_iter().nth(queries.len()).unwrap_or_default()),
            Err(DbError::DoneBefore) => {
                claim.set_replay();
                let Some(again) = again else {
                    return Ok(Vec::new());
                };
                let recall = Query {
                    sql: recall,
                    parameters: &[key],
                };
                let results = self.db.run_as(claims, &[recall, again]).await?;
                Ok(results.into_iter().last().unwrap_or_default())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<S, C> FromRequestParts<S> for Writer<C>
where
    S: Send + Sync,
    C: Class,
    Caller: FromRequestParts<S, Rejection = ApiError>,
    Db: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let allowance = parts.extensions.get::<Allowance<C>>().cloned();
        Ok(Self {
            caller: Caller::from_request_parts(parts, state).await?,
            db: Db::from_ref(state),
            debts: allowance.iter().filter_map(Allowance::debt).collect(),
            allowance,
            claim: parts.extensions.get::<Arc<Claim>>().cloned(),
        })
    }
}
