//! Holds a tree of values against the description, and tells everything that does not fit.

use super::{Keys, Shape, Syntax};
use crate::SyntaxError;
use crate::problem::Problem;
use crate::source::{Entry, Node, Value};
use crate::units::{check_duration, parse_duration};

/// Tells everything in `value` that does not fit `shape`. `path` is where the value stands, such
/// as `machine.web`.
pub(crate) fn check(value: &Value, shape: &Shape, path: &str, problems: &mut Vec<Problem>) {
    match (shape, &value.node) {
        (Shape::Text, Node::String(text)) if text.trim().is_empty() => {
            problems.push(Problem::new("this is empty", value.span.clone()).at(path));
        }
        (Shape::Text | Shape::AnyText, Node::String(_)) | (Shape::Bool, Node::Bool(_)) => {}
        (Shape::Syntax(syntax), Node::String(text)) => {
            let result = (syntax.check)(text);
            problems.extend(result.err().map(|error| refuse(error, value, path)));
        }
        (Shape::Choice(words), Node::String(text)) => {
            if !words.contains(&text.as_str()) {
                let help = near(text, words.iter().copied());
                let message = format!("`{text}` is not one of {}", list(words));
                problems.push(
                    Problem::new(message, value.span.clone())
                        .maybe_help(help)
                        .at(path),
                );
            }
        }
        (Shape::Integer(low, high), Node::Integer(number)) => {
            if !(low..=high).contains(&number) {
                let message = format!("{number} is not within {low} to {high}");
                problems.push(Problem::new(message, value.span.clone()).at(path));
            }
        }
        (Shape::Duration, Node::String(_) | Node::Integer(_) | Node::Float(_)) => {
            problems.extend(
                duration(value)
                    .err()
                    .map(|error| refuse(error, value, path)),
            );
        }
        (Shape::List(least, item_shape), Node::Array(items)) => {
            if items.len() < *least {
                problems.push(Problem::new("this list is empty", value.span.clone()).at(path));
            }
            for (index, item) in items.iter().enumerate() {
                check(item, item_shape, &format!("{path}[{index}]"), problems);
            }
        }
        (Shape::Map(syntax, item_shape), Node::Table(table)) => {
            for entry in &table.entries {
                check_map_entry(entry, syntax, item_shape, path, problems);
            }
        }
        (Shape::Table(keys), Node::Table(table)) => {
            check_keys(&table.entries, value, keys, path, problems);
        }
        (Shape::Either(shapes), _) if shapes.iter().any(|shape| takes(shape, &value.node)) => {
            let fitting = shapes.iter().find(|shape| takes(shape, &value.node));
            if let Some(shape) = fitting {
                check(value, shape, path, problems);
            }
        }
        _ => problems.push(wrong_type(value, shape, path)),
    }
}

/// The duration that a value is.
pub(crate) fn duration(value: &Value) -> Result<std::time::Duration, SyntaxError> {
    let seconds = match &value.node {
        Node::String(text) => return parse_duration(text),
        #[expect(
            clippy::cast_precision_loss,
            reason = "such a number is refused anyway"
        )]
        Node::Integer(seconds) => *seconds as f64,
        Node::Float(seconds) => *seconds,
        _ => 0.0,
    };
    let duration = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    check_duration(duration, &seconds.to_string())
}

fn refuse(error: SyntaxError, value: &Value, path: &str) -> Problem {
    Problem::new(error.to_string(), value.span.clone())
        .help(error.help())
        .at(path)
}

fn check_map_entry(
    entry: &Entry,
    syntax: &Syntax,
    shape: &Shape,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let path = join(path, &entry.key);
    if let Err(error) = (syntax.check)(&entry.key) {
        problems.push(
            Problem::new(error.to_string(), entry.key_span.clone())
                .help(error.help())
                .at(&path),
        );
    }
    check(&entry.value, shape, &path, problems);
}

fn check_keys(
    entries: &[Entry],
    value: &Value,
    keys: &'static Keys,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for entry in entries {
        let path = join(path, &entry.key);
        if let Some(key) = keys.key(&entry.key) {
            let before = problems.len();
            check(&entry.value, &key.shape, &path, problems);
            // Where nothing better is known, what the key means helps.
            for problem in &mut problems[before..] {
                problem.help_if_none(key.doc);
            }
        } else if keys.later.contains(&entry.key.as_str()) {
            let message = format!("`{}` is not in this version yet", entry.key);
            let help = "take it out: this version would not do what it says";
            problems.push(
                Problem::new(message, entry.key_span.clone())
                    .help(help)
                    .at(path),
            );
        } else {
            problems.push(unknown_key(entry, keys, path));
        }
    }
    for key in keys.keys.iter().filter(|key| key.required) {
        if !entries.iter().any(|entry| entry.key == key.name) {
            let message = format!("{} needs the key `{}`", keys.what, key.name);
            problems.push(
                Problem::new(message, value.span.clone())
                    .help(key.doc)
                    .at(path),
            );
        }
    }
}

fn unknown_key(entry: &Entry, keys: &Keys, path: String) -> Problem {
    let names: Vec<&str> = keys.keys.iter().map(|key| key.name).collect();
    let known = match names.len() {
        0 => format!("{} has no keys in this version", keys.what),
        _ => format!("{} has the keys {}", keys.what, list(&names)),
    };
    let near = near(&entry.key, names.iter().copied());
    let help = near.map_or_else(|| known.clone(), |near| format!("{near}\n{known}"));
    Problem::new(
        format!("unknown key `{}`", entry.key),
        entry.key_span.clone(),
    )
    .label(format!("{} has no such key", keys.what))
    .help(help)
    .at(path)
}

/// "did you mean", where one of `words` is near enough to be meant.
pub(crate) fn near<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<String> {
    let text = text.to_lowercase();
    words
        .map(|word| {
            // Two letters in the wrong order weigh little in a long word, but much in a short one.
            let swapped = strsim::osa_distance(&text, word) == 1 && word.len() > 2;
            let likeness = strsim::jaro_winkler(&text, word);
            (if swapped { likeness.max(0.9) } else { likeness }, word)
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// `` `a`, `b` ``.
pub(crate) fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn wrong_type(value: &Value, shape: &Shape, path: &str) -> Problem {
    let message = format!("expected {}, found {}", describe(shape), value.kind());
    let help = match (shape, &value.node) {
        (Shape::Syntax(syntax), Node::Integer(number)) if syntax.what == "a size" => {
            let unit = if *number < 64 { 'G' } else { 'M' };
            Some(format!("say the unit, such as \"{number}{unit}\""))
        }
        (Shape::List(..), Node::String(text)) => Some(format!("write [{text:?}]")),
        (Shape::Syntax(syntax), _) => Some(format!("such as {}", list(syntax.examples))),
        _ => None,
    };
    Problem::new(message, value.span.clone())
        .maybe_help(help)
        .at(path)
}

fn takes(shape: &Shape, node: &Node) -> bool {
    matches!(
        (shape, node),
        (
            Shape::Text | Shape::AnyText | Shape::Syntax(_) | Shape::Choice(_) | Shape::Duration,
            Node::String(_)
        ) | (Shape::Integer(..) | Shape::Duration, Node::Integer(_))
            | (Shape::Duration, Node::Float(_))
            | (Shape::Bool, Node::Bool(_))
            | (Shape::List(..), Node::Array(_))
            | (Shape::Map(..) | Shape::Table(_), Node::Table(_))
    )
}

fn describe(shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::AnyText => "a string".into(),
        Shape::Syntax(syntax) => format!("{} (a string)", syntax.what),
        Shape::Choice(words) => format!("one of {}", list(words)),
        Shape::Integer(low, high) => format!("a whole number from {low} to {high}"),
        Shape::Duration => "a duration such as \"30s\", or a number of seconds".into(),
        Shape::Bool => "true or false".into(),
        Shape::List(..) => "a list".into(),
        Shape::Map(..) | Shape::Table(_) => "a table".into(),
        Shape::Either(shapes) => {
            let shapes: Vec<String> = shapes.iter().map(describe).collect();
            shapes.join(" or ")
        }
    }
}
