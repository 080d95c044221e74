//! From a text to its entries, with those of included files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::BLANKS;

/// So many files may include one another. Nix has no limit, and dies of a circle.
const DEEPEST: usize = 32;

/// What reads the files that a text includes.
pub trait Files {
    /// The contents of the file of this name, as the entry has it.
    ///
    /// # Errors
    /// As [`std::fs::read`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The files of this host, below a root for tests. Paths that are not absolute are taken from `/`, which
/// is where Nix's build hook is.
#[derive(Debug, Clone)]
pub struct HostFiles {
    root: PathBuf,
}

impl HostFiles {
    /// Below this directory instead of `/`.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file lies.
    #[must_use]
    pub fn find(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Default for HostFiles {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Files for HostFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.as_os_str().is_empty() {
            // Below a root this would be the root itself.
            return Err(io::ErrorKind::NotFound.into());
        }
        std::fs::read(self.find(path))
    }
}

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, or what else the text is called.
    pub origin: String,
    /// The line, from 1 on; 0 where there are none.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.origin),
            line => write!(f, "{}:{line}", self.origin),
        }
    }
}

/// What stands for one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without blanks at its ends.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// A text with what it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// The files that were read.
    pub read: Vec<PathBuf>,
    /// The files that are not there, which Nix passes over in silence.
    pub missing: Vec<(PathBuf, Place)>,
}

/// An included file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// It is there, but cannot be read: Nix stops.
    #[error("{place}: cannot read {}", path.display())]
    Read {
        /// Where it is included.
        place: Place,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Files include one another.
    #[error("{place}: {} includes itself, or too many files include one another", path.display())]
    Circle {
        /// Where it is included.
        place: Place,
        /// The file.
        path: PathBuf,
    },
}

/// The entries of a text. `origin` is what the text is called in messages.
///
/// # Errors
/// An included file is there and cannot be read.
pub fn expand(text: &str, origin: &str, files: &dyn Files) -> Result<Expanded, ExpandError> {
    let mut expanded = Expanded::default();
    add(text, origin, files, 0, &mut expanded)?;
    Ok(expanded)
}

fn add(
    text: &str,
    origin: &str,
    files: &dyn Files,
    depth: usize,
    expanded: &mut Expanded,
) -> Result<(), ExpandError> {
    for (number, line) in text.split('\n').enumerate() {
        let place = Place {
            origin: origin.to_owned(),
            line: number + 1,
        };
        // Everywhere, also within a URI.
        let line = line.split('#').next().unwrap_or_default();
        for entry in line.split(';') {
            let entry = entry.trim_matches(BLANKS);
            if let Some(path) = entry.strip_prefix('@') {
                let path = PathBuf::from(path.trim_matches(BLANKS));
                include(path, &place, files, depth, expanded)?;
            } else if !entry.is_empty() {
                expanded.entries.push(Entry {
                    text: entry.to_owned(),
                    place: place.clone(),
                });
            }
        }
    }
    Ok(())
}

fn include(
    path: PathBuf,
    place: &Place,
    files: &dyn Files,
    depth: usize,
    expanded: &mut Expanded,
) -> Result<(), ExpandError> {
    let place = place.clone();
    match files.read(&path) {
        Ok(_) if depth == DEEPEST => Err(ExpandError::Circle { place, path }),
        Ok(bytes) => {
            // What is no UTF-8 makes a URI wrong here as there, and elsewhere does no harm.
            let text = String::from_utf8_lossy(&bytes);
            let origin = path.display().to_string();
            expanded.read.push(path);
            add(&text, &origin, files, depth + 1, expanded)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            expanded.missing.push((path, place));
            Ok(())
        }
        Err(error) => Err(ExpandError::Read { place, path, error }),
    }
}
