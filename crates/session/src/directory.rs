//! A session's directory: who it belongs to, and whether that one still lives.
//!
//! ```text
//! <runtime>/<id>/                0700
//!     lock                       held by flock as long as the engine lives
//!     session.json               what the session is: `Card`
//!     session.sock               0600, the session protocol
//!     events.jsonl               the event log
//!     processes                  ids of children, see `leftovers`
//!     machines/<name>/           what each machine needs
//!     python/                    the Python package, where a script runs
//!     python.sock                while the script stands still: its Python prompt
//! ```
//!
//! The lock is the truth about life: the kernel lets it go when the engine ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use machinist_sys::lock::Locked;
use serde::{Deserialize, Serialize};

use crate::path_error::{At, PathError};

const LOCK: &str = "lock";
const CARD: &str = "session.json";
const SOCKET: &str = "session.sock";
const PYTHON: &str = "python.sock";
/// Held while a session's directory is made and while dead ones are looked for, so that nobody
/// takes a directory without a lock yet for one whose engine is dead.
const GATE: &str = ".gate";

/// What a session says of itself, in `session.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The version of this file's format.
    pub format: u32,
    /// machinist's version.
    pub version: String,
    /// The session's id.
    pub session: String,
    /// The engine's process id.
    pub pid: u32,
    /// When it began, in seconds since the Unix epoch.
    pub started: f64,
    /// The lab file.
    pub lab: PathBuf,
    /// The test that it is for, where it is for one.
    #[serde(default)]
    pub test: Option<String>,
}

/// The format of [`Card`] that this machinist writes. It reads all up to it.
pub const CARD_FORMAT: u32 = 1;

/// A live session's directory. Dropping it lets the lock go; [`Directory::remove`] removes it all.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    id: String,
    lock: Locked,
}

impl Directory {
    /// Makes the directory of a new session at `path`, which comes from [`new_path`].
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn create(path: &Path, lab: &Path, test: Option<&str>) -> Result<Self, PathError> {
        let runtime = path.parent().unwrap_or(path);
        let id = path.file_name().unwrap_or_default().to_string_lossy();
        let _gate = gate(runtime)?;
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private.create(path).at("make the directory", path)?;
        let lock = lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            id: id.into_owned(),
            lock,
        };
        private
            .create(directory.machines())
            .at("make the directory", &directory.machines())?;
        directory.write_card(lab, test)?;
        Ok(directory)
    }

    fn write_card(&self, lab: &Path, test: Option<&str>) -> Result<(), PathError> {
        let started = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let card = Card {
            format: CARD_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            session: self.id.clone(),
            pid: std::process::id(),
            started,
            lab: lab.to_owned(),
            test: test.map(str::to_owned),
        };
        let path = self.path.join(CARD);
        let text = serde_json::to_vec(&card)
            .map_err(std::io::Error::from)
            .at("write", &path)?;
        fs::write(&path, text).at("write", &path)
    }

    /// The session's id: eight letters and digits, unique under its runtime directory.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the session's socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// The directory of the machines' own directories.
    #[must_use]
    pub fn machines(&self) -> PathBuf {
        self.path.join(crate::leftovers::MACHINES)
    }

    /// Removes the directory with all that is in it, and lets the lock go.
    ///
    /// # Errors
    /// Something is mounted in it that cannot be unmounted, or the file system refuses.
    pub fn remove(self) -> Result<(), PathError> {
        let removed = crate::leftovers::remove_tree(&self.path);
        drop(self.lock);
        removed
    }
}

/// A session's socket.
pub(crate) fn socket(session: &Path) -> PathBuf {
    session.join(SOCKET)
}

/// Where a paused script's Python prompt is reached, in the session's directory.
pub(crate) fn python_socket(session: &Path) -> PathBuf {
    session.join(PYTHON)
}

/// A live session, as another process sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it says of itself.
    pub card: Card,
    /// Its directory.
    pub path: PathBuf,
    /// Its socket, for [`crate::Client::connect`].
    pub socket: PathBuf,
}

/// The live sessions under `runtime`, oldest first.
///
/// # Errors
/// `runtime` cannot be read. Where it does not exist there is no session.
pub fn live_sessions(runtime: &Path) -> Result<Vec<Found>, PathError> {
    let mut found = Vec::new();
    for path in session_paths(runtime)? {
        // A shared lock: two who look at once must not take each other for the engine.
        if try_lock(&path, Locked::try_shared)?.is_some() {
            continue;
        }
        if let Ok(card) = read_card(&path) {
            let socket = socket(&path);
            found.push(Found { card, path, socket });
        }
    }
    found.sort_by(|a, b| a.card.started.total_cmp(&b.card.started));
    Ok(found)
}

/// The live session whose directory is at `path`, if there is one. The directory may be anybody's:
/// nothing is made there, and no link in it is followed.
///
/// # Errors
/// The file system refuses.
pub fn live_session(path: &Path) -> Result<Option<Found>, PathError> {
    let open = |name: &str| -> Result<File, PathError> {
        let path = path.join(name);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.cast_signed());
        options.open(&path).at("open", &path)
    };
    if let Ok(Some(_)) = Locked::try_shared(open(LOCK)?) {
        // Its engine is dead.
        return Ok(None);
    }
    let path_of_card = path.join(CARD);
    let card = serde_json::from_reader(open(CARD)?)
        .map_err(std::io::Error::from)
        .at("read", &path_of_card)?;
    Ok(Some(Found {
        card,
        socket: socket(path),
        path: path.to_owned(),
    }))
}

pub(crate) fn read_card(session: &Path) -> Result<Card, PathError> {
    let path = session.join(CARD);
    let text = fs::read(&path).at("read", &path)?;
    serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .at("read", &path)
}

/// Everything under `runtime` that looks like a session's directory.
pub(crate) fn session_paths(runtime: &Path) -> Result<Vec<PathBuf>, PathError> {
    let entries = match fs::read_dir(runtime) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", runtime)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.at("list", runtime)?;
        let name = entry.file_name();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && name.to_str().is_some_and(is_id) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Keeps others from making or sweeping directories while it is held.
pub(crate) fn gate(runtime: &Path) -> Result<Locked, PathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(runtime)
        .at("make the directory", runtime)?;
    ours_alone(runtime).at("use the directory", runtime)?;
    hold(&runtime.join(GATE))
}

/// The directory may have been there, under a name that anybody can guess: whoever else can write
/// to it could put his own sockets and files in place of ours.
fn ours_alone(runtime: &Path) -> std::io::Result<()> {
    let found = fs::metadata(runtime)?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() == own && found.mode() & 0o002 == 0 {
        return Ok(());
    }
    let problem = if found.uid() == own {
        "everybody can write to it".to_owned()
    } else {
        format!("it belongs to user {}, and we are {own}", found.uid())
    };
    Err(std::io::Error::other(format!(
        "{problem}; MACHINIST_RUNTIME can name another directory"
    )))
}

/// Takes a session's lock, waiting for whoever holds it. Where the lock's file is missing, an
/// engine was killed while it made the directory; then it is made.
pub(crate) fn lock(session: &Path) -> Result<Locked, PathError> {
    hold(&session.join(LOCK))
}

/// Locks a file for us alone, waiting for whoever holds it; makes it where it is missing.
fn hold(path: &Path) -> Result<Locked, PathError> {
    let file = open_lock(path).at("open", path)?;
    Locked::exclusive(file).at("lock", path)
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Takes a session's lock, as `take` does it, if nobody holds it. A directory without a lock file is
/// nobody's: its engine, or who removed it, died half way; then the lock is made.
pub(crate) fn try_lock(
    session: &Path,
    take: impl FnOnce(File) -> std::io::Result<Option<Locked>>,
) -> Result<Option<Locked>, PathError> {
    let path = session.join(LOCK);
    let file = match open_lock(&path) {
        // The directory has gone in the meantime: the same as held by another.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.at("open", &path)?,
    };
    take(file).at("lock", &path)
}

/// The path of a session's directory that is not there yet.
pub(crate) fn new_path(runtime: &Path) -> Result<PathBuf, PathError> {
    loop {
        let path = runtime.join(new_id().at("make a random name in", runtime)?);
        if !path.exists() {
            return Ok(path);
        }
    }
}

/// Letters of a session's id.
pub(crate) const ID_LENGTH: usize = 8;
/// Without what looks alike, so that an id can be read out.
const ID_LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

fn is_id(name: &str) -> bool {
    name.len() == ID_LENGTH && name.bytes().all(|byte| ID_LETTERS.contains(&byte))
}

fn new_id() -> std::io::Result<String> {
    let mut random = [0_u8; ID_LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random
        .iter()
        .map(|byte| char::from(ID_LETTERS[usize::from(*byte) % ID_LETTERS.len()]))
        .collect())
}

/// Notes a child of the engine, so that it can be found when the engine is dead.
#[derive(Debug)]
pub(crate) struct ProcessList(std::sync::Mutex<File>);

impl ProcessList {
    pub(crate) fn open(session: &Path) -> Result<Self, PathError> {
        let path = session.join(crate::leftovers::PROCESSES);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        Ok(Self(std::sync::Mutex::new(file)))
    }

    /// Adds process `pid`, with its start time, which tells it from a later one of that number.
    pub(crate) fn add(&self, pid: u32) {
        let Some(started) = crate::leftovers::start_time(pid) else {
            return;
        };
        if let Ok(mut file) = self.0.lock() {
            // A full disk here costs only the second net: the first is the parent-death signal.
            drop(writeln!(file, "{pid} {started}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_runtime_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("runtime");
        drop(gate(&runtime).unwrap());
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).unwrap();
        let error = gate(&runtime).unwrap_err();
        assert!(error.io().to_string().contains("everybody"), "{error}");
    }
}
