//! What a check has to say.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Fine,
    /// It could not be looked at, for the reason that is told.
    Unknown,
    /// Something works, but not as it could; or it may fail.
    Warning,
    /// Something that was asked for does not work.
    Failure,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: two words with a dot between them.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub looked_at: String,
    /// What was found.
    pub found: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// What mends it: commands, or lines of a file.
    pub mend: Vec<String>,
    /// What [`Repair::apply`] would do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
}

/// Something that may be done without asking: it takes nothing away that somebody could miss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Takes rights to a file away from all but its owner.
    KeepToOwner(PathBuf),
    /// Takes the right to write to a directory away from those who are neither its owner nor of its group.
    NotForOthers(PathBuf),
    /// Removes a directory, if it is empty.
    RemoveEmpty(PathBuf),
}

impl Finding {
    fn new(id: &'static str, level: Level, looked_at: &str, found: impl Into<String>) -> Self {
        Self {
            id,
            level,
            looked_at: looked_at.to_owned(),
            found: found.into(),
            why: String::new(),
            mend: Vec::new(),
            repair: None,
        }
    }

    /// All is well.
    pub(crate) fn fine(id: &'static str, looked_at: &str, found: impl Into<String>) -> Self {
        Self::new(id, Level::Fine, looked_at, found)
    }

    /// It could not be looked at; `found` is the reason.
    pub(crate) fn unknown(id: &'static str, looked_at: &str, found: impl Into<String>) -> Self {
        Self::new(id, Level::Unknown, looked_at, found)
    }

    /// It may fail.
    pub(crate) fn warning(id: &'static str, looked_at: &str, found: impl Into<String>) -> Self {
        Self::new(id, Level::Warning, looked_at, found)
    }

    /// It does not work.
    pub(crate) fn failure(id: &'static str, looked_at: &str, found: impl Into<String>) -> Self {
        Self::new(id, Level::Failure, looked_at, found)
    }

    /// Says why it matters.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Says what mends it.
    pub(crate) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend.push(mend.into());
        self
    }

    /// Says what may be done about it without asking.
    pub(crate) fn repair(mut self, repair: Repair) -> Self {
        self.repair = Some(repair);
        self
    }
}

impl Repair {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// The file system refuses; or the directory is not empty.
    pub fn apply(&self) -> std::io::Result<String> {
        match self {
            Self::KeepToOwner(path) => {
                let mode = fs::metadata(path)?.permissions().mode() & 0o700;
                fs::set_permissions(path, Permissions::from_mode(mode))?;
                Ok(format!("chmod {mode:o} {}", path.display()))
            }
            Self::NotForOthers(path) => {
                let mode = fs::symlink_metadata(path)?.permissions().mode() & 0o7775;
                fs::set_permissions(path, Permissions::from_mode(mode))?;
                Ok(format!("chmod {mode:o} {}", path.display()))
            }
            Self::RemoveEmpty(path) => {
                fs::remove_dir(path)?;
                Ok(format!("rmdir {}", path.display()))
            }
        }
    }
}

/// The worst of all findings: what the exit code tells. What is unknown is not bad.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    let levels = findings.iter().map(|finding| finding.level);
    let bad = levels.filter(|level| *level >= Level::Warning);
    bad.max().unwrap_or(Level::Fine)
}
