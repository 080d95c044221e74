//! Nix's configuration as it lies in files: what is set, and who set it.
//!
//! Of a setting the last assignment counts, and files are included where they are named, so where a line
//! stands decides what is true. What a running daemon believes is what the files said when it started.

mod parse;
mod process;

use std::path::{Path, PathBuf};

pub use parse::NixConfError;
pub use process::{Daemon, Process, VARIABLES};

use crate::machines_file::{HostFiles, Place};

/// Where Nix's configuration is.
pub const DIRECTORY: &str = "/etc/nix";

/// What is put before the name of a setting to add to it.
const EXTRA: &str = "extra-";

/// One line that sets something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The setting, perhaps with `extra-` before it.
    pub name: String,
    /// Its words, with one blank between them.
    pub value: String,
    /// Where it stands.
    pub place: Place,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effective {
    /// All words.
    pub value: String,
    /// What set it: one line, and those that add to it.
    pub by: Vec<Place>,
}

/// The configuration that files give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NixConf {
    assignments: Vec<Assignment>,
    /// The files that it was read from, in order.
    pub files: Vec<PathBuf>,
    /// The files that are there and cannot be read, over which Nix passes in silence.
    pub unreadable: Vec<PathBuf>,
}

impl NixConf {
    /// Reads `nix.conf` of this directory, and what it includes. Where there is none, nothing is set.
    ///
    /// # Errors
    /// What would keep Nix from starting.
    pub fn read(directory: &Path, files: &HostFiles) -> Result<Self, NixConfError> {
        Self::read_file(&directory.join("nix.conf"), files)
    }

    /// Reads this file, and what it includes.
    ///
    /// # Errors
    /// What would keep Nix from starting.
    pub fn read_file(path: &Path, files: &HostFiles) -> Result<Self, NixConfError> {
        let mut conf = Self::default();
        parse::file(path, files, 0, &mut conf)?;
        Ok(conf)
    }

    /// Reads what a process of Nix's believes: `nix.conf` of this directory, and what its environment,
    /// its user's files and its arguments replace.
    ///
    /// # Errors
    /// What would keep Nix from starting.
    pub fn of(
        process: &Process,
        directory: &Path,
        files: &HostFiles,
    ) -> Result<Self, NixConfError> {
        let mut conf = Self {
            assignments: process.before_files(),
            ..Self::default()
        };
        parse::file(&directory.join("nix.conf"), files, 0, &mut conf)?;
        let own = process.read(files)?;
        conf.assignments.extend(own.assignments);
        conf.files.extend(own.files);
        conf.unreadable.extend(own.unreadable);
        Ok(conf)
    }

    /// All lines that set something, in order.
    #[must_use]
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// What a setting is set to. `extra-NAME` adds to what was set before it, and is lost where `NAME`
    /// is set after it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Effective> {
        let mut found: Option<Effective> = None;
        for assignment in &self.assignments {
            let place = assignment.place.clone();
            if assignment.name == name {
                found = Some(Effective {
                    value: assignment.value.clone(),
                    by: vec![place],
                });
            } else if is_extra(&assignment.name, name) {
                let sum = found.get_or_insert_default();
                if !sum.value.is_empty() && !assignment.value.is_empty() {
                    sum.value.push(' ');
                }
                sum.value += &assignment.value;
                sum.by.push(place);
            }
        }
        found
    }

    /// The lines `extra-NAME` that are lost, since `NAME` is set after them.
    #[must_use]
    pub fn lost(&self, name: &str) -> Vec<&Assignment> {
        let last = self.assignments.iter().rposition(|it| it.name == name);
        let before = &self.assignments[..last.unwrap_or(0)];
        before
            .iter()
            .filter(|it| is_extra(&it.name, name))
            .collect()
    }

    /// The words of a setting that is a list. `default` is what Nix has where nothing is set; that is
    /// what `extra-NAME` alone adds to.
    #[must_use]
    pub fn words(&self, name: &str, default: &[&str]) -> Vec<String> {
        let replaced = self.assignments.iter().any(|it| it.name == name);
        let mut words: Vec<String> = Vec::new();
        if !replaced {
            words.extend(default.iter().map(|&word| word.to_owned()));
        }
        let set = self.get(name).unwrap_or_default();
        words.extend(
            set.value
                .split(' ')
                .filter(|it| !it.is_empty())
                .map(str::to_owned),
        );
        words
    }

    /// A setting that is true or false. None where it is not set, or to something else.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)?.value.as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        }
    }

    /// The text of machines that Nix builds on, and what set it; none where it is what Nix has by itself,
    /// the file `machines` beside `nix.conf`.
    #[must_use]
    pub fn builders(&self, directory: &Path) -> (String, Option<Place>) {
        // Nothing can be added to it: `extra-builders` is no setting.
        let mut set = self.assignments.iter().filter(|it| it.name == "builders");
        match set.next_back() {
            Some(last) => (last.value.clone(), Some(last.place.clone())),
            None => (format!("@{}", directory.join("machines").display()), None),
        }
    }
}

fn is_extra(assigned: &str, name: &str) -> bool {
    assigned.strip_prefix(EXTRA) == Some(name)
}

#[cfg(test)]
mod tests;
