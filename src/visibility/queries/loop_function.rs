//! Runs one query for many identities in one call, with a PL/pgSQL function that assumes one
//! identity after the other.
//!
//! Each execution is a subtransaction that the function ends by raising an error. Settings, locks
//! and other effects of a policy's functions are therefore rolled back before the next execution.
//! The statement is executed again for each identity, so its initial sub-selects, such as `(select
//! auth.uid())`, are evaluated under that identity's claims (PostgreSQL manual 43.11.2: PL/pgSQL
//! keeps plans, not results). An error in an execution is the result of that identity only.
//!
//! The function is temporary, so it belongs to the connection. Its body is stored as text, so it
//! does not prevent users from dropping the objects that it names. PostgreSQL resolves the names in
//! the body when the function first runs. The login role therefore runs it once before any identity
//! does, without an identity and without input.

use std::sync::Arc;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::query::{Execution, Query};
use super::text_array::TextArray;
use crate::db::PARKED_ROLE;
use crate::visibility::error::QueryError;

/// The SQLSTATE that ends an execution with a result. PostgreSQL itself defines no SQLSTATE of the
/// class RP.
const EXECUTION_ENDED: &str = "RP001";

/// The condition that is raised if the connection does not have the expected role. PL/pgSQL's `when
/// others` does not catch it, so it ends the call.
const NOT_PARKED: &str = "assert_failure";

/// The loop function of one query on one connection.
pub(super) struct LoopFunction {
    call: Statement,
}

impl LoopFunction {
    /// Creates the function. The connection must have the login role at this time.
    ///
    /// # Errors
    /// If the server refuses the function, for example because the role may not create temporary
    /// objects.
    pub(super) async fn create(
        client: &Client,
        query: &Query,
    ) -> Result<Self, tokio_postgres::Error> {
        let created = client
            .batch_execute(&format!("begin read write; {}; commit", definition(query)))
            .await;
        if let Err(error) = created {
            client.batch_execute("rollback").await?;
            return Err(error);
        }
        let places: Vec<_> = (1..=query.parameters + 4)
            .map(|place| format!("${place}"))
            .collect();
        let call = client
            .prepare(&format!(
                "select * from pg_temp.{}({})",
                name(query),
                places.join(", ")
            ))
            .await?;
        let nothing = TextArray::new([].into_iter());
        let nobody = TextArray::new([None].into_iter());
        let plan_cache_mode = query.plan_cache_mode();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&nothing; query.parameters];
        parameters.push(&nobody);
        parameters.push(&nobody);
        parameters.push(&None::<&str>);
        parameters.push(&plan_cache_mode);
        client.query(&call, &parameters).await?;
        Ok(Self { call })
    }

    /// Executes a group of executions that have the same query and parameters.
    ///
    /// # Errors
    /// The error that ended the call before all executions were done.
    pub(super) async fn run(
        &self,
        client: &Client,
        group: &[&Execution],
    ) -> Result<Vec<Result<Vec<i64>, QueryError>>, QueryError> {
        let Some(first) = group.first() else {
            return Ok(Vec::new());
        };
        let is_one_query = group.iter().all(|execution| {
            Arc::ptr_eq(&execution.query, &first.query)
                && Arc::ptr_eq(&execution.parameters, &first.parameters)
        });
        if !is_one_query {
            // The results would belong to the wrong inputs, so nothing is executed.
            tracing::error!("call for many identities has different inputs; not executing it");
            return Err(QueryError::Unavailable(None));
        }
        let claims = TextArray::new(
            group
                .iter()
                .map(|execution| Some(execution.principal.identity.claims.as_bytes())),
        );
        let subjects = TextArray::new(
            group
                .iter()
                .map(|execution| Some(execution.principal.subject.as_bytes())),
        );
        let plan_cache_mode = first.query.plan_cache_mode();
        let mut parameters = first.parameters();
        parameters.push(&claims);
        parameters.push(&subjects);
        parameters.push(&first.principal.identity.role);
        parameters.push(&plan_cache_mode);
        let rows = match client.query(&self.call, &parameters).await {
            Ok(rows) => rows,
            Err(error) => {
                return Err(match QueryError::from(error) {
                    QueryError::Refused(error) => QueryError::WholeCall(Arc::new(error)),
                    other => other,
                });
            }
        };
        if rows.len() != group.len() {
            return Err(QueryError::Unavailable(None));
        }
        Ok(rows
            .iter()
            .map(|row| match row.try_get::<_, Option<String>>(1)? {
                Some(sqlstate) => Err(QueryError::OneIdentity(sqlstate)),
                None => Ok(row.try_get(0)?),
            })
            .collect())
    }
}

fn name(query: &Query) -> String {
    format!("rapport_ask_{}", query.id)
}

/// Returns the statements that create the function. Its parameters are those of the query, followed
/// by claims, subjects, the role and the `plan_cache_mode`. Without a role, the function assumes no
/// identity. The names of its variables contain spaces, and columns take precedence over variables,
/// so the variables never conflict with names in the query.
fn definition(query: &Query) -> String {
    let inputs = query.parameters;
    let lists = vec!["text[]"; inputs + 2].join(", ");
    let [claims, subjects, role, plan] = [1, 2, 3, 4].map(|place| format!("${}", inputs + place));
    let name = name(query);
    let sql = &query.sql;
    let body = format!(
        "
#variable_conflict use_column
declare
  \"rapport setting\" text;
begin
  if {role} is not null then
    if current_user <> '{PARKED_ROLE}' then
      raise {NOT_PARKED};
    end if;
    \"rapport setting\" := pg_catalog.set_config('transaction_read_only', 'on', true);
  end if;
  \"rapport setting\" := pg_catalog.set_config('plan_cache_mode', {plan}, true);
  for \"rapport position\" in 1 .. pg_catalog.cardinality({claims}) loop
    begin
      \"rapport ordinals\" := null;
      \"rapport failure\" := null;
      if {role} is not null then
        \"rapport setting\" := pg_catalog.set_config('request.jwt.claims', {claims}[\"rapport position\"], true);
        \"rapport setting\" := pg_catalog.set_config('request.jwt.claim.sub', {subjects}[\"rapport position\"], true);
        \"rapport setting\" := pg_catalog.set_config('request.jwt.claim.role', {role}, true);
        \"rapport setting\" := pg_catalog.set_config('role', {role}, true);
        if current_user <> {role} then
          raise {NOT_PARKED};
        end if;
      end if;
      \"rapport ordinals\" := ({sql});
      raise sqlstate '{EXECUTION_ENDED}';
    exception
      when sqlstate '{EXECUTION_ENDED}' then
        if \"rapport ordinals\" is null then
          \"rapport failure\" := sqlstate;
        end if;
      when others then
        \"rapport ordinals\" := null;
        \"rapport failure\" := sqlstate;
    end;
    return next;
  end loop;
end
"
    );
    let tag = dollar_tag(&body);
    format!(
        "create or replace function pg_temp.{name}({lists}, text, text, \
           out \"rapport ordinals\" pg_catalog.int8[], out \"rapport failure\" text) \
           returns setof record language plpgsql as {tag}{body}{tag}; \
         grant execute on function pg_temp.{name} to public"
    )
}

/// Returns a dollar quote (PostgreSQL manual 4.1.2.4) that does not occur in `text`.
fn dollar_tag(text: &str) -> String {
    let mut tag = "$rapport$".to_owned();
    let mut number = 0_u32;
    while text.contains(&tag) {
        tag = format!("$rapport{number}$");
        number += 1;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_cannot_end_the_quote_around_the_body() {
        assert_eq!(dollar_tag("select 1"), "$rapport$");
        let body = "select '$rapport$', '$rapport0$'";
        assert!(!body.contains(&dollar_tag(body)));
        let query = Query::new(body.to_owned(), 1, false);
        assert_eq!(definition(&query).matches("$rapport1$").count(), 2);
    }
}
