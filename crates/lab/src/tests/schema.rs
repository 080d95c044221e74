use std::collections::BTreeSet;

use serde_json::Value;

use super::EVERYTHING;
use crate::shape::{Keys, LAB, Shape};

/// Every key of the description, as `machine.*.memory`.
fn described(keys: &Keys, path: &str, into: &mut BTreeSet<String>) {
    for key in keys.keys {
        let path = format!("{path}.{}", key.name);
        nested(&key.shape, &path, into);
        into.insert(path);
    }
}

fn nested(shape: &Shape, path: &str, into: &mut BTreeSet<String>) {
    match shape {
        Shape::Table(keys) => described(keys, path, into),
        Shape::Map(_, item) => nested(item, &format!("{path}.*"), into),
        Shape::List(_, item) => nested(item, path, into),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| nested(shape, path, into)),
        _ => {}
    }
}

fn in_schema(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        in_schema(schema, &path, into);
        into.insert(path);
    }
    if schema["additionalProperties"].is_object() {
        in_schema(&schema["additionalProperties"], &format!("{path}.*"), into);
    }
    in_schema_of_items(schema, path, into);
}

fn in_schema_of_items(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if schema["items"].is_object() {
        in_schema(&schema["items"], path, into);
    }
    for schema in schema["anyOf"].as_array().into_iter().flatten() {
        in_schema(schema, path, into);
    }
}

fn all() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    described(&LAB, "", &mut keys);
    keys
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let mut keys = BTreeSet::new();
    in_schema(&crate::json_schema(), "", &mut keys);
    assert_eq!(keys, all());
}

#[test]
fn every_key_is_accepted_by_the_reader() {
    for key in all() {
        let name = key.rsplit('.').next().unwrap();
        assert!(EVERYTHING.contains(name), "everything.toml lacks {key}");
    }
}

#[test]
fn every_key_is_in_the_documentation() {
    let docs = include_str!("../../../../docs/lab-file.md");
    for key in all() {
        let name = key.rsplit('.').next().unwrap();
        assert!(
            docs.contains(&format!("`{name}`")) || docs.contains(&format!("[{name}")),
            "{key}"
        );
    }
}
