//! The one description of the lab file: which keys there are, what they take, what they mean.
//!
//! The check of a file, the JSON schema, and the list of keys in the documentation all come from
//! here, so that they cannot say different things.

mod check;
mod lab;
mod schema;
mod syntaxes;

pub(crate) use check::{check, duration, list, near};
pub(crate) use lab::LAB;
pub(crate) use schema::schema;
pub(crate) use syntaxes::parse_mode;

use crate::SyntaxError;

/// What a value may be.
pub(crate) enum Shape {
    /// Any string with something in it.
    Text,
    /// Any string.
    AnyText,
    /// A string with a syntax of its own.
    Syntax(&'static Syntax),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A duration with units, or a number of seconds.
    Duration,
    /// True or false.
    Bool,
    /// A list with at least so many items.
    List(usize, &'static Self),
    /// A table with keys that the author chooses.
    Map(&'static Syntax, &'static Self),
    /// A table with keys of ours.
    Table(&'static Keys),
    /// Told apart by their types.
    Either(&'static [Self]),
}

/// A syntax for strings.
pub(crate) struct Syntax {
    /// What it is, with its article.
    pub(crate) what: &'static str,
    pub(crate) check: fn(&str) -> Result<(), SyntaxError>,
    pub(crate) examples: &'static [&'static str],
}

/// The keys of a table.
pub(crate) struct Keys {
    /// What has these keys, with its article.
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
    /// Keys of later versions: refused, but not as unknown.
    pub(crate) later: &'static [&'static str],
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
}

impl Keys {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
