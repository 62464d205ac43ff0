//! Parses one `postgres_changes` binding of a join (protocol 6.1).
//!
//! The result does not depend on the catalogue. Error texts quote the parameters in Elixir's
//! notation, as the protocol requires.

use serde_json::Value;

use super::error::SubscribeError;
use super::filter::Condition;
use super::inspect::{inspect, inspect_text};
use crate::change::{Action, TableName};

/// The requested kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSelector {
    /// `*`, or any value other than the names below.
    All,
    /// `INSERT`
    Insert,
    /// `UPDATE`
    Update,
    /// `DELETE`
    Delete,
}

impl EventSelector {
    /// Returns the name that the protocol uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    /// Returns whether changes of this kind are requested.
    pub fn accepts(self, action: Action) -> bool {
        match self {
            Self::All => true,
            Self::Insert => action == Action::Insert,
            Self::Update => action == Action::Update,
            Self::Delete => action == Action::Delete,
        }
    }

    fn from_params(params: &Value) -> Self {
        let name = params.get("event").and_then(Value::as_str).unwrap_or("*");
        [Self::Insert, Self::Update, Self::Delete]
            .into_iter()
            .find(|event| event.as_str().eq_ignore_ascii_case(name))
            .unwrap_or(Self::All)
    }
}

/// A schema or table name, or all names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// This name only.
    Exact(String),
    /// `*`
    Any,
}

impl Selector {
    /// Returns whether the selector includes `name`.
    pub fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Any => true,
        }
    }

    fn from_name(name: &str) -> Self {
        if name == "*" {
            Self::Any
        } else {
            Self::Exact(name.to_owned())
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Exact(name) => name,
            Self::Any => "*",
        }
    }
}

/// One requested `postgres_changes` binding. Its column names and values are not checked against
/// the database before [`super::Visibility::subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionRequest {
    /// The kinds of changes.
    pub event: EventSelector,
    /// The schema.
    pub schema: Selector,
    /// The table.
    pub table: Selector,
    /// Conditions that must all be true.
    pub filter: Vec<Condition>,
    /// The requested columns besides the primary key; `None` means all.
    pub select: Option<Vec<String>>,
}

impl SubscriptionRequest {
    /// Parses one element of the join payload's `config.postgres_changes`.
    ///
    /// # Errors
    /// An error of protocol 6.3 that does not depend on the database.
    pub fn parse(params: &Value) -> Result<Self, SubscribeError> {
        let select = parse_select(params)?;
        let text = |key: &str| params.get(key).and_then(Value::as_str);
        let has = |key: &str| params.get(key).is_some();
        let (schema, table, filter) = match (text("schema"), text("table"), text("filter")) {
            (Some(schema), Some(table), Some(filter)) => (schema, table, filter),
            (Some(schema), Some(table), None) if !has("filter") => (schema, table, ""),
            (Some(schema), None, None) if !has("table") && !has("filter") => (schema, "*", ""),
            (None, Some(table), None) if !has("schema") && !has("filter") => ("public", table, ""),
            _ => return Err(SubscribeError::NoParams(inspect_params(params))),
        };
        let request = Self {
            event: EventSelector::from_params(params),
            schema: Selector::from_name(schema),
            table: Selector::from_name(table),
            filter: Condition::parse_all(filter)?,
            select,
        };
        if request.select.is_some() && request.exact_table().is_none() {
            return Err(SubscribeError::SelectWithWildcard);
        }
        Ok(request)
    }

    /// Returns the requested table, unless schema or table is `*`.
    pub fn exact_table(&self) -> Option<TableName> {
        match (&self.schema, &self.table) {
            (Selector::Exact(schema), Selector::Exact(table)) => {
                Some(TableName::new(schema, table))
            }
            _ => None,
        }
    }

    /// Returns whether changes of `table` are requested.
    pub fn accepts_table(&self, table: &TableName) -> bool {
        self.schema.accepts(&table.schema) && self.table.accepts(&table.name)
    }

    /// Returns the binding as error texts print it, without the outer brackets (protocol 6.3).
    pub fn describe(&self) -> String {
        let filters: Vec<_> = self
            .filter
            .iter()
            .map(|condition| {
                format!(
                    "{{{}, \"{}\", {}, {}}}",
                    inspect_text(&condition.column),
                    condition.operator.as_str(),
                    inspect_text(&condition.value),
                    condition.negated
                )
            })
            .collect();
        let select = match &self.select {
            None => "nil".to_owned(),
            Some(columns) => {
                let columns: Vec<_> = columns.iter().map(|name| inspect_text(name)).collect();
                format!("[{}]", columns.join(", "))
            }
        };
        format!(
            "event: {}, schema: {}, table: {}, filters: [{}], select: {select}",
            self.event.as_str(),
            self.schema.as_str(),
            self.table.as_str(),
            filters.join(", "),
        )
    }
}

/// Parses the list of selected columns. Elements that are not strings are ignored, and an empty
/// list means all columns.
fn parse_select(params: &Value) -> Result<Option<Vec<String>>, SubscribeError> {
    let names = match params.get("select") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(names)) => names,
        Some(_) => return Err(SubscribeError::Select),
    };
    let names: Vec<_> = names
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    Ok((!names.is_empty()).then_some(names))
}

/// Returns the parameters as Elixir's `inspect` prints them, or `<redacted>` if they contain a
/// token.
fn inspect_params(params: &Value) -> String {
    if params.get("user_token").is_some() || params.get("auth_token").is_some() {
        return "<redacted>".to_owned();
    }
    let mut text = String::new();
    inspect(params, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn accepted_combinations_are_parsed() {
        let cases = [
            (
                json!({"event": "insert", "schema": "public", "table": "t", "filter": "id=eq.1"}),
                "event: INSERT, schema: public, table: t, filters: [{\"id\", \"eq\", \"1\", false}], select: nil",
            ),
            (
                json!({"event": "*", "schema": "public"}),
                "event: *, schema: public, table: *, filters: [], select: nil",
            ),
            (
                json!({"table": "t"}),
                "event: *, schema: public, table: t, filters: [], select: nil",
            ),
            (
                json!({"event": "truncate", "schema": "*", "table": "*"}),
                "event: *, schema: *, table: *, filters: [], select: nil",
            ),
            (
                json!({"event": "Delete", "schema": "s", "table": "t", "select": ["a", 1, "b"]}),
                "event: DELETE, schema: s, table: t, filters: [], select: [\"a\", \"b\"]",
            ),
            (
                json!({"schema": "s", "table": "t", "select": []}),
                "event: *, schema: s, table: t, filters: [], select: nil",
            ),
            (
                json!({"schema": "s", "table": "t", "filter": "a=not.in.(1,2)"}),
                "event: *, schema: s, table: t, filters: [{\"a\", \"in\", \"{1,2}\", true}], select: nil",
            ),
        ];
        for (params, expected) in cases {
            let request = SubscriptionRequest::parse(&params);
            assert_eq!(
                request.map(|request| request.describe()),
                Ok(expected.to_owned()),
                "{params}"
            );
        }
    }

    #[test]
    fn refused_combinations_have_the_text_of_the_protocol() {
        let no_params = "No subscription params provided. Please provide at least a `schema` or \
                         `table` to subscribe to: ";
        let cases = [
            (
                json!({"event": "*"}),
                format!("{no_params}%{{\"event\" => \"*\"}}"),
            ),
            (
                json!({"schema": "s", "filter": "a=eq.1"}),
                format!("{no_params}%{{\"filter\" => \"a=eq.1\", \"schema\" => \"s\"}}"),
            ),
            (
                json!({"schema": "s", "table": "t", "filter": null}),
                format!(
                    "{no_params}%{{\"filter\" => nil, \"schema\" => \"s\", \"table\" => \"t\"}}"
                ),
            ),
            (
                json!({"user_token": "secret"}),
                format!("{no_params}<redacted>"),
            ),
            (
                json!({"schema": "s", "table": "t", "select": "a"}),
                "Error parsing `select` params: expected a list of column name strings, e.g. \
                 select: [\"col1\", \"col2\"]"
                    .to_owned(),
            ),
            (
                json!({"schema": "s", "table": "*", "select": ["a"]}),
                "Column selection is not supported for wildcard subscriptions. Provide an \
                 explicit schema and table name."
                    .to_owned(),
            ),
            (
                json!({"schema": "s", "table": "t", "filter": "nonsense"}),
                "Error parsing `filter` params: [\"nonsense\"]".to_owned(),
            ),
        ];
        for (params, expected) in cases {
            assert_eq!(
                SubscriptionRequest::parse(&params).map_err(|error| error.client_text()),
                Err(expected),
                "{params}"
            );
        }
    }

    #[test]
    fn later_refusals_have_the_text_of_the_protocol() {
        let params = "event: INSERT, schema: public, table: t, filters: [], select: nil".to_owned();
        assert_eq!(
            SubscribeError::NotPublished {
                params: params.clone()
            }
            .client_text(),
            "Unable to subscribe to changes with given parameters. Please check Realtime is \
             enabled for the given connect parameters: [event: INSERT, schema: public, table: t, \
             filters: [], select: nil]"
        );
        assert_eq!(
            SubscribeError::Invalid {
                params,
                sqlstate: "P0001".to_owned(),
                message: "invalid column for filter x".to_owned()
            }
            .client_text(),
            "Unable to subscribe to changes with given parameters. An exception happened so \
             please check your connect parameters: [event: INSERT, schema: public, table: t, \
             filters: [], select: nil]. Exception: ERROR P0001 (raise_exception) invalid column \
             for filter x"
        );
    }
}
