//! Builders for JSON Schema 2020-12, which OpenAPI 3.1 uses unchanged.
//!
//! Objects in responses are closed: an undeclared field makes a response invalid. The tests
//! therefore detect a column that was added without documentation.

use serde_json::{Map, Value, json};

/// A JSON Schema.
pub type Schema = Value;

/// Returns the schema of any string.
pub fn text() -> Schema {
    json!({ "type": "string" })
}

/// Returns the schema of a string with at most this many code points.
pub fn text_up_to(most: u32) -> Schema {
    json!({ "type": "string", "maxLength": most })
}

/// Returns the schema of a string with at least one and at most this many code points.
pub fn text_of(most: u32) -> Schema {
    json!({ "type": "string", "minLength": 1, "maxLength": most })
}

/// Returns the schema of an id.
pub fn uuid() -> Schema {
    json!({ "type": "string", "format": "uuid" })
}

/// Returns the schema of a moment in RFC 3339 format.
pub fn moment() -> Schema {
    json!({ "type": "string", "format": "date-time" })
}

/// Returns the schema of a URL, which may be relative.
pub fn address() -> Schema {
    json!({ "type": "string", "format": "uri-reference" })
}

/// Returns the schema of a boolean.
pub fn flag() -> Schema {
    json!({ "type": "boolean" })
}

/// Returns the schema of any number.
pub fn number() -> Schema {
    json!({ "type": "number" })
}

/// Returns the schema of an integer that every JSON parser reads exactly.
pub fn integer() -> Schema {
    json!({ "type": "integer", "format": "int64", "minimum": -9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_991_i64 })
}

/// Returns the schema of any integer.
pub fn whole_number() -> Schema {
    json!({ "type": "integer" })
}

/// Returns the schema of a non-negative integer that every JSON parser reads exactly.
pub fn count() -> Schema {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": 9_007_199_254_740_991_i64 })
}

/// Returns the schema of an integer within these bounds.
pub fn between(least: i64, most: i64) -> Schema {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// Returns the schema of a string that is one of these.
pub fn one_of(texts: &[&str]) -> Schema {
    json!({ "type": "string", "enum": texts })
}

/// Returns the schema that accepts only this value.
pub fn constant(value: impl Into<Value>) -> Schema {
    json!({ "const": value.into() })
}

/// Returns the schema of an object with any content.
pub fn any_object() -> Schema {
    json!({ "type": "object" })
}

/// Returns the schema of a list of such items.
pub fn list(items: Schema) -> Schema {
    json!({ "type": "array", "items": items })
}

/// Returns the schema of a list with at most this many items.
pub fn list_up_to(most: u32, items: Schema) -> Schema {
    json!({ "type": "array", "maxItems": most, "items": items })
}

/// Returns the schema of an object whose keys are ids.
pub fn by_id(values: Schema) -> Schema {
    json!({ "type": "object", "propertyNames": { "format": "uuid" }, "additionalProperties": values })
}

/// Returns the schema of an object with exactly these fields, each given as name, schema and
/// description. The description may be empty.
pub fn object<const N: usize>(fields: [(&str, Schema, &str); N]) -> Schema {
    let names: Vec<&str> = fields.iter().map(|(name, ..)| *name).collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema, meaning)| ((*name).to_owned(), described(schema.clone(), meaning)))
        .collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

/// Adds fields to a schema that was built by [`object`].
pub fn extended<const N: usize>(base: Schema, fields: [(&str, Schema, &str); N]) -> Schema {
    let mut more = object(fields);
    if let (Some(properties), Some(base)) = (
        more["properties"].as_object_mut(),
        base["properties"].as_object(),
    ) {
        properties.extend(base.clone());
    }
    if let (Some(required), Some(base)) =
        (more["required"].as_array_mut(), base["required"].as_array())
    {
        required.splice(0..0, base.iter().cloned());
    }
    more
}

/// Makes these fields of a schema that was built by [`object`] optional.
pub fn with_optional(mut object: Schema, names: &[&str]) -> Schema {
    if let Some(required) = object["required"].as_array_mut() {
        required.retain(|name| !name.as_str().is_some_and(|name| names.contains(&name)));
    }
    object
}

/// Makes `schema` also accept null.
pub fn nullable(mut schema: Schema) -> Schema {
    if let Some(texts) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        texts.push(Value::Null);
    }
    match schema.get("type").cloned() {
        Some(kind @ Value::String(_)) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}

/// Returns a reference to a schema of the document.
pub fn named(name: &str) -> Schema {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Adds a description, unless `meaning` is empty.
pub fn described(mut schema: Schema, meaning: &str) -> Schema {
    if let Some(fields) = schema.as_object_mut().filter(|_| !meaning.is_empty()) {
        fields.insert("description".to_owned(), meaning.into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nullable_schema_also_accepts_null() {
        let cases = [
            (
                uuid(),
                json!({ "type": ["string", "null"], "format": "uuid" }),
            ),
            (
                one_of(&["a"]),
                json!({ "type": ["string", "null"], "enum": ["a", null] }),
            ),
            (
                named("Row"),
                json!({ "anyOf": [{ "$ref": "#/components/schemas/Row" }, { "type": "null" }] }),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(nullable(schema), expected);
        }
    }

    #[test]
    fn objects_are_closed_and_can_be_extended() {
        let base = object([("a", text(), ""), ("b", flag(), "Whether.")]);
        assert_eq!(base["additionalProperties"], false);
        assert_eq!(base["properties"]["b"]["description"], "Whether.");
        let more = with_optional(extended(base, [("c", text(), "")]), &["b"]);
        assert_eq!(more["required"], json!(["a", "c"]));
        assert_eq!(more["additionalProperties"], false);
        assert!(more["properties"]["b"].is_object());
    }
}
