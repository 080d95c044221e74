//! What a checkpoint of the lab makes of a container.

use std::fmt;
use std::str::FromStr;

use crate::SyntaxError;

/// What a checkpoint makes of a container, whose processes cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Checkpoint {
    /// No checkpoint is made of a lab with this machine.
    #[default]
    Refuse,
    /// Its files are saved; at a restore it starts afresh with them.
    Restart,
}

impl Checkpoint {
    /// The words of the lab file.
    pub(crate) const WORDS: &'static [&'static str] = &["refuse", "restart"];
}

impl FromStr for Checkpoint {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "restart" => Ok(Self::Restart),
            _ => Err(SyntaxError::new(
                format!("`{text}` is nothing that a checkpoint does"),
                "`refuse` or `restart`",
            )),
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Restart => "restart",
        })
    }
}
