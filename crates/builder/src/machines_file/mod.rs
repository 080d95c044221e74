//! The file that tells Nix of machines to build on, `/etc/nix/machines`, and the setting `builders`,
//! which has the same form: read as Nix 2.34 reads them.
//!
//! The format has no errors that stay small: one entry that Nix does not understand ends its build hook,
//! and with it every build of the host, even those that need no machine. So what is written there is
//! read here first, by the same rules; and what Nix takes without a word, though nobody can have meant
//! it, is found by [`lint()`].
//!
//! ```text
//! text -> lines -> cut at "#" -> entries at ";" -> "@FILE" is replaced by that file's entries
//! entry -> words at blanks:  URI systems key jobs speed features mandatory host-key
//! ```

mod expand;
mod lint;
mod machine;
mod number;
mod uri;
mod url;

pub use expand::{Entry, ExpandError, Expanded, Files, HostFiles, Place, expand};
pub use lint::{Lint, LintKind, lint};
pub use machine::{Machine, MachineError, Refusal};
pub use uri::{StoreUri, UriError};

/// What separates words, and what is trimmed: what C calls a blank, no more.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// What is wrong with a text of machines.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// An included file cannot be read.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An entry is no machine.
    #[error("{place}: {error}: {text}")]
    Entry {
        /// Where it stands.
        place: Place,
        /// The entry.
        text: String,
        /// What is wrong with it.
        #[source]
        error: MachineError,
    },
}

/// A machine, and where it was told of.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The machine.
    pub machine: Machine,
    /// Its entry.
    pub entry: Entry,
}

/// All machines of a text, in the order in which Nix looks at them.
///
/// # Errors
/// What would end Nix's build hook. The first such thing only, as Nix itself sees it.
pub fn parse(
    text: &str,
    origin: &str,
    host: &str,
    files: &dyn Files,
) -> Result<Vec<Listed>, MachinesError> {
    let expanded = expand(text, origin, files)?;
    let listed =
        expanded
            .entries
            .into_iter()
            .map(|entry| match Machine::parse(&entry.text, host) {
                Ok(machine) => Ok(Listed { machine, entry }),
                Err(error) => Err(MachinesError::Entry {
                    place: entry.place,
                    text: entry.text,
                    error,
                }),
            });
    listed.collect()
}

#[cfg(test)]
mod tests;
