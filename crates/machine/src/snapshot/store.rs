//! Where snapshots are kept.
//!
//! ```text
//! format          the version of this layout
//! host.json       what was found out about the host
//! known/          hashes of kernels, disks and programs
//! refused/KEY     one that did not restore when it had just been made: nobody tries again for a while
//! KEY/            a snapshot (saved.rs); its users hold a shared lock on the directory
//! tmp/KEY/        one that is being made; its maker holds the lock
//! ```
//! The time of last use is the modification time of a snapshot's directory. Everything here belongs
//! to one user and is readable by nobody else: it holds guests' memory.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use machinist_sys::owner::not_ours;
use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_64;

use super::error::SnapshotError;
use super::host::Host;
use super::known::{Known, write_beside};
use super::lock::DirectoryLock;
use super::parts::SnapshotKey;
use super::saved::{Draft, Saved};
use crate::path_error::{PathContext, PathError};

/// What the format file says.
const FORMAT: &str = "machinist snapshots 1";

/// How often to look whether another process has made what we wait for. The lock of a file has no
/// event that could be awaited, and a boot takes seconds.
const LOOK: Duration = Duration::from_millis(50);

/// Keeps snapshots. Clones are the same store.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    pub(super) shared: Arc<Shared>,
    /// Directories with snapshots that others made, which are only read.
    pub(super) sources: Vec<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// Bytes that snapshots may take.
    pub(super) limit: u64,
    /// Why nothing can be kept, where that is so.
    read_only: Option<String>,
    /// Whether others may write there, so that nothing in it is restored.
    foreign: bool,
    known: Known,
    host: OnceLock<Host>,
    agent: OnceLock<String>,
    /// Who makes a snapshot in this process, by key: others wait for that without looking again and
    /// again.
    makers: Mutex<HashMap<SnapshotKey, Weak<tokio::sync::Mutex<()>>>>,
}

/// How long what was refused is not tried again. The next boot
/// of the host ends it, too.
const REFUSED: Duration = Duration::from_secs(3600);

/// Why a snapshot is not made.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    boot_id: String,
    /// Seconds since 1970.
    since: u64,
    reason: String,
}

/// What becomes of the wish for a snapshot.
pub(crate) enum Claim {
    /// It is there.
    There(Saved),
    /// It is ours to make.
    Ours(Making),
    /// It is not there, and cannot be made here: why.
    Unable(String),
}

impl SnapshotStore {
    /// Opens the store in the directory `dir`, which is made if it is not there. `limit` is how many
    /// bytes snapshots may take. What dead makers left is removed. A store that cannot be written
    /// is used as it is; one that others may write to, not at all.
    ///
    /// # Errors
    /// It was written by another version of machinist, or cannot be read.
    pub fn open(dir: &Path, limit: u64) -> Result<Self, SnapshotError> {
        let foreign = not_ours(dir).ok().flatten();
        let read_only = match &foreign {
            Some(why) => Some(why.to_string()),
            None => usable(dir)?,
        };
        // One absolute path: it goes into command lines.
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let known = read_only.is_none().then(|| dir.join("known"));
        let store = Self {
            shared: Arc::new(Shared {
                known: Known::in_directory(known),
                dir,
                limit,
                read_only,
                foreign: foreign.is_some(),
                host: OnceLock::new(),
                agent: OnceLock::new(),
                makers: Mutex::default(),
            }),
            sources: Vec::new(),
        };
        if store.shared.read_only.is_none() {
            store.sweep();
        }
        Ok(store)
    }

    /// The same store, which also finds the snapshots in `dir`: a directory as a store has them, or
    /// one snapshot. Nothing in it is changed.
    #[must_use]
    pub fn with_source(mut self, dir: &Path) -> Self {
        self.sources.push(dir.to_owned());
        self
    }

    pub(crate) fn known(&self) -> &Known {
        &self.shared.known
    }

    /// What the agent is that machines bring along.
    pub(crate) fn agent(&self) -> String {
        let hash = || {
            format!(
                "{:016x}",
                xxhash3_64::Hasher::oneshot(machinist_guest::AGENT)
            )
        };
        self.shared.agent.get_or_init(hash).clone()
    }

    /// This host. The first who asks may wait some milliseconds.
    pub(crate) fn host(&self) -> &Host {
        let shared = &self.shared;
        let dir = shared.read_only.is_none().then_some(shared.dir.as_path());
        shared.host.get_or_init(|| Host::look(dir))
    }

    /// The snapshot, if it is there. Blocks.
    pub(crate) fn find(&self, key: &SnapshotKey) -> Option<Saved> {
        let own = (!self.shared.foreign).then(|| self.shared.dir.join(key.as_str()));
        let theirs = self.sources.iter().flat_map(|source| {
            let inside = source.join(key.as_str());
            [inside, source.clone()]
        });
        own.into_iter()
            .chain(theirs)
            .find_map(|dir| match take(&dir) {
                Ok(Some(saved)) if saved.manifest().parts.key() == *key => Some(saved),
                _ => None,
            })
    }

    /// The snapshot, or the right to make it. Waits while somebody else makes it.
    pub(crate) async fn claim(&self, key: &SnapshotKey) -> Result<Claim, SnapshotError> {
        let mutex = self.maker(key);
        let turn = mutex.lock_owned().await;
        loop {
            let (this, wanted) = (self.clone(), key.clone());
            let tried = tokio::task::spawn_blocking(move || this.try_claim(&wanted)).await;
            match tried.map_err(io::Error::from).path(&self.shared.dir)?? {
                Some(Claim::Ours(mut making)) => {
                    making.turn = Some(turn);
                    return Ok(Claim::Ours(making));
                }
                Some(claim) => return Ok(claim),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn maker(&self, key: &SnapshotKey) -> Arc<tokio::sync::Mutex<()>> {
        let makers = self.shared.makers.lock();
        let mut makers = makers.unwrap_or_else(PoisonError::into_inner);
        makers.retain(|_, maker| maker.strong_count() > 0);
        let known = makers.get(key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let maker = Arc::default();
            makers.insert(key.clone(), Arc::downgrade(&maker));
            maker
        })
    }

    /// None while somebody else makes it.
    fn try_claim(&self, key: &SnapshotKey) -> Result<Option<Claim>, SnapshotError> {
        if let Some(saved) = self.find(key) {
            return Ok(Some(Claim::There(saved)));
        }
        let shared = &self.shared;
        if let Some(reason) = &shared.read_only {
            return Ok(Some(Claim::Unable(reason.clone())));
        }
        if let Some(reason) = self.refused(key) {
            return Ok(Some(Claim::Unable(reason)));
        }
        let dir = shared.dir.join("tmp").join(key.as_str());
        match private_directory(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).path(&dir)?;
            }
            _ => {}
        }
        let Some(lock) = DirectoryLock::exclusive(&dir)? else {
            return Ok(None);
        };
        // Another may have made it between our look and our lock.
        if let Some(saved) = self.find(key) {
            drop(fs::remove_dir(&dir));
            return Ok(Some(Claim::There(saved)));
        }
        // What is in it, a maker left who was killed.
        for entry in fs::read_dir(&dir).path(&dir)? {
            let path = entry.path(&dir)?.path();
            remove(&path).path(&path)?;
        }
        Ok(Some(Claim::Ours(Making {
            store: self.clone(),
            key: key.clone(),
            dir,
            lock: Some(lock),
            turn: None,
        })))
    }

    /// Throws a snapshot of this store away. One of another directory stays.
    pub(crate) fn discard(&self, saved: Saved) {
        let dir = saved.dir().to_owned();
        let ours = dir.parent() == Some(&self.shared.dir);
        // Another may have thrown it away before us, and made it anew.
        if !ours || !saved.is_still_there() || self.shared.read_only.is_some() {
            return;
        }
        // Others may be using it; nothing of theirs breaks: they have its files open, or are about
        // to find it as useless as we did.
        if let Err(error) = self.take_away(&dir) {
            tracing::warn!(path = %dir.display(), %error, "a useless snapshot stays");
        }
    }

    /// What was just made does not restore, or could not be made in all its time: for a while that is
    /// not tried again, for this `reason`.
    pub(crate) fn refuse(&self, key: &SnapshotKey, reason: &str) {
        let refusal = Refusal {
            boot_id: self.host().boot_id.clone(),
            since: now(),
            reason: reason.to_owned(),
        };
        let place = self.shared.dir.join("refused").join(key.as_str());
        // Who cannot remember tries again.
        drop(write_beside(&place, &refusal));
    }

    fn refused(&self, key: &SnapshotKey) -> Option<String> {
        let place = self.shared.dir.join("refused").join(key.as_str());
        let refusal: Refusal = serde_json::from_slice(&fs::read(&place).ok()?).ok()?;
        let age = Duration::from_secs(now().saturating_sub(refusal.since));
        if refusal.boot_id == self.host().boot_id && age < REFUSED {
            return Some(refusal.reason);
        }
        drop(fs::remove_file(&place));
        None
    }

    /// Whether a snapshot is whole, as far as that has to be looked at again. Blocks.
    pub(crate) fn verify(&self, saved: &Saved) -> Result<(), SnapshotError> {
        if saved.dir().parent() == Some(&self.shared.dir) && self.shared.read_only.is_none() {
            return saved.verify(&self.host().boot_id);
        }
        // Nothing can be noted there, so it is noted here.
        saved.verify_by(&self.shared.known)
    }

    /// Bytes that are free where the snapshots are.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.shared.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Moves a snapshot out of sight, and removes it.
    pub(super) fn take_away(&self, dir: &Path) -> io::Result<()> {
        let tmp = self.shared.dir.join("tmp");
        let away = tempfile::Builder::new().prefix("gone-").tempdir_in(tmp)?;
        // Whoever is to sweep it meanwhile does what we are about to do.
        fs::rename(dir, away.path().join("snapshot"))?;
        away.close()
    }

    /// Removes what dead makers left. What cannot be removed takes up room and does no other harm.
    fn sweep(&self) {
        let tmp = self.shared.dir.join("tmp");
        let Ok(entries) = fs::read_dir(&tmp) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if let Ok(Some(_lock)) = DirectoryLock::exclusive(&path) {
                tracing::info!(path = %path.display(), "removing what a dead maker left");
                drop(remove(&path));
            }
        }
    }
}

/// A snapshot that is being made. Dropped before [`Making::commit`], it leaves nothing.
pub(crate) struct Making {
    store: SnapshotStore,
    key: SnapshotKey,
    dir: PathBuf,
    lock: Option<DirectoryLock>,
    /// Others of this process wait for this.
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Making {
    /// Where its files go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it will be in.
    pub(crate) fn store(&self) -> &SnapshotStore {
        &self.store
    }

    /// Puts it into the store. Blocks.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub(crate) fn commit(mut self, draft: Draft) -> Result<Saved, SnapshotError> {
        let saved = Saved::seal(&self.dir, draft, &self.store.host().boot_id)?;
        let target = self.store.shared.dir.join(self.key.as_str());
        if target.exists() {
            // What is there could not be read.
            self.store.take_away(&target).path(&target)?;
        }
        fs::rename(&self.dir, &target).path(&target)?;
        let Some(lock) = self.lock.take() else {
            return Ok(saved.moved(target));
        };
        lock.share().path(&target)?;
        let saved = saved.moved(target).holding(lock);
        self.store.keep_to_limit();
        Ok(saved)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.lock.is_some() && remove(&self.dir).is_err() {
            // The next sweep takes it.
            tracing::warn!(path = %self.dir.display(), "half a snapshot stays");
        }
    }
}

/// The snapshot in `dir`, held.
fn take(dir: &Path) -> Result<Option<Saved>, SnapshotError> {
    let Some(lock) = DirectoryLock::shared(dir)? else {
        return Ok(None);
    };
    let saved = Saved::open(dir)?;
    // In a store that cannot be written nothing is removed for its age either.
    drop(lock.touch());
    Ok(Some(saved.holding(lock)))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes what a store needs. Why nothing can be saved in it, where that is so.
fn usable(dir: &Path) -> Result<Option<String>, SnapshotError> {
    match (prepare(dir), check_format(dir)) {
        // Somebody's whom we cannot even ask.
        (Err(_), Err(SnapshotError::Path(error)))
            if error.source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(Some(format!("{} is another user's", dir.display())))
        }
        (prepared, checked) => {
            checked?;
            let error = prepared.err();
            Ok(error.map(|it| format!("nothing can be saved in {}: {}", dir.display(), it.source)))
        }
    }
}

/// Makes what a store needs; an error where it cannot be written.
fn prepare(dir: &Path) -> Result<(), PathError> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).path(parent)?;
    }
    let inside = ["tmp", "known", "refused"].map(|name| dir.join(name));
    for path in std::iter::once(dir.to_owned()).chain(inside) {
        match private_directory(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).path(&path);
            }
            _ => {}
        }
    }
    rustix::fs::access(dir.join("tmp"), rustix::fs::Access::WRITE_OK).path(dir)?;
    let format = dir.join("format");
    if !format.exists() {
        // Whole at once, and whoever is faster writes the same.
        let beside = tempfile::NamedTempFile::new_in(dir).path(dir)?;
        fs::write(beside.path(), format!("{FORMAT}\n")).path(&format)?;
        let persisted = beside.persist(&format).map_err(|error| error.error);
        persisted.path(&format)?;
    }
    Ok(())
}

fn check_format(dir: &Path) -> Result<(), SnapshotError> {
    let path = dir.join("format");
    let found = match fs::read_to_string(&path) {
        Ok(found) => found,
        // An empty store that cannot be written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).path(&path)?,
    };
    if found.trim() == FORMAT {
        return Ok(());
    }
    Err(SnapshotError::Format {
        path: dir.to_owned(),
        found: found.trim().to_owned(),
        known: FORMAT.to_owned(),
    })
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use machinist_guest::Settled;
    use machinist_image::Prune;

    use super::*;
    use crate::snapshot::{CONSOLE, MEMORY, Parts, STATE};

    const ROOMY: u64 = 1 << 30;

    fn draft(name: &str) -> Draft {
        let mut parts = Parts::default();
        parts.add("name", name);
        Draft {
            machine: name.into(),
            image: "debian".into(),
            system_ready: true,
            settled: Settled::default(),
            parts,
            digests: BTreeMap::new(),
        }
    }

    fn key(name: &str) -> SnapshotKey {
        draft(name).parts.key()
    }

    fn fill(making: &Making) {
        for name in [MEMORY, STATE, CONSOLE] {
            fs::write(making.dir().join(name), vec![b'x'; 100_000]).unwrap();
        }
    }

    async fn make(store: &SnapshotStore, name: &str) -> Saved {
        match store.claim(&key(name)).await.unwrap() {
            Claim::Ours(making) => {
                fill(&making);
                making.commit(draft(name)).unwrap()
            }
            _ => panic!("{name} is not ours to make"),
        }
    }

    fn names(store: &SnapshotStore) -> Vec<String> {
        let list = store.list().unwrap();
        list.into_iter().map(|info| info.manifest.machine).collect()
    }

    #[tokio::test]
    async fn another_users_store_is_of_no_use_and_no_trouble() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: this needs root, to become another user");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let own = dir.path().join("snapshots");
        let store = SnapshotStore::open(&own, ROOMY).unwrap();
        let saved = make(&store, "web").await;
        let theirs = own.clone();
        // Who somebody is, is so for a thread.
        let claim = std::thread::spawn(move || {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let store = SnapshotStore::open(&theirs, ROOMY).unwrap();
            assert!(store.list().is_err());
            assert!(store.find(&key("web")).is_none());
            store.try_claim(&key("web")).unwrap()
        });
        match claim.join().unwrap() {
            Some(Claim::Unable(reason)) => {
                assert!(
                    reason.contains(" belongs to root, and this runs as "),
                    "{reason}"
                )
            }
            _ => panic!("it can be used"),
        }
        // The owner's is as it was.
        assert!(matches!(
            store.claim(&key("web")).await.unwrap(),
            Claim::There(_)
        ));
        assert!(saved.is_still_there());
    }

    #[tokio::test]
    async fn root_restores_nothing_that_somebody_else_has_made() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: this needs root, to give a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        make(&SnapshotStore::open(dir.path(), ROOMY).unwrap(), "web").await;
        std::os::unix::fs::chown(dir.path(), Some(1), None).unwrap();
        let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
        match store.claim(&key("web")).await.unwrap() {
            Claim::Unable(reason) => assert!(reason.contains(" belongs to "), "{reason}"),
            _ => panic!("it is used"),
        }
        // What is named as made by others is.
        let own = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(own.path(), ROOMY).unwrap();
        let store = store.with_source(dir.path());
        assert!(store.find(&key("web")).is_some());
    }

    #[tokio::test]
    async fn one_makes_it_and_the_others_find_it() {
        let dir = tempfile::tempdir().unwrap();
        // Two stores on one directory are like two processes: locks are of open files.
        let stores = [0; 2].map(|_| SnapshotStore::open(dir.path(), ROOMY).unwrap());
        let claims = stores.iter().cycle().take(6).map(|store| {
            let store = store.clone();
            tokio::spawn(async move {
                match store.claim(&key("web")).await.unwrap() {
                    Claim::There(_) => 0,
                    Claim::Ours(making) => {
                        fill(&making);
                        tokio::time::sleep(Duration::from_millis(120)).await;
                        making.commit(draft("web")).unwrap();
                        1
                    }
                    Claim::Unable(reason) => panic!("{reason}"),
                }
            })
        });
        let claims: Vec<_> = claims.collect();
        let mut made = 0;
        for claim in claims {
            made += claim.await.unwrap();
        }
        assert_eq!(made, 1);
    }

    #[tokio::test]
    async fn what_a_dead_maker_left_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
        let left = dir.path().join("tmp").join(key("web").as_str());
        fs::create_dir_all(left.join("run")).unwrap();
        fs::write(left.join(MEMORY), "half").unwrap();
        let Claim::Ours(making) = store.claim(&key("web")).await.unwrap() else {
            panic!("it is not ours to make");
        };
        assert_eq!(fs::read_dir(making.dir()).unwrap().count(), 0);
        fill(&making);
        // A maker that gives up leaves nothing, and the next one makes it.
        drop(making);
        assert!(!left.exists());
        make(&store, "web").await;
        // What nobody wants any more goes when the store is opened.
        fs::create_dir_all(&left).unwrap();
        SnapshotStore::open(dir.path(), ROOMY).unwrap();
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_is_too_much_but_not_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), 1_000_000).unwrap();
        let used = make(&store, "used").await;
        for name in ["old", "new"] {
            make(&store, name).await;
        }
        assert_eq!(names(&store), ["new", "old", "used"]);
        make(&store, "newest").await;
        assert_eq!(names(&store), ["newest", "new", "used"]);
        let all = Prune {
            all: true,
            ..Prune::default()
        };
        let freed = store.prune(&all).unwrap();
        assert_eq!((freed.removed.len(), freed.in_use.len()), (2, 1));
        assert_eq!(freed.bytes, 2 * used.manifest().usage);
        drop(used);
        assert_eq!(store.prune(&all).unwrap().removed.len(), 1);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn nobody_else_may_read_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("snapshots");
        let store = SnapshotStore::open(&dir, ROOMY).unwrap();
        let Claim::Ours(making) = store.claim(&key("web")).await.unwrap() else {
            panic!("it is not ours to make");
        };
        fill(&making);
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(making.dir().join(STATE), open).unwrap();
        let saved = making.commit(draft("web")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(saved.dir())), (0o700, 0o700));
        let entries: Vec<_> = fs::read_dir(saved.dir()).unwrap().flatten().collect();
        assert_eq!(entries.len(), 5);
        for entry in entries {
            assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        }
    }

    #[tokio::test]
    async fn what_is_moved_or_of_others_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let (before, after) = (temp.path().join("before"), temp.path().join("after"));
        make(&SnapshotStore::open(&before, ROOMY).unwrap(), "web").await;
        fs::rename(&before, &after).unwrap();
        let moved = SnapshotStore::open(&after, ROOMY).unwrap();
        let found = moved.find(&key("web")).unwrap();
        moved.verify(&found).unwrap();
        // Of others: their whole store, or one snapshot.
        for source in [after.clone(), found.dir().to_owned()] {
            let own = SnapshotStore::open(&temp.path().join("own"), ROOMY).unwrap();
            let own = own.with_source(&source);
            let theirs = own.find(&key("web")).unwrap();
            own.verify(&theirs).unwrap();
            assert!(own.find(&key("db")).is_none());
            // It is not ours to throw away.
            own.discard(theirs);
            assert!(moved.find(&key("web")).is_some());
        }
    }

    #[tokio::test]
    async fn what_does_not_restore_is_thrown_away_and_what_never_does_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
        store.discard(make(&store, "web").await);
        assert!(store.find(&key("web")).is_none());
        store.discard(make(&store, "web").await);
        store.refuse(&key("web"), "QEMU ended");
        let Claim::Unable(reason) = store.claim(&key("web")).await.unwrap() else {
            panic!("it is tried again");
        };
        assert_eq!(reason, "QEMU ended");
        let all = Prune {
            all: true,
            ..Prune::default()
        };
        store.prune(&all).unwrap();
        make(&store, "web").await;
    }

    #[test]
    fn a_store_of_another_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "machinist snapshots 99\n").unwrap();
        let error = SnapshotStore::open(dir.path(), ROOMY).unwrap_err();
        assert!(error.to_string().contains("snapshots 99"), "{error}");
    }
}
