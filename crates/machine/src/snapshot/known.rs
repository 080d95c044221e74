//! What was found out about files, kept as long as they are the same.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_64;

use super::digest::{self, Stamp};
use crate::path_error::{PathContext, PathError};

/// What is known of one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    path: PathBuf,
    stamp: Stamp,
    text: String,
}

/// What was found out about files. One file for each note, so that processes do not get in each
/// other's way.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where it is kept; nowhere, where that cannot be written.
    dir: Option<PathBuf>,
    notes: Mutex<HashMap<(PathBuf, &'static str), Note>>,
}

impl Known {
    pub(crate) fn in_directory(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            notes: Mutex::default(),
        }
    }

    /// The hash of a file's contents.
    pub(crate) fn digest(&self, path: &Path) -> Result<String, PathError> {
        self.note(path, "digest", &|file| digest::of_file(file))
    }

    /// What `find` finds out about the file, or found out when the file was the same. While it
    /// does, others who ask wait: they would ask the same.
    pub(crate) fn note(
        &self,
        path: &Path,
        what: &'static str,
        find: &dyn Fn(&File) -> io::Result<String>,
    ) -> Result<String, PathError> {
        let file = File::open(path).path(path)?;
        let stamp = Stamp::of(&file.metadata().path(path)?);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |note: &Note| note.path == path && note.stamp == stamp;
        let place = self.dir.as_ref().map(|dir| dir.join(name(path, what)));
        let key = (path.to_owned(), what);
        let known = notes.get(&key).filter(|note| same(note)).cloned();
        let known = known.or_else(|| {
            let text = fs::read(place.as_ref()?).ok()?;
            serde_json::from_slice(&text).ok().filter(same)
        });
        let note = match known {
            Some(note) => note,
            None => {
                let note = Note {
                    path: path.to_owned(),
                    text: find(&file).path(path)?,
                    stamp,
                };
                if let Some(place) = &place {
                    // Who cannot remember finds it out again.
                    drop(write_beside(place, &note));
                }
                note
            }
        };
        let text = note.text.clone();
        notes.insert(key, note);
        Ok(text)
    }
}

fn name(path: &Path, what: &str) -> String {
    let hash = xxhash3_64::Hasher::oneshot(path.as_os_str().as_encoded_bytes());
    format!("{hash:016x}.{what}")
}

/// Writes a value as JSON beside `path` and renames it: readers see the old file or the new one.
pub(crate) fn write_beside<T: Serialize>(path: &Path, value: &T) -> Result<(), PathError> {
    use std::io::Write;
    let text = serde_json::to_vec_pretty(value)
        .map_err(io::Error::from)
        .path(path)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    // Mode 0600, and a name that nobody else has; gone again where the rest fails.
    let mut beside = tempfile::NamedTempFile::new_in(parent).path(parent)?;
    beside.write_all(&text).path(path)?;
    beside
        .persist(path)
        .map_err(|error| error.error)
        .path(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_file_is_read_again_only_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let asked = AtomicU32::new(0);
        let ask = |known: &Known| {
            let find = |_: &File| {
                asked.fetch_add(1, Ordering::Relaxed);
                fs::read_to_string(&path)
            };
            known.note(&path, "text", &find).unwrap()
        };
        let kept = || Known::in_directory(Some(dir.path().to_owned()));
        let first = kept();
        assert_eq!((ask(&first), ask(&first)), ("one".into(), "one".into()));
        assert_eq!(ask(&kept()), "one");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        fs::write(&path, "other").unwrap();
        assert_eq!(ask(&first), "other");
        assert_eq!(ask(&Known::default()), "other");
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}
