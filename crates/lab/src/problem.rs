//! What is wrong with a lab file: all of it, each with its place.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use crate::source::Span;

/// One mistake in a lab file.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    label: Option<String>,
    span: Span,
    also: Option<(String, Span)>,
    help: Option<String>,
    path: String,
    source: Option<Arc<NamedSource<String>>>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>, span: Span) -> Self {
        Self {
            message: message.into(),
            label: None,
            span,
            also: None,
            help: None,
            path: String::new(),
            source: None,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    pub(crate) fn help_if_none(&mut self, help: &str) {
        self.help.get_or_insert_with(|| help.to_owned());
    }

    pub(crate) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// A second place that belongs to the mistake.
    pub(crate) fn also(mut self, label: impl Into<String>, span: Span) -> Self {
        self.also = Some((label.into(), span));
        self
    }

    /// What is wrong, one sentence without place or help.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where in the tree of keys, such as `machine.web.memory`; empty for the file as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bytes of the text that it is about.
    #[must_use]
    pub fn span(&self) -> std::ops::Range<usize> {
        self.span.clone()
    }

    /// How to mend it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Line and column of the place, both counted from 1, columns in characters.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        let Some(source) = &self.source else {
            return (1, 1);
        };
        let text = source.inner();
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = LabeledSpan::new_primary_with_span(self.label.clone(), self.span.clone());
        let also = self
            .also
            .iter()
            .map(|(label, span)| LabeledSpan::new_with_span(Some(label.clone()), span.clone()));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// All the mistakes of one lab file, in the order of the text. There is at least one.
#[derive(Debug, Clone)]
pub struct LabErrors {
    file: String,
    problems: Vec<Problem>,
}

impl LabErrors {
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        let source = Arc::new(NamedSource::new(file, text.to_owned()));
        problems.sort_by_key(|problem| problem.span.start);
        for problem in &mut problems {
            problem.source = Some(Arc::clone(&source));
            problem.span = clamp(&problem.span, text);
        }
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    /// The mistakes, in the order of the text.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// One line for each mistake, `FILE:LINE:COLUMN: MESSAGE`, its help on a line of its own:
    /// for where no source can be drawn.
    #[must_use]
    pub fn plain(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        for problem in &self.problems {
            let (line, column) = problem.position();
            let at = if problem.path.is_empty() {
                String::new()
            } else {
                format!(" ({})", problem.path)
            };
            // Writing to a String cannot fail.
            _ = writeln!(text, "{}:{line}:{column}: {problem}{at}", self.file);
            if let Some(help) = &problem.help {
                _ = writeln!(text, "  help: {}", help.replace('\n', "\n        "));
            }
        }
        text
    }
}

/// The same place, but within the text and never inside a character.
fn clamp(span: &Span, text: &str) -> Span {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

impl fmt::Display for LabErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "{}: one mistake", self.file),
            n => write!(f, "{}: {n} mistakes", self.file),
        }
    }
}

impl std::error::Error for LabErrors {}

impl Diagnostic for LabErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(
            self.problems
                .iter()
                .map(|problem| problem as &dyn Diagnostic),
        ))
    }
}
