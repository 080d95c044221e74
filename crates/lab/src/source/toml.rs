//! TOML, with every mistake of syntax that the parser can find in one pass.

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::value::{Entry, Node, Table, Value};
use crate::problem::Problem;

/// What could be read, and what could not.
pub(crate) fn parse(text: &str) -> (Value, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..text.len().min(1));
            Problem::new(error.message().to_lowercase(), span).label("not TOML")
        })
        .collect();
    let root = Value {
        span: table.span(),
        node: Node::Table(self::table(table.get_ref())),
    };
    (root, problems)
}

fn table(table: &DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            value: self::value(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Table { entries }
}

fn value(value: &Spanned<DeValue<'_>>) -> Value {
    let node = match value.get_ref() {
        DeValue::String(text) => Node::String(text.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or(Node::Other("a number out of range"), Node::Float),
        DeValue::Boolean(truth) => Node::Bool(*truth),
        DeValue::Datetime(_) => Node::Other("a date or time"),
        DeValue::Array(items) => Node::Array(items.iter().map(self::value).collect()),
        DeValue::Table(inner) => Node::Table(table(inner)),
    };
    Value {
        span: value.span(),
        node,
    }
}

fn integer(number: &DeInteger<'_>) -> Node {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or(Node::Other("a number out of range"), Node::Integer)
}
