//! The terminal.

use std::fmt;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use machinist_events::{Level, Stream};

use super::Entry;
use crate::paint::{FAINT, GOOD, Paint};

const WRONG: Style = AnsiColor::Red.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// Writes lines as NixOS users know them.
pub(crate) struct Lines {
    log: Box<dyn Write + Send>,
    out: Box<dyn Write + Send>,
    paint: Paint,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("paint", &self.paint)
            .finish_non_exhaustive()
    }
}

impl Lines {
    pub(crate) fn new(
        log: Box<dyn Write + Send>,
        out: Box<dyn Write + Send>,
        colour: bool,
    ) -> Self {
        let paint = Paint { colour };
        Self { log, out, paint }
    }

    /// Writes what the entries say, in one go.
    pub(crate) fn tell(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = String::new();
        for entry in entries {
            match entry {
                Entry::Printed {
                    stream: Stream::Stdout,
                    text,
                } => {
                    writeln!(self.out, "{text}")?;
                    self.out.flush()?;
                }
                entry => {
                    if let Some(line) = self.line(entry) {
                        text.push_str(&line);
                        text.push('\n');
                    }
                }
            }
        }
        self.log.write_all(text.as_bytes())
    }

    fn line(&self, entry: &Entry) -> Option<String> {
        Some(match entry {
            Entry::Line {
                machine,
                text,
                level,
            } => {
                let text = of(machine.as_deref(), text);
                match level {
                    Level::Debug => self.paint.paint(FAINT, &text),
                    Level::Warning => self.paint.paint(WARNING, &text),
                    Level::Info | Level::Error => text,
                }
            }
            Entry::Serial { machine, text } => {
                self.paint.paint(FAINT, &format!("{machine} # {text}"))
            }
            Entry::Printed { text, .. } => text.clone(),
            Entry::Wrong { text } => {
                let mark = self.paint.paint(WRONG, "!!!");
                format!("{mark} {text}").trim_end().to_owned()
            }
            Entry::Open { machine, title, .. } => {
                of(machine.as_deref(), &self.paint.paint(GOOD, title))
            }
            Entry::Close {
                machine,
                title,
                seconds,
                ok,
                ..
            } => {
                if !ok {
                    return None;
                }
                of(machine.as_deref(), &finished(title, *seconds))
            }
        })
    }
}

/// Who it is of, and what.
fn of(machine: Option<&str>, text: &str) -> String {
    machine.map_or_else(|| text.to_owned(), |machine| format!("{machine}: {text}"))
}

/// What is said at the end of something.
pub(super) fn finished(title: &str, seconds: f64) -> String {
    format!("(finished: {title}, in {seconds:.2} seconds)")
}
