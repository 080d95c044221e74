//! The cache: artefacts by content key, built once, complete or not there.
//!
//! ```text
//! format                  the version of this layout
//! images/KEY/             root/, and artefact.json in every artefact
//! disks/KEY/root.erofs
//! kernels/KEY/            vmlinuz, perhaps vmlinux, perhaps modules/ and modules.erofs
//! initrds/KEY/initrd.cpio
//! locks/KIND-KEY.build    held by who builds it
//! locks/KIND-KEY.use      held, shared, by who uses it; exclusively by who removes it
//! tmp/NAME/               a build in progress: a directory that its builder has locked
//! ```
//! The time of last use is the modification time of an artefact's directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use machinist_sys::owner::not_ours;
use serde::{Deserialize, Serialize};

use crate::catalogue::ArtefactKind;
use crate::error::{At, ImageError, PathError};
use crate::key::ImageId;
use crate::lock::FileLock;
use crate::progress::{Cancel, Job, Step};
use crate::{space, tree};

/// What the format file says. Another number means: remove the cache, it is only a cache.
const FORMAT: &str = "machinist image cache 1";

/// The file in every artefact that says what it is.
pub(crate) const RECORD: &str = "artefact.json";

/// Keeps artefacts in the cache: while it or a clone of it lives, nobody prunes them.
#[derive(Debug, Clone, Default)]
pub struct Held {
    locks: Vec<Arc<FileLock>>,
}

impl Held {
    /// Holds nothing, for an image that is in no cache.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Holds what `other` holds as well.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.locks.extend(other.locks.iter().cloned());
        self
    }
}

/// An artefact that is there, and stays.
#[derive(Debug, Clone)]
pub(crate) struct Artefact {
    pub(crate) path: PathBuf,
    pub(crate) held: Held,
}

impl Artefact {
    /// How long ago it was built. `None` where its record cannot be read, or tells of a time to come.
    pub(crate) fn age(&self) -> Option<Duration> {
        let text = fs::read(self.path.join(RECORD)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        record.created.elapsed().ok()
    }
}

/// What an artefact says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// For people.
    pub(crate) name: String,
    /// Bytes on disk.
    pub(crate) size: u64,
    /// When it was built.
    pub(crate) created: SystemTime,
}

/// How an artefact is made.
pub(crate) struct Plan<'a> {
    pub(crate) kind: ArtefactKind,
    pub(crate) key: &'a ImageId,
    /// For people.
    pub(crate) what: &'a str,
    /// Bytes without which it is not worth beginning.
    pub(crate) needs: u64,
    /// Whether steps are told. Small things are not worth a line.
    pub(crate) told: bool,
}

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
    /// Directories with artefacts that others made, laid out as this one, which are only read.
    sources: Vec<PathBuf>,
}

impl Cache {
    /// Opens or makes a cache, and removes what dead builders left. One that others may write to is
    /// refused: machines boot what is in it.
    pub(crate) fn open(dir: &Path) -> Result<Self, ImageError> {
        // Whatever the umask: nobody else may write there.
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(dir);
        made.at("create", dir)?;
        if let Some(why) = not_ours(dir).at("read", dir)? {
            return Err(why.into());
        }
        // One absolute path: it goes into mount options and command lines.
        let dir = fs::canonicalize(dir).at("find", dir)?;
        for kind in ArtefactKind::ALL {
            let path = dir.join(kind.directory());
            fs::create_dir_all(&path).at("create", &path)?;
        }
        for name in ["locks", "tmp"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let cache = Self {
            dir,
            sources: Vec::new(),
        };
        cache.check_format()?;
        cache.sweep()?;
        Ok(cache)
    }

    fn check_format(&self) -> Result<(), ImageError> {
        let path = self.dir.join("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == FORMAT => Ok(()),
            Ok(text) => Err(ImageError::Format {
                path: self.dir.clone(),
                found: text.trim().to_owned(),
                known: FORMAT,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // By a rename, so that another process never reads half of it.
                let fresh = self.dir.join(format!("tmp/format-{}", std::process::id()));
                fs::write(&fresh, format!("{FORMAT}\n")).at("write", &fresh)?;
                match fs::rename(&fresh, &path) {
                    // Another thread of ours has just moved it there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {
                        Ok(())
                    }
                    renamed => Ok(renamed.at("write", &path)?),
                }
            }
            Err(error) => Ok(Err(error).at("read", &path)?),
        }
    }

    /// Removes the builds whose builders are dead: their locks are free. One that cannot be removed
    /// takes up room and does no other harm.
    fn sweep(&self) -> Result<(), PathError> {
        let tmp = self.dir.join("tmp");
        for entry in fs::read_dir(&tmp).at("list", &tmp)? {
            let entry = entry.at("list", &tmp)?;
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            // Another sweeper may have been faster.
            let Ok(Some(_lock)) = FileLock::try_directory(&path) else {
                continue;
            };
            tracing::info!(path = %path.display(), "removing what a dead builder left");
            if let Err(error) = tree::remove(&path) {
                tracing::warn!(%error, "a dead builder's directory stays");
            }
        }
        Ok(())
    }

    /// The same cache, which also finds what is in `dir`.
    pub(crate) fn with_source(mut self, dir: &Path) -> Self {
        self.sources.push(dir.to_owned());
        self
    }

    pub(crate) fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// Where an artefact is or will be.
    pub(crate) fn path(&self, kind: ArtefactKind, key: &ImageId) -> PathBuf {
        self.dir.join(kind.directory()).join(key.as_str())
    }

    pub(crate) fn lock_path(&self, kind: ArtefactKind, key: &ImageId, role: &str) -> PathBuf {
        let name = format!("{}-{key}.{role}", kind.directory());
        self.dir.join("locks").join(name)
    }

    /// The directory of one kind of artefact.
    pub(crate) fn kind_path(&self, kind: ArtefactKind) -> PathBuf {
        self.dir.join(kind.directory())
    }

    /// The artefact, if it is there. Marks it used.
    pub(crate) fn find(
        &self,
        kind: ArtefactKind,
        key: &ImageId,
    ) -> Result<Option<Artefact>, PathError> {
        let lock = FileLock::shared(&self.lock_path(kind, key, "use"))?;
        let path = self.path(kind, key);
        match File::open(&path) {
            Ok(directory) => directory
                .set_modified(SystemTime::now())
                .at("touch", &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.find_elsewhere(kind, key));
            }
            Err(error) => return Err(error).at("open", &path),
        }
        let held = Held {
            locks: vec![Arc::new(lock)],
        };
        Ok(Some(Artefact { path, held }))
    }

    /// The artefact, where another directory has it. Whoever named that directory sees to it that
    /// it stays.
    fn find_elsewhere(&self, kind: ArtefactKind, key: &ImageId) -> Option<Artefact> {
        let places = self.sources.iter();
        let mut paths = places.map(|dir| dir.join(kind.directory()).join(key.as_str()));
        let path = paths.find(|path| path.join(RECORD).is_file())?;
        let held = Held::nothing();
        Some(Artefact { path, held })
    }

    /// The artefact: as it is in the cache, or as `build` makes it in the directory it is given.
    pub(crate) fn artefact(
        &self,
        plan: &Plan<'_>,
        progress: &dyn Fn(Step),
        cancel: &Cancel,
        build: &dyn Fn(&Path, &Job<'_>) -> Result<(), ImageError>,
    ) -> Result<Artefact, ImageError> {
        if let Some(found) = self.find(plan.kind, plan.key)? {
            return Ok(found);
        }
        let waiting = |pid| {
            progress(Step::Waiting {
                what: plan.what.to_owned(),
                pid,
            });
        };
        let lock = self.lock_path(plan.kind, plan.key, "build");
        let _building = FileLock::exclusive(&lock, cancel, &waiting)?;
        loop {
            if let Some(found) = self.find(plan.kind, plan.key)? {
                return Ok(found);
            }
            self.build(plan, progress, cancel, build)?;
        }
    }

    fn build(
        &self,
        plan: &Plan<'_>,
        progress: &dyn Fn(Step),
        cancel: &Cancel,
        build: &dyn Fn(&Path, &Job<'_>) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let quiet = |_| ();
        let progress = if plan.told { progress } else { &quiet };
        let what = plan.what.to_owned();
        // Whoever built it before us may have been killed, and left a full disk.
        self.sweep()?;
        space::require(&self.dir, plan.what, plan.needs)?;
        cancel.check()?;
        progress(Step::Started { what: what.clone() });
        let begun = Instant::now();
        let temporary = Temporary::new(&self.dir.join("tmp"))?;
        let job = Job {
            what: plan.what,
            progress,
            cancel,
        };
        let made = build(&temporary.path, &job).and_then(|()| self.commit(plan, &temporary));
        if let Err(error) = made {
            temporary.remove()?;
            return Err(self.explain(plan, error));
        }
        progress(Step::Finished {
            what,
            took: begun.elapsed(),
        });
        Ok(())
    }

    /// Puts a complete build in its place, so that after a power cut it is whole or not there.
    fn commit(&self, plan: &Plan<'_>, temporary: &Temporary) -> Result<(), ImageError> {
        let record = Record {
            name: plan.what.to_owned(),
            size: tree::size(&temporary.path)?,
            created: SystemTime::now(),
        };
        let path = temporary.path.join(RECORD);
        let text = serde_json::to_vec_pretty(&record)
            .map_err(io::Error::other)
            .at("write", &path)?;
        fs::write(&path, text).at("write", &path)?;
        let directory = File::open(&temporary.path).at("open", &temporary.path)?;
        rustix::fs::syncfs(&directory).at("sync", &temporary.path)?;
        let target = self.path(plan.kind, plan.key);
        fs::rename(&temporary.path, &target).at("create", &target)?;
        let parent = self.kind_path(plan.kind);
        File::open(&parent)
            .and_then(|parent| parent.sync_all())
            .at("sync", &parent)?;
        Ok(())
    }

    /// Says how much room there is where a build failed for want of it, once that build is removed.
    fn explain(&self, plan: &Plan<'_>, error: ImageError) -> ImageError {
        let full = match &error {
            ImageError::Path(error) => matches!(
                error.io().kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            ImageError::Tool(error) => error.says_disk_full(),
            _ => false,
        };
        let Ok(free) = space::free(&self.dir) else {
            return error;
        };
        if full {
            // It had what is free now, and wanted more; how much more nobody knows. A quarter is
            // worth the next attempt.
            let needed = plan.needs.max(free + free / 4);
            space::no_space(&self.dir, plan.what, free, needed).into()
        } else {
            error
        }
    }

    /// Removes an artefact, unless it is in use or being built. `false` if it is.
    pub(crate) fn remove(&self, kind: ArtefactKind, key: &ImageId) -> Result<bool, PathError> {
        let using = self.lock_path(kind, key, "use");
        let Some(_lock) = FileLock::try_exclusive(&using)? else {
            return Ok(false);
        };
        // Out of sight at once, then gone: whoever wants it next builds it anew.
        let temporary = Temporary::new(&self.dir.join("tmp"))?;
        let path = self.path(kind, key);
        let away = temporary.path.join("pruned");
        match fs::rename(&path, &away) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("remove", &path);
            }
            _ => temporary.remove()?,
        }
        Ok(true)
    }

    /// Whether somebody uses it now.
    pub(crate) fn in_use(&self, kind: ArtefactKind, key: &ImageId) -> Result<bool, PathError> {
        let using = self.lock_path(kind, key, "use");
        Ok(FileLock::try_exclusive(&using)?.is_none())
    }
}

/// A directory for a build, locked while we live, removed when dropped.
struct Temporary {
    path: PathBuf,
    _lock: FileLock,
}

impl Temporary {
    fn new(parent: &Path) -> Result<Self, PathError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                // A dead process had our number, and nobody has swept since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).at("create", &path),
            }
            // A sweeper may come between the two lines and take it for a leftover; then again.
            match FileLock::try_directory(&path) {
                Ok(Some(lock)) if path.exists() => return Ok(Self { path, _lock: lock }),
                Ok(_) => {}
                Err(error) if error.io().kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn remove(&self) -> Result<(), PathError> {
        tree::remove(&self.path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename into the cache nothing is here; after an error it has been removed.
        if let Err(error) = tree::remove(&self.path) {
            tracing::warn!(%error, "a temporary directory is left behind");
        }
    }
}
