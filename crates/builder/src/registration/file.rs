//! The file that machines are written to: where it really lies, its lock, and its exchange for a new one
//! at once.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use machinist_sys::lock::Locked;

use crate::path_error::{At as _, PathError};

/// A directory whose files nobody changes by hand.
const STORE: &str = "/nix/store";

/// The rights of a new file: Nix's clients may read it.
const MODE: u32 = 0o644;

/// A file that is held: nobody else who asks changes it.
#[derive(Debug)]
pub(super) struct Held {
    /// Where it really lies: links are followed, and stay.
    path: PathBuf,
    /// Its directory, locked.
    directory: Locked,
}

/// Makes the file's directory where only that is missing: a Nix without any settings has none.
pub(super) fn make_directory(path: &Path) -> Result<(), PathError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).at("make the directory", parent)
        }
        _ => Ok(()),
    }
}

/// Where a file lies that is there, or that a link leads to.
pub(super) fn real(path: &Path) -> Result<PathBuf, PathError> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let parent = fs::canonicalize(parent).at("find the directory", parent)?;
            Ok(parent.join(path.file_name().unwrap_or_default()))
        }
        Err(error) => Err(error).at("follow the link", path),
    }
}

/// Whether a file is one of a Nix store, which Nix's own modules make and replace. `root` is the host's.
pub(super) fn is_in_store(path: &Path, root: &Path) -> bool {
    path.starts_with(STORE) || path.starts_with(root.join(STORE.trim_start_matches('/')))
}

/// Whether we may write to the file: before anybody builds something for it.
pub(super) fn may_write(path: &Path) -> Result<(), PathError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let asked = rustix::fs::access(parent, rustix::fs::Access::WRITE_OK);
    asked.map_err(io::Error::from).at("write to", parent)
}

impl Held {
    /// Waits until nobody else holds it.
    pub(super) fn new(path: PathBuf) -> Result<Self, PathError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        // The directory: the file itself is another one after every change.
        let directory = File::open(parent).at("open the directory", parent)?;
        let directory = Locked::exclusive(directory).at("lock", parent)?;
        Ok(Self { path, directory })
    }

    /// What it has; nothing where it is not there.
    pub(super) fn read(&self) -> Result<Vec<u8>, PathError> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.at("read", &self.path),
        }
    }

    /// Exchanges it for a new one with the same owner and rights: a reader sees all of the one or of
    /// the other, also after a loss of power.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), PathError> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".machinist-{}", std::process::id()));
        let new = self.path.with_file_name(name);
        let written = self
            .write_new(&new, bytes)
            .and_then(|()| fs::rename(&new, &self.path).at("exchange", &self.path));
        if written.is_err() {
            // The first error is the one to tell.
            drop(fs::remove_file(&new));
        }
        written?;
        self.directory
            .file()
            .sync_all()
            .at("write the directory of", &self.path)
    }

    fn write_new(&self, new: &Path, bytes: &[u8]) -> Result<(), PathError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new);
        let mut file = file.at("make", new)?;
        file.write_all(bytes).at("write", new)?;
        let mode = match fs::metadata(&self.path) {
            Ok(old) => {
                std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))
                    .at("change the owner of", new)?;
                old.mode() & 0o7777
            }
            Err(_) => MODE,
        };
        file.set_permissions(Permissions::from_mode(mode))
            .at("change the rights of", new)?;
        file.sync_all().at("write", new)
    }
}
