//! Everything that is printed: data to stdout, all else to stderr.
//!
//! Colours are left out where the stream is no terminal, or `NO_COLOR` asks for none (`anstream`).

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::error::{CliError, Kind};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// Why data could not be written, the first time.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// An error, if data has not been written: whoever stored it would believe that it is whole. A reader
/// that has gone away (`machinist list | head -1`) is no error of ours.
pub fn lost() -> Option<CliError> {
    let error = LOST.get()?;
    let error = io::Error::new(error.kind(), error.to_string());
    Some(CliError::new(Kind::Host, error).context("cannot write to standard output"))
}

fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first matters.
        drop(LOST.set(error));
    }
}

/// One line, or more, of data.
pub fn data(text: impl Display) {
    keep(writeln!(anstream::stdout(), "{text}"));
}

/// Data as it is, without a line end.
pub fn raw_data(bytes: &[u8]) {
    let mut stdout = io::stdout();
    keep(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// Data as JSON, indented.
pub fn json(value: &impl Serialize) {
    // Our own types have string keys: they are always JSON.
    if let Ok(text) = serde_json::to_string_pretty(value) {
        data(text);
    }
}

/// Data as one line of JSON.
pub fn json_line(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        data(text);
    }
}

/// A line about what is going on.
pub fn status(text: impl Display) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// A line that should not be overlooked.
pub fn warning(text: impl Display) {
    status(format_args!("{WARNING}warning:{WARNING:#} {text}"));
}

/// An error with its causes and hints, or a lab file's mistakes with the places underlined.
pub fn error(error: &CliError) {
    if let Some(errors) = error.lab_errors() {
        lab_errors(errors);
    } else {
        let mut chain = error.chain().into_iter();
        let first = chain.next().unwrap_or_default();
        status(format_args!(
            "{ERROR}{}:{ERROR:#} {first}",
            heading(error.kind())
        ));
        for cause in chain {
            status(format_args!("  because: {}", cause.replace('\n', "\n  ")));
        }
    }
    for hint in error.hints() {
        status(format_args!("{HINT}hint:{HINT:#} {hint}"));
    }
}

const fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Machinery => "error (machinery)",
        Kind::Usage
        | Kind::NothingSelected
        | Kind::Host
        | Kind::Lab
        | Kind::Test
        | Kind::NotRun
        | Kind::Interrupted => "error",
    }
}

/// The mistakes, each with its line of the file.
fn lab_errors(errors: &machinist_lab::LabErrors) {
    let theme = if anstream::stderr().current_choice() == anstream::ColorChoice::Never {
        miette::GraphicalTheme::none()
    } else {
        miette::GraphicalTheme::unicode()
    };
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    for problem in errors.problems() {
        let mut text = String::new();
        if handler.render_report(&mut text, problem).is_err() {
            text = errors.plain();
        }
        status(text.trim_end());
    }
    status(format_args!("{ERROR}error:{ERROR:#} {errors}"));
}

/// A word as it has to be typed into a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A number of things: `1 test`, `2 tests`.
pub fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}
