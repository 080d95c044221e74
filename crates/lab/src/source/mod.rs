//! From text to one tree of values with their places, whatever the text is written in.

mod json;
mod toml;
mod value;

pub(crate) use json::parse as parse_json;
pub(crate) use toml::parse as parse_toml;
pub(crate) use value::{Entry, Node, Span, Value};
