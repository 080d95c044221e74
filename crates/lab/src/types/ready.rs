//! When a machine counts as ready.

use std::fmt;
use std::str::FromStr;

use crate::SyntaxError;
use crate::types::step::unit_name;

/// What must be true of a machine before a test begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ready {
    /// The agent answers.
    Agent,
    /// The machine's systemd says that its start has finished, with or without failed units.
    #[default]
    System,
    /// A unit is active.
    Unit(String),
    /// A shell command exits with 0; it is run again until it does.
    Command(String),
}

impl FromStr for Ready {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let help = "`agent`, `system`, `unit:NAME` or `command:SHELL`";
        let wrong = || SyntaxError::new(format!("`{text}` is nothing to wait for here"), help);
        match text.split_once(':') {
            None if text == "agent" => Ok(Self::Agent),
            None if text == "system" => Ok(Self::System),
            Some(("unit", name)) => unit_name(name).map(Self::Unit),
            Some(("command", command)) if !command.trim().is_empty() => {
                Ok(Self::Command(command.trim().to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::System => f.write_str("system"),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Command(command) => write!(f, "command:{command}"),
        }
    }
}
