//! JSON with places: `serde_json` tells none, but its raw values are slices of the text.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::value::{Entry, Node, Span, Table, Value};
use crate::problem::Problem;

/// Deeper than any lab file is; without a limit a text of brackets would exhaust the stack.
const DEPTH: usize = 64;

/// What could be read, and what could not. JSON's parser stops at the first mistake of syntax.
pub(crate) fn parse(text: &str) -> (Value, Vec<Problem>) {
    let empty = Value {
        span: 0..text.len(),
        node: Node::Table(Table::default()),
    };
    let raw: &RawValue = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let at = offset(text, error.line(), error.column());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            let problem = Problem::new(message, at..at).label("not JSON");
            return (empty, vec![problem]);
        }
    };
    let mut tree = Tree {
        text,
        problems: Vec::new(),
    };
    let root = tree.value(raw, DEPTH);
    (root, tree.problems)
}

/// The byte that line and column (both counted from 1) speak of.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// An object's keys and values, still as text.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Self)
    }
}

struct Tree<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl Tree<'_> {
    fn span(&self, raw: &RawValue) -> Span {
        // A raw value borrows from the text that was parsed.
        let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
        start..start + raw.get().len()
    }

    fn value(&mut self, raw: &RawValue, depth: usize) -> Value {
        let span = self.span(raw);
        let node = match raw.get().as_bytes().first() {
            _ if depth == 0 => {
                let problem = Problem::new("nested too deep", span.start..span.start);
                self.problems.push(problem);
                Node::Other("a value too deep inside others")
            }
            Some(b'{') => self.object(raw, depth),
            Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
                Ok(items) => Node::Array(
                    items
                        .iter()
                        .map(|item| self.value(item, depth - 1))
                        .collect(),
                ),
                Err(_) => Node::Other("a list"),
            },
            Some(b'"') => match serde_json::from_str(raw.get()) {
                Ok(text) => Node::String(text),
                Err(error) => {
                    let message = format!("not a string: {error}");
                    self.problems.push(Problem::new(message, span.clone()));
                    Node::String(String::new())
                }
            },
            Some(b't') => Node::Bool(true),
            Some(b'f') => Node::Bool(false),
            Some(b'n') => Node::Other("null"),
            _ => number(raw.get()),
        };
        Value { span, node }
    }

    fn object(&mut self, raw: &RawValue, depth: usize) -> Node {
        let Ok(Members(members)) = serde_json::from_str(raw.get()) else {
            return Node::Other("an object");
        };
        let mut table = Table::default();
        for (raw_key, raw_value) in members {
            let key_span = self.span(raw_key);
            let Ok(key) = serde_json::from_str::<String>(raw_key.get()) else {
                let problem = Problem::new("this key is not a string", key_span);
                self.problems.push(problem);
                continue;
            };
            if let Some(first) = table.entry(&key) {
                let problem = Problem::new(format!("the key `{key}` stands here twice"), key_span)
                    .also("first here", first.key_span.clone());
                self.problems.push(problem);
                continue;
            }
            let value = self.value(raw_value, depth - 1);
            table.entries.push(Entry {
                key,
                key_span,
                value,
            });
        }
        Node::Table(table)
    }
}

fn number(text: &str) -> Node {
    if let Ok(integer) = text.parse() {
        Node::Integer(integer)
    } else if text.contains(['.', 'e', 'E'])
        && let Ok(float) = text.parse()
    {
        Node::Float(float)
    } else {
        Node::Other("a number out of range")
    }
}
