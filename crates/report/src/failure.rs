//! A failure, in at most [`MAX_LINES`] lines.

use machinist_events::{CommandRecord, Failure, FailureKind, plain, plain_line};

use crate::paint::{BAD, FAINT, NAME, Paint, STRONG, cut, seconds};
use crate::state::Running;

/// The most lines that a failure takes on the terminal.
pub const MAX_LINES: usize = 40;

/// The most lines of consoles among them.
const CONSOLE_LINES: usize = 12;

/// Where to look, or what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// One or two words, such as `again`.
    pub label: String,
    /// A path or a command line.
    pub text: String,
}

/// What is told of a failure, line by line.
pub(crate) struct FailureReport<'a> {
    pub(crate) test: &'a str,
    pub(crate) seconds: f64,
    pub(crate) failure: &'a Failure,
    pub(crate) running: &'a Running,
    pub(crate) hints: &'a [Hint],
    pub(crate) paint: Paint,
    /// Columns of the terminal, 0 if it has no end.
    pub(crate) width: usize,
}

impl FailureReport<'_> {
    pub(crate) fn lines(&self) -> Vec<String> {
        let (before, also, hints) = (self.before(), self.also(), self.hints());
        // The more there is to tell, the less of the command's output.
        let fixed = before.len() + also.len() + hints.len();
        let command = |most| match &self.failure.command {
            Some(command) => self.command(command, most),
            None => Vec::new(),
        };
        let consoles = self.running.last_lines(CONSOLE_LINES).len().min(4) + 1;
        let command = [10, 6, 4]
            .into_iter()
            .map(command)
            .find(|command| fixed + command.len() + consoles <= MAX_LINES)
            .unwrap_or_else(|| command(4));
        let room = MAX_LINES.saturating_sub(fixed + command.len() + 1);
        let consoles = self.consoles(room.min(CONSOLE_LINES));
        let mut lines = [before, command, also, consoles].concat();
        lines.truncate(MAX_LINES - hints.len());
        lines.extend(hints);
        lines
    }

    fn before(&self) -> Vec<String> {
        let mut lines = self.head();
        lines.extend(self.frames());
        lines
    }

    fn head(&self) -> Vec<String> {
        let time = seconds(self.seconds);
        let title = format!("{} after {time}", self.test);
        let mut lines = vec![format!(
            "{} {}",
            self.paint.paint(BAD, "──"),
            self.paint.paint(STRONG, &plain_line(&title))
        )];
        if self.failure.kind == FailureKind::Machinery {
            let text = "the machinery failed, not what the test asks for:";
            lines.push(format!("   {}", self.paint.paint(BAD, text)));
        }
        lines.extend(self.block(&self.failure.message, 6, "   "));
        lines
    }

    /// The innermost frames, each with its line of source.
    fn frames(&self) -> Vec<String> {
        let skip = self.failure.frames.len().saturating_sub(3);
        let mut lines = Vec::new();
        for frame in &self.failure.frames[skip..] {
            let place = format!("{}:{}", plain_line(&frame.file), frame.line);
            let within = match frame.function.as_str() {
                "<module>" | "" => String::new(),
                function => format!(" in {}", plain_line(function)),
            };
            lines.push(format!("   {}{within}", self.paint.paint(NAME, &place)));
            lines.push(self.cut(&format!("       {}", plain_line(frame.source.trim()))));
        }
        lines
    }

    fn command(&self, command: &CommandRecord, most: usize) -> Vec<String> {
        let took = seconds(command.seconds);
        let status = match command.status {
            Some(status) => format!("exit status {status} after {took}"),
            None => format!("still running after {took}"),
        };
        let text = format!("{}$ {}", plain_line(&command.machine), command.command);
        let mut lines = self.block(&text, 2, "   ");
        lines.push(format!("       {}", self.paint.paint(STRONG, &status)));
        for (name, text) in [("stdout", &command.stdout), ("stderr", &command.stderr)] {
            if !text.trim().is_empty() {
                lines.push(format!("   {}", self.paint.paint(FAINT, name)));
                lines.extend(self.tail(text, most, "       "));
            }
        }
        lines
    }

    fn also(&self) -> Vec<String> {
        let also = &self.failure.also;
        let mut lines = Vec::new();
        if !also.is_empty() {
            lines.push(format!(
                "   {}",
                self.paint.paint(FAINT, "what else went wrong")
            ));
            let most = if also.len() > 6 { 5 } else { 6 };
            for text in also.iter().take(most) {
                lines.push(self.cut(&format!("       {}", plain_line(text))));
            }
            if also.len() > most {
                lines.push(format!("       and {} more", also.len() - most));
            }
        }
        lines
    }

    fn consoles(&self, room: usize) -> Vec<String> {
        let last = self.running.last_lines(room);
        if last.is_empty() {
            return Vec::new();
        }
        let width = last.iter().map(|line| line.machine.chars().count()).max();
        let width = width.unwrap_or(0);
        let title = "last lines of the machines, in seconds";
        let mut lines = vec![format!("   {}", self.paint.paint(FAINT, title))];
        for line in last {
            let name = format!("{:width$}", line.machine);
            let text = format!("{:>8.2} {name} {}", line.elapsed, line.text);
            lines.push(self.cut(&format!("   {text}")));
        }
        lines
    }

    /// Never cut: a command that is cut cannot be pasted.
    fn hints(&self) -> Vec<String> {
        let width = self
            .hints
            .iter()
            .map(|hint| hint.label.chars().count())
            .max();
        let width = width.unwrap_or(0);
        let mut lines = Vec::new();
        for hint in self.hints.iter().take(6) {
            let label = self.paint.paint(FAINT, &format!("{:width$}", hint.label));
            lines.push(format!("   {label}  {}", plain_line(&hint.text)));
        }
        lines
    }

    fn cut(&self, line: &str) -> String {
        cut(line, if self.width == 0 { 400 } else { self.width })
    }

    /// The first lines of a text.
    fn block(&self, text: &str, most: usize, indent: &str) -> Vec<String> {
        let text = plain(text);
        let all: Vec<&str> = text.trim_end().lines().collect();
        let mut lines = self.indented(&all[..all.len().min(most)], indent);
        if all.len() > most {
            lines.pop();
            lines.push(format!("{indent}… {} more lines", all.len() - most + 1));
        }
        lines
    }

    /// The last lines of a text.
    fn tail(&self, text: &str, most: usize, indent: &str) -> Vec<String> {
        let text = plain(text);
        let all: Vec<&str> = text.trim_end().lines().collect();
        self.indented(&all[all.len().saturating_sub(most)..], indent)
    }

    fn indented(&self, lines: &[&str], indent: &str) -> Vec<String> {
        let line = |line: &&str| self.cut(&format!("{indent}{}", plain_line(line)));
        lines.iter().map(line).collect()
    }
}
