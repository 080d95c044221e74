//! The host's store for the machine: what the host has is not copied, but seen.
//!
//! ```text
//! client ──"which of these do you have?"──▶ join ──▶ Nix's daemon in the machine
//!                                   overheard │ talk
//!     host's Nix daemon ◀── keep them! ──  HostStore  ── mount each, read-only ──▶ /nix/store/X
//!          valid? references?     daemon                pieces, ground   register ──▶ its database
//! ```
//!
//! The question waits until the paths are there, so the answer is: all of them. What is safe about it:
//!
//! - Whether a path is valid the host's Nix says, and never what lies in a directory. Each path is a mount
//!   of its own, so nothing else of the host's store is there: no lock, nothing that is being written.
//! - Nothing is laid over anything, so nothing changes underneath: a valid path never changes.
//! - The host's Nix keeps each path (a temporary root) as long as the machine may use it; and Nix in the machine
//!   has a root for each, so that it does not try to remove it.
//! - After a start the machine is only told of paths that are valid now. What is not any more is forgotten,
//!   with what refers to it.

mod daemon;
mod error;
mod fuse;
mod ground;
mod list;
mod pieces;
mod registration;
mod share;
mod talk;
mod vm;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use machinist_guest::Agent;
use tokio::sync::Mutex;

use crate::config::Kind;
use crate::protocol::HostStoreStatus;
use crate::service::{Log, chain};
use daemon::{Daemon, Info};
pub(crate) use error::HostStoreError;
use ground::Ground;
use list::List;
use pieces::Put;
use registration::{name, path, without};
use talk::Talk;

/// Where the host's Nix daemon listens, below the directory of its Nix.
const SOCKET: &str = "var/nix/daemon-socket/socket";

/// The host's store, for one run of a machine. Clones are the same one.
#[derive(Clone)]
pub(crate) struct HostStore(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    ground: Ground,
    list: List,
    log: Log,
    shared: Mutex<Shared>,
    paths: AtomicUsize,
    bytes: AtomicU64,
}

/// What one task at a time works with.
struct Shared {
    daemon: Option<Daemon>,
    /// What the machine's Nix has been told of, by name.
    known: BTreeMap<String, Info>,
    /// That the daemon does not answer has been said.
    told: bool,
    /// The machine stops.
    over: bool,
}

/// What a machine's run is begun with.
pub(crate) struct Beginning<'a> {
    /// The directory of the host's Nix, `/nix`; none where the machine is to see nothing of it.
    pub(crate) nix: Option<&'a Path>,
    /// The builder's list of paths that its machine knows.
    pub(crate) list: PathBuf,
    /// What runs the machine.
    pub(crate) kind: Kind,
    /// The process that has started the container.
    pub(crate) launcher: Option<u32>,
    pub(crate) agent: Agent,
    pub(crate) log: Log,
}

/// Hears what one client says.
pub(crate) struct Ear {
    store: HostStore,
    talk: Talk,
}

impl Ear {
    /// Hears bytes before the machine does, and sees to what they ask for.
    pub(crate) async fn hear(&mut self, bytes: &[u8]) {
        let asked = self.talk.hear(bytes);
        if !asked.is_empty() {
            let store = self.store.clone();
            // In a task of its own: nobody waits any more once this client's connection ends, and that must
            // not leave it half done. What is forgotten meanwhile ends connections itself.
            drop(tokio::spawn(async move { store.offer(&asked).await }).await);
        }
    }
}

impl HostStore {
    /// Begins a run: the machine's Nix has been started, and nobody has spoken to it yet. Paths that it
    /// knows from its last run are put there again, or are forgotten.
    pub(crate) async fn begin(beginning: Beginning<'_>) -> Result<Option<Self>, HostStoreError> {
        let Beginning {
            nix,
            list,
            kind,
            launcher,
            agent,
            log,
        } = beginning;
        let from = nix.unwrap_or_else(|| Path::new(""));
        let ground = match kind {
            Kind::Container => Ground::container(launcher, from.join("store"), agent),
            Kind::Vm => Ground::vm(from.join("store"), agent, log.clone()).await,
        };
        let (list, former) = List::open(list)?;
        let ground = match ground {
            Ok(ground) => ground,
            Err(error) if former.is_empty() => {
                let error = HostStoreError::Mount(error);
                log.say(&format!("warning: {}; all is copied", chain(error)));
                return Ok(None);
            }
            Err(error) => return Err(HostStoreError::Mount(error)),
        };
        let store = Self(Arc::new(Inner {
            socket: from.join(SOCKET),
            ground,
            list,
            log,
            shared: Mutex::new(Shared {
                daemon: None,
                known: BTreeMap::new(),
                told: false,
                over: false,
            }),
            paths: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        }));
        let mut shared = store.0.shared.lock().await;
        if nix.is_none() {
            // It is not to see them any more.
            let former = former.into_iter().collect();
            store.forget(&mut shared, former, false).await?;
            return Ok(None);
        }
        if !former.is_empty() {
            store.resume(&mut shared, former).await?;
        } else if let Err(error) = store.reach(&mut shared).await {
            // Who asks for it should hear that early; builds go on without.
            store.failed(&mut shared, error);
        }
        drop(shared);
        Ok(Some(store))
    }

    /// Sees to it that what the machine knows is there, and kept, before somebody speaks to its Nix.
    pub(crate) async fn check(&self) {
        let mut shared = self.0.shared.lock().await;
        if shared.over || shared.known.is_empty() {
            return;
        }
        if let Err(error) = self.reach(&mut shared).await {
            self.failed(&mut shared, error);
        }
    }

    /// What hears the next client.
    pub(crate) fn ear(&self) -> Ear {
        Ear {
            store: self.clone(),
            talk: Talk::new(),
        }
    }

    pub(crate) fn status(&self) -> HostStoreStatus {
        HostStoreStatus {
            paths: self.0.paths.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
        }
    }

    /// Ends the run: the machine is about to stop, and has less to unmount then.
    pub(crate) async fn end(&self) {
        let mut shared = self.0.shared.lock().await;
        shared.over = true;
        let names = shared.known.keys().cloned().collect();
        // It stops either way.
        drop(self.0.ground.take(names, false).await);
        shared.daemon = None;
    }

    /// Shows the machine what of `paths` the host has. Whatever goes wrong: they can be copied.
    async fn offer(&self, paths: &[String]) {
        let mut shared = self.0.shared.lock().await;
        if shared.over {
            return;
        }
        match self.see_to(&mut shared, paths).await {
            Ok((0, _)) => {}
            Ok((paths, bytes)) => {
                let megabytes = bytes.div_ceil(1 << 20);
                self.say(&format!(
                    "{paths} paths of the host's store ({megabytes} MiB) are there without a copy"
                ));
            }
            Err(error) => self.failed(&mut shared, error),
        }
    }

    /// Nothing more of the host is seen for now. That its daemon does not answer is told once.
    fn failed(&self, shared: &mut Shared, error: HostStoreError) {
        let daemon = matches!(error, HostStoreError::Daemon { .. });
        if !daemon || !shared.told {
            self.say(&format!("warning: {}", chain(error)));
        }
        shared.told |= daemon;
        shared.daemon = None;
    }

    /// As [`offer`](Self::offer). Returns how many paths came, and how many bytes their archives have.
    async fn see_to(
        &self,
        shared: &mut Shared,
        paths: &[String],
    ) -> Result<(usize, u64), HostStoreError> {
        if !shared.known.is_empty() {
            // What is known may be gone, where nobody has kept it.
            self.reach(shared).await?;
        }
        let known = shared.known.len();
        let names = paths.iter().filter_map(|path| name(path));
        let unknown = names.filter(|name| !shared.known.contains_key(*name));
        let unknown: Vec<String> = unknown.map(str::to_owned).collect();
        let bytes = match unknown.is_empty() {
            true => 0,
            false => self.add(shared, unknown, false).await?,
        };
        Ok((shared.known.len() - known, bytes))
    }

    /// After a start: what the machine knows from the last one.
    async fn resume(
        &self,
        shared: &mut Shared,
        former: BTreeSet<String>,
    ) -> Result<(), HostStoreError> {
        let names = former.iter().cloned().collect();
        self.add(shared, names, true).await?;
        let known = |name: &String| shared.known.contains_key(name);
        let gone: Vec<String> = former.into_iter().filter(|name| !known(name)).collect();
        self.forget(shared, gone, false).await
    }

    /// Puts paths, and all that they need, into the machine, and tells its Nix of them; `again` after a
    /// start. Returns how many bytes their archives have.
    async fn add(
        &self,
        shared: &mut Shared,
        names: Vec<String>,
        again: bool,
    ) -> Result<u64, HostStoreError> {
        let inner = &self.0;
        let mut infos = self.closure(shared, names).await?;
        if infos.is_empty() {
            return Ok(0);
        }
        let names: Vec<String> = infos.keys().cloned().collect();
        let put = inner.ground.put(names.clone(), again).await;
        let put = put.map_err(HostStoreError::Mount)?;
        let mut lost = BTreeSet::new();
        for (name, put) in names.into_iter().zip(put) {
            match put {
                Put::There => {}
                // It has a copy of its own, or one is on its way.
                Put::Taken => drop(infos.remove(&name)),
                // It is copied, with what needs it.
                Put::Former => drop(lost.insert(name)),
                Put::Lost(why) => {
                    let path = path(&name);
                    self.say(&format!(
                        "warning: the host's Nix takes {path} for valid, but: {why}; \
                         `nix-store --repair-path {path}` may bring it back"
                    ));
                    lost.insert(name);
                }
            }
        }
        let mut back = without(&mut infos, &lost);
        // They were not put there: what is in their place is the machine's own.
        back.retain(|name| !lost.contains(name));
        let registered = self.tell(shared, &infos).await;
        if registered.is_err() {
            back.extend(infos.keys().cloned());
        }
        let taken = inner.ground.take(back, true).await;
        registered?;
        taken.map_err(HostStoreError::Mount)?;
        let bytes = infos.values().map(|info| info.size).sum();
        inner.paths.fetch_add(infos.len(), Ordering::Relaxed);
        inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.known.append(&mut infos);
        Ok(bytes)
    }

    /// Tells the machine's Nix of paths. Before, they are on the list: whatever happens, it is known at the
    /// next start which of its paths are the host's.
    async fn tell(
        &self,
        shared: &Shared,
        infos: &BTreeMap<String, Info>,
    ) -> Result<(), HostStoreError> {
        if infos.is_empty() {
            return Ok(());
        }
        let all = shared.known.keys().chain(infos.keys());
        self.0.list.write(all)?;
        let registered = self.0.ground.register(infos).await;
        registered.map_err(HostStoreError::Register)
    }

    /// Makes the machine forget paths that the host does not have any more; `running`: after they may have
    /// been used.
    async fn forget(
        &self,
        shared: &mut Shared,
        gone: Vec<String>,
        running: bool,
    ) -> Result<(), HostStoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        self.say(&format!(
            "the host does not have {} any more, and {} more paths; what refers to them is forgotten",
            path(&gone[0]),
            gone.len() - 1
        ));
        let ground = &self.0.ground;
        let taken = ground.take(gone.clone(), false).await;
        taken.map_err(HostStoreError::Mount)?;
        let forgotten = ground.forget(&gone, running).await;
        forgotten.map_err(HostStoreError::Forget)?;
        for name in &gone {
            if let Some(info) = shared.known.remove(name) {
                self.0.paths.fetch_sub(1, Ordering::Relaxed);
                self.0.bytes.fetch_sub(info.size, Ordering::Relaxed);
            }
        }
        Ok(self.0.list.write(shared.known.keys())?)
    }

    /// What the host knows of these paths and all that they need, without what is known already. It keeps
    /// them from now on. What is not valid is not among them.
    async fn closure(
        &self,
        shared: &mut Shared,
        names: Vec<String>,
    ) -> Result<BTreeMap<String, Info>, HostStoreError> {
        self.reach(shared).await?;
        let mut seen: BTreeSet<String> = names.iter().cloned().collect();
        let mut infos = BTreeMap::new();
        let mut next = names;
        while !next.is_empty() {
            let found = self.keep(shared, &next).await?;
            let mut further = Vec::new();
            for (of, info) in next.into_iter().zip(found) {
                let Some(info) = info else {
                    continue;
                };
                for name in info.references.iter().filter_map(|path| name(path)) {
                    if !shared.known.contains_key(name) && seen.insert(name.to_owned()) {
                        further.push(name.to_owned());
                    }
                }
                infos.insert(of, info);
            }
            next = further;
        }
        Ok(infos)
    }

    async fn keep(
        &self,
        shared: &mut Shared,
        names: &[String],
    ) -> Result<Vec<Option<Info>>, HostStoreError> {
        let paths: Vec<String> = names.iter().map(|name| path(name)).collect();
        let kept = match &mut shared.daemon {
            Some(daemon) => daemon.keep(&paths).await,
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        kept.map_err(|source| self.unreachable(source))
    }

    /// Connects to the host's daemon, where there is no connection. What the former one has kept, this one
    /// keeps; what has gone between the two is forgotten.
    async fn reach(&self, shared: &mut Shared) -> Result<(), HostStoreError> {
        if shared.daemon.as_ref().is_some_and(|it| !it.has_ended()) {
            return Ok(());
        }
        shared.daemon = None;
        let daemon = Daemon::connect(&self.0.socket).await;
        let daemon = daemon.map_err(|source| self.unreachable(source))?;
        let end = daemon.end().map_err(|source| self.unreachable(source))?;
        shared.daemon = Some(daemon);
        shared.told = false;
        let renewed = Self::renewed(end, Arc::downgrade(&self.0));
        drop(tokio::spawn(renewed));
        let names: Vec<String> = shared.known.keys().cloned().collect();
        let kept = self.keep(shared, &names).await?;
        let gone = names.into_iter().zip(kept);
        let gone = gone.filter_map(|(name, info)| info.is_none().then_some(name));
        let gone = gone.collect();
        self.forget(shared, gone, true).await
    }

    /// When a connection to the host's daemon has `end`ed, the host keeps nothing until there is another.
    fn renewed(
        end: impl Future<Output = ()> + Send + 'static,
        inner: Weak<Inner>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            end.await;
            if let Some(inner) = inner.upgrade() {
                Self(inner).renew().await;
            }
        })
    }

    async fn renew(&self) {
        let mut shared = self.0.shared.lock().await;
        // It may be another's end that is heard of late.
        let ended = shared.daemon.as_ref().is_none_or(Daemon::has_ended);
        if shared.over || !ended || shared.known.is_empty() {
            return;
        }
        shared.daemon = None;
        if let Err(error) = self.reach(&mut shared).await {
            let text = chain(error);
            self.say(&format!(
                "warning: the host may remove what builds still use: {text}"
            ));
            shared.daemon = None;
        }
    }

    fn unreachable(&self, source: std::io::Error) -> HostStoreError {
        HostStoreError::Daemon {
            socket: self.0.socket.clone(),
            source,
        }
    }

    fn say(&self, text: &str) {
        self.0.log.say(text);
    }
}
