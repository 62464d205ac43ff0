//! Checks bindings against the catalogue before they are registered (protocol 6.2 and 6.3).
//!
//! PostgreSQL casts the operands under the subscriber's role, unless they obviously are values of
//! the column's type. An invalid operand is therefore explained by PostgreSQL's own error text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::binding::Binding;
use super::catalog::Catalog;
use super::engine::Engine;
use super::error::{QueryError, SubscribeError};
use super::failure::QUERY_CANCELED;
use super::filter::{Condition, Operator};
use super::identity::Identity;
use super::image_sql::{ELAPSED, OUTPUT_SETTINGS};
use super::predicate::{MAX_LIST, Predicate, Test, TypedCondition, pattern_operator};
use super::queries::{
    DatabaseState, Execution, ExecutionMode, Principal, Query, QueryOutput, TextArray,
};
use super::query_cache::{QueryKey, QueryKind};
use super::request::{Selector, SubscriptionRequest};
use super::row_access::condition_query;
use super::subscription::{Checked, Draft, IndexKey, Target};
use super::table::{Table, TableColumn, TableRights};
use super::waiting::not_published;

/// The SQLSTATE of most exceptions that Supabase's server raises for invalid bindings.
const RAISED: &str = "P0001";

/// The SQLSTATE for a role that does not exist.
const UNDEFINED_OBJECT: &str = "42704";

/// The SQLSTATE with which PostgreSQL refuses a regular expression.
const INVALID_REGULAR_EXPRESSION: &str = "2201B";

/// Time that a refused value may take without using up the time of the user's filters. This covers
/// the round trip to the database.
const OVERHEAD: Duration = Duration::from_millis(10);

const BOOL: u32 = 16;
/// `text`, `varchar`, `bpchar`, `name`
const TEXT_TYPES: [u32; 4] = [25, 1043, 1042, 19];

impl Engine {
    /// Checks bindings, and reads the catalogue again if one is refused.
    ///
    /// # Errors
    /// See [`super::Visibility::subscribe`].
    pub(super) async fn check_bindings(
        &self,
        identity: &Arc<Identity>,
        bindings: &[Binding],
    ) -> Result<Checked, SubscribeError> {
        let roles = [identity.role.as_str()];
        if let (true, Some(binding)) = (identity.role.contains('\0'), bindings.first()) {
            // A role name with NUL cannot be sent to PostgreSQL.
            return Err(no_such_role(&binding.request, "\u{fffd}"));
        }
        let principal = Arc::new(Principal::new(Arc::clone(identity)));
        let catalog = self.catalog.current(&roles).await.map_err(unavailable)?;
        match self.check_bindings_in(&catalog, &principal, bindings).await {
            Ok(drafts) => Ok(Checked { catalog, drafts }),
            Err(SubscribeError::Unavailable) => Err(SubscribeError::Unavailable),
            // Another attempt would take the same time.
            Err(error) if error.is_timeout() => Err(error),
            Err(_) => {
                // The missing object may have been created since the catalogue was read.
                let catalog = self.catalog.renewed(&roles).await.map_err(unavailable)?;
                let drafts = self
                    .check_bindings_in(&catalog, &principal, bindings)
                    .await?;
                Ok(Checked { catalog, drafts })
            }
        }
    }

    /// Checks bindings with this reading of the catalogue.
    ///
    /// # Errors
    /// See [`super::Visibility::subscribe`].
    pub(super) async fn check_bindings_in(
        &self,
        catalog: &Arc<Catalog>,
        principal: &Arc<Principal>,
        bindings: &[Binding],
    ) -> Result<Vec<Draft>, SubscribeError> {
        let mut drafts = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let check = BindingCheck {
                engine: self,
                catalog,
                principal,
                request: &binding.request,
            };
            check.binding(binding.id, &mut drafts).await?;
        }
        Ok(drafts)
    }
}

fn no_such_role(request: &SubscriptionRequest, role: &str) -> SubscribeError {
    SubscribeError::Invalid {
        params: request.describe(),
        sqlstate: UNDEFINED_OBJECT.to_owned(),
        message: format!("role \"{role}\" does not exist"),
    }
}

fn unavailable(error: QueryError) -> SubscribeError {
    tracing::debug!(%error, "subscription check failed");
    SubscribeError::Unavailable
}

/// The check of one binding.
struct BindingCheck<'a> {
    engine: &'a Engine,
    catalog: &'a Arc<Catalog>,
    principal: &'a Arc<Principal>,
    request: &'a SubscriptionRequest,
}

impl BindingCheck<'_> {
    async fn binding(&self, id: u32, drafts: &mut Vec<Draft>) -> Result<(), SubscribeError> {
        let request = self.request;
        let role = self.principal.identity.role.as_str();
        if !self.catalog.has_role(role) {
            return Err(no_such_role(request, role));
        }
        let tables: Vec<&Arc<Table>> = match request.exact_table() {
            Some(name) => self.catalog.table_named(&name).into_iter().collect(),
            None => self
                .catalog
                .tables()
                .filter(|table| request.accepts_table(&table.name))
                .collect(),
        };
        if tables.is_empty() {
            return Err(not_published(request));
        }
        let select = self.select(&tables).await?;
        let draft = |target, predicate, index_key| Draft {
            binding: id,
            event: request.event,
            target,
            predicate,
            select: select.clone(),
            index_key,
        };
        if request.filter.is_empty() {
            let target = match request.exact_table() {
                Some(name) => Target::Table(name),
                None => Target::Pattern {
                    schema: exact(&request.schema),
                    name: exact(&request.table),
                },
            };
            drafts.push(draft(target, Predicate::default(), IndexKey::Unfiltered));
            return Ok(());
        }
        // The types of the columns in a filter depend on the table, so a pattern with a filter is
        // replaced by the tables that match now.
        for table in tables {
            let mut conditions = Vec::with_capacity(request.filter.len());
            let mut index_key = IndexKey::Scanned;
            for condition in &request.filter {
                let (typed, own_key) = self.condition(table, condition).await?;
                if let (IndexKey::Scanned, Some(own)) = (&index_key, own_key) {
                    index_key = own;
                }
                conditions.push(typed);
            }
            drafts.push(draft(
                Target::Table(table.name.clone()),
                Predicate { conditions },
                index_key,
            ));
        }
        Ok(())
    }

    fn invalid(&self, sqlstate: &str, message: String) -> SubscribeError {
        SubscribeError::Invalid {
            params: self.request.describe(),
            sqlstate: sqlstate.to_owned(),
            message,
        }
    }

    fn rights(&self, table: &Table) -> Option<&Arc<TableRights>> {
        self.catalog
            .rights(&self.principal.identity.role, table.oid)
    }

    /// Returns the column with this name, if the role may select it and row images contain its
    /// values.
    async fn column<'t>(
        &self,
        table: &'t Table,
        name: &str,
    ) -> Result<Option<&'t TableColumn>, SubscribeError> {
        let rights = self.rights(table);
        let Some(column) = table.column(name).filter(|column| {
            rights.is_some_and(|rights| rights.selectable.contains(&column.number))
        }) else {
            return Ok(None);
        };
        let is_known = self.engine.is_in_images(self.catalog, table, column);
        Ok(is_known.await.map_err(unavailable)?.then_some(column))
    }

    async fn select(
        &self,
        tables: &[&Arc<Table>],
    ) -> Result<Option<Arc<[String]>>, SubscribeError> {
        let Some(names) = &self.request.select else {
            return Ok(None);
        };
        for name in names {
            for table in tables {
                if self.column(table, name).await?.is_none() {
                    return Err(self.invalid(RAISED, format!("invalid column for select {name}")));
                }
            }
        }
        let mut names = names.clone();
        names.sort();
        names.dedup();
        Ok(Some(names.into()))
    }

    /// Returns a condition with typed operands, and the index key that the subscription can use
    /// because of it.
    async fn condition(
        &self,
        table: &Table,
        condition: &Condition,
    ) -> Result<(TypedCondition, Option<IndexKey>), SubscribeError> {
        let Some(column) = self.column(table, &condition.column).await? else {
            return Err(self.invalid(
                RAISED,
                format!("invalid column for filter {}", condition.column),
            ));
        };
        let operands = self.operands(column, condition).await?;
        let typed = TypedCondition::new(condition, column, &operands);
        if let Test::Query { sql, operand } = &typed.test {
            // Runs the query of the condition without input, so that a missing operator is reported
            // now and not for every change.
            let role = &self.principal.identity.role;
            let query = condition_query(&self.catalog.queries, table, role, column, sql);
            let nothing = TextArray::new([].into_iter());
            let operand = TextArray::new([Some(operand.as_bytes())].into_iter());
            self.execute(query, Arc::new([nothing, operand])).await?;
        }
        let index_key = typed.index_keys(&operands).map(|texts| IndexKey::Values {
            column: column.name.as_str().into(),
            type_oid: column.type_oid,
            texts,
        });
        Ok((typed, index_key))
    }

    /// Returns the operands in PostgreSQL's output form.
    async fn operands(
        &self,
        column: &TableColumn,
        condition: &Condition,
    ) -> Result<Vec<Option<String>>, SubscribeError> {
        let name = condition.operator.as_str();
        let value = &condition.value;
        match condition.operator {
            Operator::Is => {
                let keyword = value.to_ascii_lowercase();
                if !matches!(keyword.as_str(), "null" | "true" | "false" | "unknown") {
                    return Err(self.invalid(
                        RAISED,
                        "invalid value for is filter: must be null, true, false, or unknown"
                            .to_owned(),
                    ));
                }
                if keyword != "null" && column.base_type != BOOL {
                    return Err(self.invalid(
                        RAISED,
                        format!(
                            "is {keyword} filter requires a boolean column, got {}",
                            column.bare_type_sql
                        ),
                    ));
                }
                Ok(Vec::new())
            }
            Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch => {
                let is_text =
                    TEXT_TYPES.contains(&column.base_type) || column.base_type_name == "citext";
                if !is_text {
                    return Err(self.invalid(
                        RAISED,
                        format!(
                            "operator {name} requires a text-compatible column type, got {}",
                            column.bare_type_sql
                        ),
                    ));
                }
                self.evaluate_operand(pattern_query(column, condition.operator), value)
                    .await
                    .map_err(|error| match error {
                        SubscribeError::Invalid {
                            message, sqlstate, ..
                        } if sqlstate == INVALID_REGULAR_EXPRESSION => self.invalid(
                            RAISED,
                            format!("invalid regular expression for {name} filter: {message}"),
                        ),
                        other => other,
                    })?;
                Ok(vec![Some(value.clone())])
            }
            Operator::In => self.list(column, value).await,
            _ => match TypedCondition::plain_operand(column, value) {
                Some(operand) => Ok(vec![Some(operand)]),
                None => {
                    self.evaluate_operand(operand_query(&column.bare_type_sql, false), value)
                        .await
                }
            },
        }
    }

    async fn list(
        &self,
        column: &TableColumn,
        literal: &str,
    ) -> Result<Vec<Option<String>>, SubscribeError> {
        let operands = match plain_list(column, literal) {
            Some(operands) => operands,
            None => {
                self.evaluate_operand(operand_query(&column.bare_type_sql, true), literal)
                    .await?
            }
        };
        if operands.len() > MAX_LIST {
            return Err(self.invalid(
                RAISED,
                format!("too many values for `in` filter. Maximum {MAX_LIST}"),
            ));
        }
        Ok(operands)
    }

    /// Executes a query that has an operand as its parameter, under the subscriber's identity.
    /// Returns the list of texts that the query returns.
    async fn evaluate_operand(
        &self,
        sql: String,
        operand: &str,
    ) -> Result<Vec<Option<String>>, SubscribeError> {
        let key = QueryKey {
            table: 0,
            role: self.principal.identity.role.clone(),
            kind: QueryKind::Condition(0, sql.clone()),
        };
        let query = self
            .catalog
            .queries
            .get_or_create(key, || Query::new(sql, 1, false).executed_separately());
        let operand = TextArray::new([Some(operand.as_bytes())].into_iter());
        let row = self.execute(query, Arc::new([operand])).await?;
        row.try_get(0)
            .map_err(|error| unavailable(QueryError::from(error)))
    }

    /// Executes a query under the subscriber's identity, within the time of the user's filters. A
    /// user's queries run one at a time.
    async fn execute(
        &self,
        query: Arc<Query>,
        parameters: Arc<[TextArray]>,
    ) -> Result<Row, SubscribeError> {
        let (engine, user) = (self.engine, &self.principal.user);
        let _lock = engine.filter_time.lock_checks(user).await;
        let Some(available) = engine.filter_time.available(user, Instant::now()) else {
            let message = "the filters of this user took too long, try again later";
            return Err(self.invalid(QUERY_CANCELED, message.to_owned()));
        };
        let execution = Execution {
            principal: Arc::clone(self.principal),
            query,
            mode: ExecutionMode::Prepared,
            parameters,
            time_limit: Some(available.into()),
        };
        let begun = Instant::now();
        let answer = engine
            .filter_pool
            .execute(&[execution], &DatabaseState::Current)
            .await
            .pop()
            .unwrap_or(Err(QueryError::Unavailable(None)));
        let time = match &answer {
            Ok(output) => output.time(),
            // PostgreSQL does not report the time of a failed statement.
            Err(QueryError::Unavailable(_)) => Duration::ZERO,
            Err(error) if error.sqlstate() == Some(QUERY_CANCELED) => available,
            Err(_) => begun.elapsed().min(available).saturating_sub(OVERHEAD),
        };
        engine.filter_time.charge(user, time, Instant::now());
        answer.and_then(QueryOutput::row).map_err(|error| {
            match (error.sqlstate(), error.message()) {
                (Some(sqlstate), Some(message)) => self.invalid(sqlstate, message.to_owned()),
                _ => unavailable(error),
            }
        })
    }
}

fn exact(selector: &Selector) -> Option<String> {
    match selector {
        Selector::Exact(name) => Some(name.clone()),
        Selector::Any => None,
    }
}

/// Returns the elements of an array literal without quotes, blanks, nested lists or nulls, if each
/// of them obviously is a value of the column's type. Returns `None` for any other literal.
fn plain_list(column: &TableColumn, literal: &str) -> Option<Vec<Option<String>>> {
    let inside = literal.strip_prefix('{')?.strip_suffix('}')?;
    let is_special =
        |character: char| matches!(character, '"' | '\\' | '{' | '}') || character.is_whitespace();
    if inside.is_empty() || inside.contains(is_special) {
        return None;
    }
    inside
        .split(',')
        .map(|element| {
            let is_ordinary = !element.is_empty() && !element.eq_ignore_ascii_case("null");
            is_ordinary
                .then(|| TypedCondition::plain_operand(column, element))
                .flatten()
                .map(Some)
        })
        .collect()
}

/// Returns the query that applies a pattern to a sample, to find out whether the pattern is valid.
/// The checks of a domain might reject a sample, so for a domain the sample is a text.
fn pattern_query(column: &TableColumn, operator: Operator) -> String {
    let sample = if column.type_oid == column.base_type {
        let collation = column
            .collation
            .as_ref()
            .map(|collation| format!(" collate {collation}"))
            .unwrap_or_default();
        format!("''::{}{collation}", column.bare_type_sql)
    } else {
        "''::text".to_owned()
    };
    format!(
        "select case when ({sample}) {} (($1::text[])[1]) then array['matches'] else '{{}}'::text[] end, {ELAPSED}",
        pattern_operator(operator)
    )
}

/// Returns the query that casts an operand and prints it as the replication connection prints
/// values. The cast refers to the settings, so it is evaluated after they have been set.
fn operand_query(type_sql: &str, is_list: bool) -> String {
    let operand = "(($1::text[])[1] || settings.nothing)";
    // `format` uses the type's output function, as replication does; a cast to text prints booleans
    // as words. Only the list of an `in` filter is split into its elements, because a value of an
    // array type is one operand.
    let values = if is_list {
        format!(
            "array(select case when element.value is distinct from null then pg_catalog.format('%s', element.value) end \
             from pg_catalog.unnest({operand}::{type_sql}[]) as element (value))"
        )
    } else {
        format!("array[pg_catalog.format('%s', {operand}::{type_sql})]")
    };
    format!("with {OUTPUT_SETTINGS} select {values}, {ELAPSED} from settings")
}
