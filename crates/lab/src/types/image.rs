//! Images: where a machine's root file system comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::SyntaxError;

/// Where a root file system comes from, before anything is added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Made from a Debian suite's packages.
    Debian {
        /// Such as `bookworm`.
        suite: String,
    },
    /// This host's own root, never written to.
    Host,
    /// A directory that holds a root file system.
    Dir(PathBuf),
    /// A tar archive of one, maybe compressed.
    Tar(PathBuf),
}

const HELP: &str = "sources are `debian:SUITE`, `host`, `dir:PATH` and `tar:PATH`";

impl Source {
    /// Whether `text` is written as a source, and not as the name of an image.
    pub(crate) fn looks_like(text: &str) -> bool {
        text == "host" || text.contains(':')
    }
}

impl FromStr for Source {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let wrong = |help: &str| Err(SyntaxError::new(format!("`{text}` is no source"), help));
        if text == "host" {
            return Ok(Self::Host);
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return wrong(HELP);
        };
        let suite = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        match scheme {
            "dir" | "tar" if rest.is_empty() => wrong("the path is missing"),
            "dir" => Ok(Self::Dir(rest.into())),
            "tar" => Ok(Self::Tar(rest.into())),
            "debian"
                if rest.starts_with(|c: char| c.is_ascii_lowercase())
                    && rest.chars().all(suite) =>
            {
                Ok(Self::Debian { suite: rest.into() })
            }
            "debian" => wrong("name a suite: `debian:bookworm`"),
            "nixos" => Err(SyntaxError::new(
                "`nixos:` images are not in this version yet",
                HELP,
            )),
            _ => wrong(HELP),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite } => write!(f, "debian:{suite}"),
            Self::Host => f.write_str("host"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
        }
    }
}

/// A file that an image gets besides what its source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedFile {
    /// What is in it.
    pub contents: FileContents,
    /// Permission bits; for a file of the host without any given, those of that file, else 0644.
    pub mode: Option<u32>,
}

/// Where the contents of an added file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContents {
    /// In the lab file itself.
    Text(String),
    /// In a file of the host; a relative path is relative to the lab file.
    Host(PathBuf),
}

/// A source and all that is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As the lab names it, for people: `app`, or `debian:bookworm`.
    pub name: String,
    /// Where it begins.
    pub source: Source,
    /// Packages to add, sorted, each once. Only for Debian.
    pub packages: Vec<String>,
    /// Files to add, by their absolute paths in the image.
    pub files: BTreeMap<String, AddedFile>,
}
