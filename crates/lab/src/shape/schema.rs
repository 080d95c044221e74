//! The JSON schema, for editors.

use serde_json::{Map, Value, json};

use super::{Keys, LAB, Shape};

/// The schema of the lab file, draft 2020-12.
pub(crate) fn schema() -> Value {
    let mut schema = table(&LAB);
    if let Some(map) = schema.as_object_mut() {
        let draft = "https://json-schema.org/draft/2020-12/schema";
        map.insert("$schema".into(), draft.into());
        map.insert("title".into(), "machinist lab file".into());
    }
    schema
}

fn table(keys: &Keys) -> Value {
    let mut properties = Map::new();
    for key in keys.keys {
        let mut schema = of(&key.shape);
        if let Some(map) = schema.as_object_mut() {
            map.insert("description".into(), key.doc.into());
        }
        properties.insert(key.name.into(), schema);
    }
    let required: Vec<&str> = (keys.keys.iter())
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::AnyText => json!({ "type": "string" }),
        Shape::Syntax(syntax) => json!({ "type": "string", "examples": syntax.examples }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Shape::Duration => json!({ "type": ["string", "number"], "examples": ["30s", "5m", 30] }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::List(least, item) => {
            json!({ "type": "array", "items": of(item), "minItems": least })
        }
        Shape::Map(_, item) => json!({ "type": "object", "additionalProperties": of(item) }),
        Shape::Table(keys) => table(keys),
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() })
        }
    }
}
