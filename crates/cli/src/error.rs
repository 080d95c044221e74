//! What the user is told when a verb cannot go on: whose fault it is, why, and what may help.

use std::error::Error;
use std::fmt;

use machinist_lab::LabErrors;
use machinist_session::protocol::{Fault, FaultKind};
use machinist_session::{ClientError, EngineError, SessionError};

use crate::exit::Exit;

/// What helps where machines need more memory than they may have.
pub const MEMORY_HINT: &str =
    "give machines less `memory`, or raise the budget with --memory-budget";

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line makes no sense here.
    Usage,
    /// Nothing was selected.
    NothingSelected,
    /// The host lacks something.
    Host,
    /// The lab file, or what it names, is wrong.
    Lab,
    /// What a test asked for did not come true.
    Test,
    /// The machinery failed.
    Machinery,
    /// `run` could not run the command.
    NotRun,
    /// The user ended it.
    Interrupted,
}

impl Kind {
    /// The exit code of each kind.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Usage => Exit::Usage,
            Self::NothingSelected => Exit::NothingSelected,
            Self::Host => Exit::Host,
            Self::Lab => Exit::Lab,
            Self::Test => Exit::TestFailed,
            Self::Machinery => Exit::Machinery,
            Self::NotRun => Exit::NotRun,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

/// An error as the user sees it.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    /// First what was tried, if that adds something; then the error and its sources.
    context: Option<String>,
    source: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
}

impl CliError {
    /// An error with its sources.
    pub fn new(kind: Kind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            context: None,
            source: source.into(),
            hints: Vec::new(),
        }
    }

    /// The command line makes no sense here.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message.to_string())
    }

    /// Nothing was selected.
    pub fn nothing_selected(message: impl fmt::Display) -> Self {
        Self::new(Kind::NothingSelected, message.to_string())
    }

    /// The host lacks something.
    pub fn host(message: impl fmt::Display) -> Self {
        Self::new(Kind::Host, message.to_string())
    }

    /// The machinery failed.
    pub fn machinery(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Kind::Machinery, source)
    }

    /// Says what was tried.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Adds something that the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same error, as one of another kind.
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Whose fault it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How the program ends.
    pub const fn exit(&self) -> Exit {
        self.kind.exit()
    }

    /// The mistakes of a lab file, where that is what it is about.
    pub fn lab_errors(&self) -> Option<&LabErrors> {
        self.source.downcast_ref()
    }

    /// The message and its causes, outermost first.
    pub fn chain(&self) -> Vec<String> {
        let mut chain: Vec<String> = self.context.clone().into_iter().collect();
        let mut next: Option<&dyn Error> = Some(self.source.as_ref());
        while let Some(error) = next {
            let text = error.to_string();
            // A transparent error says the same as its source.
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            next = error.source();
        }
        chain
    }

    /// What the user can do.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl From<LabErrors> for CliError {
    fn from(errors: LabErrors) -> Self {
        Self::new(Kind::Lab, errors)
    }
}

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        let kind = match fault.kind {
            FaultKind::Test => Kind::Test,
            FaultKind::Machinery => Kind::Machinery,
            FaultKind::Usage => Kind::Usage,
            FaultKind::Cancelled => Kind::Interrupted,
        };
        Self::new(kind, fault)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Fault(fault) => fault.into(),
            other => Self::machinery(other),
        }
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        Self::machinery(error)
    }
}

impl From<SessionError> for CliError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Memory(_) => Self::new(Kind::Host, error).hint(MEMORY_HINT),
            other => Self::machinery(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /x")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once_each() {
        let error = CliError::machinery(Outer(std::io::Error::other("it is on fire")));
        assert_eq!(error.chain(), ["cannot read /x", "it is on fire"]);
        assert_eq!(error.exit().code(), 105);
    }

    #[test]
    fn a_fault_keeps_its_kind() {
        let kind = |fault: Fault| CliError::from(fault).kind();
        assert_eq!(kind(Fault::test("x")), Kind::Test);
        assert_eq!(kind(Fault::usage("x")), Kind::Usage);
        assert_eq!(kind(Fault::cancelled()), Kind::Interrupted);
    }
}
