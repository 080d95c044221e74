//! Errors with all their causes.

use std::error::Error;
use std::fmt::Write;

/// The whole chain of an error's causes, in one line.
pub(crate) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
