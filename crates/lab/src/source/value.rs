//! The tree that both TOML and JSON become.

/// A range of bytes in the text.
pub(crate) type Span = std::ops::Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub(crate) span: Span,
    pub(crate) node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Array(Vec<Value>),
    Table(Table),
    /// What no key takes: a date, `null`, a number beyond 64 bits. The word says which.
    Other(&'static str),
}

/// Key and value, in the order of the text where the format has one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Value,
}

impl Table {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }
}

impl Value {
    /// What it is, in words for a person.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.node {
            Node::String(_) => "a string",
            Node::Integer(_) => "an integer",
            Node::Float(_) => "a number",
            Node::Bool(_) => "true or false",
            Node::Array(_) => "a list",
            Node::Table(_) => "a table",
            Node::Other(word) => word,
        }
    }

    pub(crate) fn str(&self) -> Option<&str> {
        match &self.node {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match self.node {
            Node::Integer(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self.node {
            Node::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.node {
            Node::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The items of a list; of anything else, none.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.node {
            Node::Array(items) => items,
            _ => &[],
        }
    }

    /// The entries of a table; of anything else, none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.node {
            Node::Table(table) => &table.entries,
            _ => &[],
        }
    }

    /// What the value under `key` is, where this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.table()?.get(key)
    }
}
