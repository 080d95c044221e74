//! A saved machine: a directory from which it can be restored any number of times.
//!
//! ```text
//! memory          the guest's memory, with holes; every restore maps it privately
//! state           the state of the devices
//! disk0.qcow2     writable disks as they were; every restore puts an overlay on them
//! console         what the machine had printed
//! snapshot.json   what it is (Manifest)
//! verified.json   when the files were last found to be what was saved
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use machinist_guest::Settled;
use serde::{Deserialize, Serialize};

use super::digest::{self, Stamp};
use super::error::SnapshotError;
use super::known::{Known, write_beside};
use super::lock::DirectoryLock;
use super::parts::Parts;
use crate::path_error::PathContext;
use crate::qemu::argv::{Drive, Format};
use crate::qemu::frozen::Frozen;

pub(crate) const MEMORY: &str = "memory";
pub(crate) const STATE: &str = "state";
pub(crate) const CONSOLE: &str = "console";
const MANIFEST: &str = "snapshot.json";
const VERIFIED: &str = "verified.json";

/// The version of this layout.
const FORMAT: u32 = 1;

/// The name of the file that is the writable disk with this number.
pub(crate) fn disk_name(number: usize) -> String {
    format!("disk{number}.qcow2")
}

/// What a saved machine says of itself, in `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the layout.
    pub format: u32,
    /// The machine, for people.
    pub machine: String,
    /// What it booted, for people.
    pub image: String,
    /// When it was saved, in seconds since 1970.
    pub created: u64,
    /// Whether the machine's own system had finished its start.
    pub system_ready: bool,
    /// What was stopped or looked at before the save.
    pub settled: Settled,
    /// Everything that went in.
    pub parts: Parts,
    /// The files, by name.
    pub files: BTreeMap<String, FileRecord>,
    /// Bytes on disk, of all files.
    pub usage: u64,
}

/// A file of a saved machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length in bytes, holes and all.
    pub size: u64,
    /// XXH3 over its contents.
    pub digest: String,
}

/// When the files were found to be what was saved.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verified {
    /// A power cut between two boots may take what was thought to be written.
    boot_id: String,
    files: BTreeMap<String, Stamp>,
}

/// A saved machine. While it or a clone of it lives, nobody removes it from its store.
#[derive(Debug, Clone)]
pub struct Saved {
    dir: PathBuf,
    manifest: Arc<Manifest>,
    lock: Option<Arc<DirectoryLock>>,
}

impl Saved {
    /// The one in the directory `dir`. Its files are not looked at: that is `Saved::verify`.
    ///
    /// # Errors
    /// There is none, or another version of machinist wrote it.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).path(&path)?;
        let damaged = |error: serde_json::Error| SnapshotError::Damaged {
            path: path.clone(),
            what: error.to_string(),
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            return Err(SnapshotError::Format {
                path: dir.to_owned(),
                found: format.map_or("none".into(), |format| format.to_string()),
                known: FORMAT.to_string(),
            });
        }
        let manifest = serde_json::from_value(value).map_err(damaged)?;
        Ok(Self {
            dir: dir.to_owned(),
            manifest: Arc::new(manifest),
            lock: None,
        })
    }

    pub(super) fn holding(mut self, lock: DirectoryLock) -> Self {
        self.lock = Some(Arc::new(lock));
        self
    }

    /// Seals what lies in `dir`: looks at all files, and writes down what they are.
    ///
    /// # Errors
    /// They cannot be read, or the disk is full.
    pub(crate) fn seal(dir: &Path, mut draft: Draft, boot_id: &str) -> Result<Self, SnapshotError> {
        let mut files = BTreeMap::new();
        let mut stamps = BTreeMap::new();
        let mut usage = 0;
        for entry in fs::read_dir(dir).path(dir)? {
            let entry = entry.path(dir)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type().path(&path)?.is_file() || name.ends_with(".json") {
                continue;
            }
            let file = File::open(&path).path(&path)?;
            // QEMU makes its files for everybody to read.
            let private = Permissions::from_mode(0o600);
            file.set_permissions(private).path(&path)?;
            let digest = match draft.digests.remove(&name) {
                Some(digest) => digest,
                None => digest::of_file(&file).path(&path)?,
            };
            let found = file.metadata().path(&path)?;
            usage += found.blocks() * 512;
            stamps.insert(name.clone(), Stamp::of(&found));
            let size = found.len();
            files.insert(name, FileRecord { size, digest });
        }
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let manifest = Manifest {
            format: FORMAT,
            machine: draft.machine,
            image: draft.image,
            created: created.map_or(0, |since| since.as_secs()),
            system_ready: draft.system_ready,
            settled: draft.settled,
            parts: draft.parts,
            files,
            usage,
        };
        let verified = Verified {
            boot_id: boot_id.to_owned(),
            files: stamps,
        };
        write_beside(&dir.join(VERIFIED), &verified)?;
        write_beside(&dir.join(MANIFEST), &manifest)?;
        Ok(Self {
            dir: dir.to_owned(),
            manifest: Arc::new(manifest),
            lock: None,
        })
    }

    /// Whether its directory is the one that it was found in.
    pub(super) fn is_still_there(&self) -> bool {
        let lock = self.lock.as_ref();
        lock.is_none_or(|lock| lock.is_still_at(&self.dir))
    }

    /// The same, moved to another directory.
    pub(super) fn moved(mut self, dir: PathBuf) -> Self {
        self.dir = dir;
        self
    }

    /// Whether the files are what was saved. They are read once in each boot of the host; after
    /// that it is enough that nobody has written to them.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn verify(&self, boot_id: &str) -> Result<(), SnapshotError> {
        let verified = Verified {
            boot_id: boot_id.to_owned(),
            files: self.stamps()?,
        };
        let place = self.dir.join(VERIFIED);
        let before = fs::read(&place)
            .ok()
            .and_then(|text| serde_json::from_slice::<Verified>(&text).ok());
        if before.as_ref() == Some(&verified) {
            return Ok(());
        }
        self.compare(&|path| {
            let file = File::open(path).path(path)?;
            Ok(digest::of_file(&file).path(path)?)
        })?;
        // Who may not write here reads all of it next time.
        drop(write_beside(&place, &verified));
        Ok(())
    }

    /// As [`Saved::verify`], for one beside which nothing can be noted.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn verify_by(&self, known: &Known) -> Result<(), SnapshotError> {
        self.stamps()?;
        self.compare(&|path| Ok(known.digest(path)?))
    }

    fn stamps(&self) -> Result<BTreeMap<String, Stamp>, SnapshotError> {
        let mut stamps = BTreeMap::new();
        for (name, record) in &self.manifest.files {
            let path = self.dir.join(name);
            let found = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(SnapshotError::Damaged {
                        path,
                        what: "it is missing".into(),
                    });
                }
                found => found.path(&path)?,
            };
            if found.len() != record.size {
                return Err(SnapshotError::Damaged {
                    path,
                    what: format!("it has {} bytes instead of {}", found.len(), record.size),
                });
            }
            stamps.insert(name.clone(), Stamp::of(&found));
        }
        Ok(stamps)
    }

    fn compare(
        &self,
        digest: &dyn Fn(&Path) -> Result<String, SnapshotError>,
    ) -> Result<(), SnapshotError> {
        for (name, record) in &self.manifest.files {
            let path = self.dir.join(name);
            if digest(&path)? != record.digest {
                return Err(SnapshotError::Damaged {
                    path,
                    what: "its contents are not what was saved".into(),
                });
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// The state of the devices.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// The writable disk with this number, if the machine has one.
    #[must_use]
    pub fn disk(&self, number: usize) -> Option<PathBuf> {
        let name = disk_name(number);
        let there = self.manifest.files.contains_key(&name);
        there.then(|| self.dir.join(name))
    }

    /// What a QEMU that goes on from it begins with.
    pub(crate) fn frozen(&self) -> Frozen {
        let files = self.manifest.files.keys();
        let disks = files.filter_map(|name| {
            Some(Drive {
                path: self.dir.join(name),
                format: Format::Qcow2,
                read_only: false,
                keep: false,
                serial: name.strip_suffix(".qcow2")?.to_owned(),
            })
        });
        Frozen {
            memory: self.memory(),
            state: self.state(),
            disks: disks.collect(),
            system_ready: self.manifest.system_ready,
            was: None,
        }
    }

    /// What the machine had printed on its console.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn console(&self) -> Result<Vec<u8>, SnapshotError> {
        let path = self.dir.join(CONSOLE);
        Ok(fs::read(&path).path(&path)?)
    }
}

/// What is known of a machine that is about to be sealed.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) machine: String,
    pub(crate) image: String,
    pub(crate) system_ready: bool,
    pub(crate) settled: Settled,
    pub(crate) parts: Parts,
    /// Of files, by name, that were hashed when they were written.
    pub(crate) digests: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn sealed(dir: &Path) -> Saved {
        fs::write(dir.join(STATE), "devices").unwrap();
        fs::write(dir.join(CONSOLE), "hello\n").unwrap();
        let memory = File::create(dir.join(MEMORY)).unwrap();
        memory.set_len(1 << 20).unwrap();
        memory.write_all_at(b"data", 300_000).unwrap();
        let draft = Draft {
            machine: "web".into(),
            image: "debian".into(),
            system_ready: true,
            settled: Settled::default(),
            parts: Parts::default(),
            digests: BTreeMap::new(),
        };
        Saved::seal(dir, draft, "this boot").unwrap()
    }

    #[test]
    fn it_is_found_as_it_was_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let saved = sealed(dir.path());
        let found = Saved::open(dir.path()).unwrap();
        assert_eq!(found.manifest(), saved.manifest());
        assert!(found.manifest().usage < 1 << 20);
        found.verify("this boot").unwrap();
        found.verify("another boot").unwrap();
        assert_eq!(found.console().unwrap(), b"hello\n");
        assert_eq!(found.disk(0), None);
    }

    #[test]
    fn damage_is_seen_and_named() {
        let damage = |spoil: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let saved = sealed(dir.path());
            spoil(dir.path());
            let error = saved.verify("this boot").unwrap_err().to_string();
            error.split(" is damaged: ").nth(1).unwrap().to_owned()
        };
        let open = |dir: &Path| {
            let mut options = File::options();
            options.write(true).open(dir.join(MEMORY)).unwrap()
        };
        assert_eq!(
            damage(&|dir| open(dir).set_len(5).unwrap()),
            "it has 5 bytes instead of 1048576"
        );
        assert_eq!(
            damage(&|dir| open(dir).write_all_at(b"x", 300_002).unwrap()),
            "its contents are not what was saved"
        );
        assert_eq!(
            damage(&|dir| fs::remove_file(dir.join(MEMORY)).unwrap()),
            "it is missing"
        );
    }

    #[test]
    fn what_another_version_wrote_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), r#"{"format": 99}"#).unwrap();
        let error = Saved::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("format 99"), "{error}");
    }
}
