//! Describes what a route accepts and returns. The description is registered with the route and
//! rendered into the document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::schema::{self, Schema};
use crate::error_code::ErrorCode;
use crate::http::error::{status, text};

/// A path or query parameter, a request header, or a body field.
#[derive(Clone, Debug)]
pub struct Input {
    name: &'static str,
    schema: Schema,
    meaning: String,
    synonyms: &'static [&'static str],
    is_required: bool,
    is_legacy: bool,
}

/// Returns an optional input.
pub fn input(name: &'static str, schema: Schema, meaning: impl Into<String>) -> Input {
    Input {
        name,
        schema,
        meaning: meaning.into(),
        synonyms: &[],
        is_required: false,
        is_legacy: false,
    }
}

/// Returns the parameter for the page size, with its default.
pub fn limit(default: i32) -> Input {
    input(
        "limit",
        json!({ "type": "integer", "default": default }),
        "Rows per page. A number out of range is clamped.",
    )
}

impl Input {
    /// Makes the input required.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Adds other accepted names. Names in camel case need not be listed.
    #[must_use]
    pub fn or(mut self, synonyms: &'static [&'static str]) -> Self {
        self.synonyms = synonyms;
        self
    }

    /// Marks the input as supported only for existing clients. New clients have a better
    /// alternative.
    #[must_use]
    pub fn legacy(mut self) -> Self {
        self.is_legacy = true;
        self
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.name].into_iter().chain(self.synonyms.iter().copied())
    }

    /// Renders the input as OpenAPI parameters, one per name.
    fn parameters(&self, place: &str) -> Vec<Value> {
        let one = |name: &str| {
            let mut parameter = json!({
                "name": name,
                "in": place,
                "schema": self.schema,
                "description": self.meaning_of(name),
            });
            if self.is_required && self.synonyms.is_empty() {
                parameter["required"] = true.into();
            }
            if self.is_legacy {
                parameter["deprecated"] = true.into();
            }
            parameter
        };
        self.names().map(one).collect()
    }

    fn meaning_of(&self, name: &str) -> String {
        if name == self.name {
            self.meaning.clone()
        } else {
            format!("The same as `{}`, which takes precedence.", self.name)
        }
    }
}

/// The names that a route documents. In builds for development and tests, every request carries
/// these names, and a handler that reads another name fails an assertion.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The operation id, for the failure message.
    pub operation: &'static str,
    /// The documented query parameters.
    pub parameters: Arc<BTreeSet<&'static str>>,
    /// The documented body fields.
    pub fields: Arc<BTreeSet<&'static str>>,
}

/// The documentation of one route.
#[derive(Clone, Debug)]
pub struct Operation {
    id: &'static str,
    summary: &'static str,
    details: String,
    tag: &'static str,
    security: Value,
    path: Vec<Input>,
    query: Vec<Input>,
    headers: Vec<Input>,
    fields: Vec<Input>,
    /// Groups of fields. At least one field of each group is required.
    needed: Vec<&'static [&'static str]>,
    bodies: Vec<(&'static str, Option<Schema>)>,
    is_body_required: bool,
    answers: BTreeMap<u16, Value>,
    refusals: BTreeMap<u16, Vec<ErrorCode>>,
    is_conditional: bool,
    /// Whether writes accept an `Idempotency-Key`.
    is_keyed: bool,
}

impl Operation {
    /// Describes a chat route that users call. It requires a token and has the parameter, the
    /// headers and the refusals that all such routes share. `id` is the handler's name.
    pub fn of_caller(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        let mut operation = Self::bare(id, tag, summary);
        operation.security = json!([{ "bearer": [] }, { "cookie": [] }]);
        operation.is_conditional = true;
        operation.is_keyed = true;
        operation
            .query(input(
                "current_user_id",
                schema::uuid(),
                "Optional, for clients that always name their caller. Must be the token's subject.",
            ))
            .refuses(&[
                ErrorCode::MalformedRequest,
                ErrorCode::Unauthorized,
                ErrorCode::TokenExpired,
                ErrorCode::Forbidden,
                ErrorCode::AnonymousNotAllowed,
                ErrorCode::MfaRequired,
                ErrorCode::IdentityMismatch,
                ErrorCode::ValidationFailed,
                ErrorCode::RateLimited,
                ErrorCode::Internal,
                ErrorCode::PoolExhausted,
                ErrorCode::RowLocked,
                ErrorCode::DatabaseUnavailable,
                ErrorCode::KeysUnavailable,
            ])
    }

    /// Describes a route without any defaults.
    pub fn bare(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            details: String::new(),
            tag,
            security: json!([]),
            path: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            fields: Vec::new(),
            needed: Vec::new(),
            bodies: Vec::new(),
            is_body_required: false,
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
            is_conditional: false,
            is_keyed: false,
        }
    }

    /// Sets a text that supplements the summary.
    #[must_use]
    pub fn details(mut self, text: impl Into<String>) -> Self {
        self.details = text.into();
        self
    }

    /// Documents the same handler under another method or path, with a separate id and a reference
    /// to the original.
    #[must_use]
    pub fn repeated(mut self, id: &'static str, original: &str) -> Self {
        self.id = id;
        self.details = format!("The same as `{original}`. {}", self.details);
        self
    }

    /// Sets the security schemes. Any one of them grants access.
    #[must_use]
    pub fn secured_by(mut self, schemes: &[&str]) -> Self {
        let schemes = schemes.iter().map(|scheme| json!({ *scheme: [] }));
        self.security = schemes.collect();
        self
    }

    /// Marks the responses as cacheable. They have caching headers and a tag that is compared with
    /// `If-None-Match`.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.is_conditional = true;
        self
    }

    /// Marks a write that ignores `Idempotency-Key`.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.is_keyed = false;
        self
    }

    /// Documents a path parameter. By default, a path parameter is an id, and an invalid UUID
    /// results in 404.
    #[must_use]
    pub fn path(mut self, part: Input) -> Self {
        self.path.push(part);
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, parameter: Input) -> Self {
        self.query.push(parameter);
        self
    }

    /// Adds a request header.
    #[must_use]
    pub fn header(mut self, header: Input) -> Self {
        self.headers.push(header);
        self
    }

    /// Adds a JSON object as the body. All fields may be absent or null, unless
    /// [`Operation::needs`] requires them.
    #[must_use]
    pub fn body<const N: usize>(self, fields: [Input; N]) -> Self {
        self.body_of(&["application/json"], fields)
    }

    /// Like [`Operation::body`], for routes that are called by `navigator.sendBeacon`, which can
    /// only send text.
    #[must_use]
    pub fn beacon<const N: usize>(self, fields: [Input; N]) -> Self {
        self.body_of(&["application/json", "text/plain"], fields)
    }

    fn body_of<const N: usize>(mut self, media_types: &[&'static str], fields: [Input; N]) -> Self {
        self.bodies = media_types.iter().map(|kind| (*kind, None)).collect();
        self.fields.extend(fields);
        self.fields.push(input(
            "current_user_id",
            schema::uuid(),
            "Same as the parameter of that name.",
        ));
        self.refuses(&[
            ErrorCode::PayloadTooLarge,
            ErrorCode::UnsupportedMediaType,
            ErrorCode::ValidationFailed,
        ])
    }

    /// Adds a body of another media type.
    #[must_use]
    pub fn raw_body(mut self, media_type: &'static str, schema: Schema) -> Self {
        self.bodies.push((media_type, Some(schema)));
        self
    }

    /// Requires at least one of these fields to be present and not null.
    #[must_use]
    pub fn needs(mut self, names: &'static [&'static str]) -> Self {
        self.needed.push(names);
        self.is_body_required = true;
        self
    }

    /// Adds a JSON response.
    #[must_use]
    pub fn answers(self, status: u16, meaning: &str, schema: Schema) -> Self {
        self.answers_as(status, meaning, "application/json", schema)
    }

    /// Adds a response of another media type.
    #[must_use]
    pub fn answers_as(
        mut self,
        status: u16,
        meaning: &str,
        media_type: &str,
        schema: Schema,
    ) -> Self {
        let answer = json!({
            "description": meaning,
            "content": { media_type: { "schema": schema } },
        });
        self.answers.insert(status, answer);
        self
    }

    /// Adds a response without a body.
    #[must_use]
    pub fn answers_nothing(mut self, status: u16, meaning: &str) -> Self {
        self.answers
            .insert(status, json!({ "description": meaning }));
        self
    }

    /// Adds a response header. With `is_required`, it is always present.
    #[must_use]
    pub fn with_header(mut self, status: u16, name: &str, is_required: bool) -> Self {
        if let Some(answer) = self.answers.get_mut(&status) {
            answer["headers"][name] = header(name, is_required);
        }
        self
    }

    /// Adds a response with rows, in the two forms of every list: an array or, with `format=page`,
    /// an object with cursors.
    #[must_use]
    pub fn lists(self, meaning: &str, row: Schema) -> Self {
        let page = schema::object([
            ("data", schema::list(row.clone()), "The rows."),
            (
                "next_cursor",
                schema::nullable(schema::text()),
                "Cursor of the next page in the requested direction; null at the end.",
            ),
            (
                "prev_cursor",
                schema::nullable(schema::text()),
                "Cursor of the previous page.",
            ),
            ("has_more", schema::flag(), "Whether there is a next page."),
            (
                "rev",
                schema::nullable(schema::count()),
                "The newest revision that the page covers.",
            ),
            (
                "server_time",
                schema::moment(),
                "When the page was built. Not part of the entity tag.",
            ),
        ]);
        let rows = schema::described(schema::list(row), "Without `format`.");
        let page = schema::described(page, "With `format=page`.");
        self.query(input(
            "format",
            schema::text(),
            "`page` returns an object instead of a plain list.",
        ))
        .answers(200, meaning, json!({ "anyOf": [rows, page] }))
    }

    /// Like [`Operation::lists`], with the parameters and headers that all paginated routes have.
    /// `default` is the page size without `limit`, and `most` the maximum page size.
    #[must_use]
    pub fn pages(self, default: i32, most: i32, row: Schema) -> Self {
        self.query(limit(default))
        .append_details(&format!("A page has at most {most} rows."))
        .query(input(
            "cursor",
            schema::text(),
            "The `next_cursor`, `prev_cursor` or `X-Next-Cursor` of another page of the same list.",
        ))
        .lists("A page.", row)
        .with_header(200, "X-Next-Cursor", false)
        .with_header(200, "Link", false)
    }

    /// Adds another form of the response to those of [`Operation::lists`].
    #[must_use]
    pub fn or_answers(mut self, form: Schema) -> Self {
        let answer = self.answers.get_mut(&200);
        let forms = answer
            .map(|answer| &mut answer["content"]["application/json"]["schema"]["anyOf"])
            .and_then(Value::as_array_mut);
        if let Some(forms) = forms {
            forms.push(form);
        }
        self
    }

    /// Adds the parameter `offset` to those of [`Operation::pages`].
    #[must_use]
    pub fn offset(self) -> Self {
        let offset = schema::between(0, i32::MAX.into());
        self.query(
            input(
                "offset",
                offset,
                "Rows to skip. Unstable while rows are added; use cursors instead.",
            )
            .legacy(),
        )
    }

    /// Appends to the details.
    #[must_use]
    pub fn append_details(mut self, text: &str) -> Self {
        if !self.details.is_empty() {
            self.details.push(' ');
        }
        self.details.push_str(text);
        self
    }

    /// Adds refusals, each under the status of its code.
    #[must_use]
    pub fn refuses(mut self, codes: &[ErrorCode]) -> Self {
        for code in codes {
            self.refuse(status(*code), *code);
        }
        self
    }

    /// Adds a refusal under a status other than the usual one of its code.
    #[must_use]
    pub fn refuses_as(mut self, status: StatusCode, code: ErrorCode) -> Self {
        self.refuse(status, code);
        self
    }

    fn refuse(&mut self, status: StatusCode, code: ErrorCode) {
        let codes = self.refusals.entry(status.as_u16()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }

    /// Returns the names that the handler may read.
    pub(super) fn declared(&self) -> Declared {
        let names = |inputs: &[Input]| Arc::new(inputs.iter().flat_map(Input::names).collect());
        Declared {
            operation: self.id,
            parameters: names(&self.query),
            fields: names(&self.fields),
        }
    }

    /// Renders the OpenAPI operation object for this method and path. Refusals go into `responses`,
    /// which all operations of the document share.
    pub(super) fn object(
        mut self,
        verb: &str,
        path: &str,
        responses: &mut Map<String, Value>,
    ) -> Value {
        let mut parameters = self.path_parameters(path);
        for (place, inputs) in [("query", &self.query), ("header", &self.headers)] {
            parameters.extend(inputs.iter().flat_map(|input| input.parameters(place)));
        }
        if self.is_conditional && verb == "get" {
            parameters.push(json!({ "$ref": "#/components/parameters/If-None-Match" }));
            let mut known =
                json!({ "description": "The response with the given tag is still current." });
            if let Some(answer) = self.answers.get_mut(&200) {
                answer["headers"]["ETag"] = header("ETag", true);
                known["headers"] = answer["headers"].clone();
            }
            self.answers.insert(304, known);
        }
        if self.is_keyed && verb != "get" {
            self = self.with_idempotency_key();
            parameters.push(json!({ "$ref": "#/components/parameters/Idempotency-Key" }));
        }
        let mut answers = Map::new();
        for (status, mut answer) in std::mem::take(&mut self.answers) {
            self.common_headers(&mut answer);
            answers.insert(status.to_string(), answer);
        }
        for (status, codes) in &self.refusals {
            let name = shared_name(*status, codes, self.is_conditional);
            let mut refusal = refusal(*status, codes);
            self.common_headers(&mut refusal);
            responses.insert(name.clone(), refusal);
            answers.insert(
                status.to_string(),
                json!({ "$ref": format!("#/components/responses/{name}") }),
            );
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": [self.tag],
            "security": self.security,
            "parameters": parameters,
            "responses": answers,
        });
        if !self.details.is_empty() {
            operation["description"] = self.details.trim_end().into();
        }
        if !self.bodies.is_empty() {
            operation["requestBody"] = self.request_body();
        }
        operation
    }

    /// Adds the header and the refusals of every write with an optional `Idempotency-Key`.
    fn with_idempotency_key(mut self) -> Self {
        for answer in self.answers.values_mut() {
            answer["headers"]["Idempotency-Replayed"] = header("Idempotency-Replayed", false);
        }
        self.refuses(&[
            ErrorCode::IdempotencyInFlight,
            ErrorCode::IdempotencyKeyReused,
        ])
    }

    fn common_headers(&self, answer: &mut Value) {
        answer["headers"]["X-Request-Id"] = header("X-Request-Id", true);
        if self.is_conditional {
            answer["headers"]["Cache-Control"] = header("Cache-Control", true);
            answer["headers"]["Vary"] = header("Vary", true);
            for name in ["Limit", "Remaining", "Reset"] {
                let name = format!("X-RateLimit-{name}");
                answer["headers"][&name] = header(&name, false);
            }
        }
    }

    fn path_parameters(&self, path: &str) -> Vec<Value> {
        let names = path.split(['{', '}']).skip(1).step_by(2).map(str::to_owned);
        names
            .map(|name| {
                let given = self.path.iter().find(|input| input.name == name);
                let schema = given.map_or_else(schema::uuid, |input| input.schema.clone());
                let meaning = given.map_or_else(|| meaning_of_id(path, &name), |input| &input.meaning);
                json!({ "name": name, "in": "path", "required": true, "schema": schema, "description": meaning })
            })
            .collect()
    }

    fn request_body(&self) -> Value {
        let mut properties = Map::new();
        for field in &self.fields {
            for name in field.names() {
                let mut schema = schema::described(
                    schema::nullable(field.schema.clone()),
                    &field.meaning_of(name),
                );
                if field.is_legacy {
                    schema["deprecated"] = true.into();
                }
                properties.insert(name.to_owned(), schema);
            }
        }
        let mut object = json!({ "type": "object", "properties": properties });
        let needed: Vec<Value> = self
            .needed
            .iter()
            .map(|names| json!({ "anyOf": names.iter().map(|name| present(name)).collect::<Vec<_>>() }))
            .collect();
        if !needed.is_empty() {
            object["allOf"] = needed.into();
        }
        let content: Map<String, Value> = self
            .bodies
            .iter()
            .map(|(kind, schema)| {
                let schema = schema.as_ref().unwrap_or(&object);
                ((*kind).to_owned(), json!({ "schema": schema }))
            })
            .collect();
        json!({ "required": self.is_body_required, "content": content })
    }
}

/// Returns a schema that requires a field to be present and not null.
fn present(name: &str) -> Value {
    json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } })
}

fn meaning_of_id(path: &str, name: &str) -> &'static str {
    match name {
        "user_id" => "A user.",
        _ if path.contains("/conversations/") => "A conversation.",
        _ if path.contains("/messages/") => "A message.",
        _ => "",
    }
}

/// Returns a reference to the description of a response header, which the document contains once.
fn header(name: &str, is_required: bool) -> Value {
    let component = if is_required {
        name.to_owned()
    } else {
        format!("Optional-{name}")
    };
    json!({ "$ref": format!("#/components/headers/{component}") })
}

/// Returns the name of a refusal in the shared `responses`.
fn shared_name(status: u16, codes: &[ErrorCode], is_conditional: bool) -> String {
    let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let kind = if is_conditional { "" } else { "-plain" };
    format!("{status}-{}{kind}", codes.join("-or-"))
}

/// Returns the response with this status and one of these codes.
fn refusal(status: u16, codes: &[ErrorCode]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let texts: Vec<String> = codes
        .iter()
        .map(|code| format!("`{}`: {}.", code.as_str(), text(*code)))
        .collect();
    let mut answer = json!({
        "description": texts.join(" "),
        "content": { "application/json": { "schema": {
            "allOf": [schema::named("Error"), { "properties": { "code": { "enum": names } } }],
        } } },
    });
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        answer["headers"]["WWW-Authenticate"] = header("WWW-Authenticate", true);
    }
    if codes.contains(&ErrorCode::IdempotencyInFlight) {
        answer["headers"]["Retry-After"] = header("Retry-After", false);
    }
    let waits = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if waits.iter().any(|waits| waits.as_u16() == status) {
        answer["headers"]["Retry-After"] = header("Retry-After", true);
    }
    answer
}
