//! Warnings that come from deep inside the libraries, such as a switch that has stopped: nobody
//! there has a user to tell. They go to stderr.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::ui;

/// Shows them from now on.
pub fn show() {
    // Somebody who has set one already shows them.
    drop(tracing::subscriber::set_global_default(Warnings));
}

/// Takes our own crates' warnings and errors. Spans are nothing to it.
struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("machinist")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        ui::warning(line.text());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event says, and its details.
#[derive(Default)]
struct Line {
    message: String,
    details: Vec<String>,
}

impl Line {
    /// One line. What a guest has had its hands on may have control characters in it: they are
    /// shown, not sent to the terminal.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        if !self.details.is_empty() {
            // Writing to a string cannot fail.
            _ = write!(text, " ({})", self.details.join(", "));
        }
        let shown = |c: char| -> String {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                c.into()
            }
        };
        text.chars().map(shown).collect()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.details.push(format!("{}: {value:?}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what [`Warnings`] would print.
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            Warnings.enabled(metadata)
        }

        fn event(&self, event: &Event<'_>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().unwrap().push(line.text());
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            Warnings.new_span(span)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_warning_is_one_harmless_line() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Kept(Arc::clone(&lines)), || {
            let error = "no \u{1b}[2J\nroom";
            tracing::warn!(port = "web:eth1", %error, "dropped {} bytes", 7);
            tracing::info!("of no interest");
            tracing::error!(target: "another", "not ours");
        });
        assert_eq!(
            *lines.lock().unwrap(),
            ["dropped 7 bytes (port: web:eth1, error: no \\u{1b}[2J\\nroom)"]
        );
    }
}
