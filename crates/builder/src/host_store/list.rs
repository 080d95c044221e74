//! The names of the host's paths that a machine's Nix has been told of, one on each line. It outlives
//! the machine, whose database says that they are there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::path_error::{At, PathError};
use crate::state::replace;

/// The list.
#[derive(Debug)]
pub(super) struct List(PathBuf);

impl List {
    /// The one at `path`, and what is on it.
    pub(super) fn open(path: PathBuf) -> Result<(Self, BTreeSet<String>), PathError> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.at("read", &path)?,
        };
        let names = text.lines().map(str::to_owned).collect();
        Ok((Self(path), names))
    }

    /// Writes it anew, and waits until it is on the disk.
    pub(super) fn write<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
    ) -> Result<(), PathError> {
        let text: String = names.map(|name| format!("{name}\n")).collect();
        replace(&self.0, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("host-store");
        let (list, names) = List::open(path.clone()).unwrap();
        assert_eq!(names, BTreeSet::new());
        let names = ["a".to_owned(), "b".to_owned()];
        list.write(names.iter()).unwrap();
        let (_, read) = List::open(path).unwrap();
        assert!(read.iter().eq(&names));
    }
}
