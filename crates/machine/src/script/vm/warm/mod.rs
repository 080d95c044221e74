//! Warm starts of a start script's VM.
//!
//! A script is not ours, so its snapshot is known by what goes into the script ([`key`]): its text,
//! the files and variables that it names. What it does with them is seen when it has done it: the
//! QEMU that it started is compared with the one that was saved ([`observed`]) before that one's
//! state is loaded. What the script keeps in its directory is part of the snapshot ([`files`]).
//!
//! ```text
//! no snapshot:  probe ── clear ── boot, memory in a file ── ready ── save ──┐
//!               (how much memory?)                                          ▼
//! a snapshot:                    give the files back ── run the script ── compare ── load ── go on
//! ```

mod files;
mod key;
mod named;
mod observed;
mod record;
mod ripe;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use machinist_guest::Settled;
use serde::{Deserialize, Serialize};

use super::begin::Looked;
use super::{ScriptVm, argv};
use crate::environment::Report;
use crate::error::chain;
use crate::path_error::{PathContext, PathError};
use crate::qemu::argv::Memory;
use crate::qemu::qmp::Qmp;
use crate::snapshot::{CONSOLE, Claim, Draft, MEMORY, Making, Parts, STATE, Saved, SnapshotStore};
use files::{Entry, Given};
use observed::{Look, Observed};
pub(super) use record::Record;
pub(super) use ripe::{Ripe, ripen};

/// The file of a snapshot that says what of it is the script's.
const CONTENT: &str = "script";

/// How a machine starts.
pub(super) enum Way {
    /// It boots.
    Boot,
    /// It boots to be saved.
    Golden(Box<Golden>),
    /// It goes on from where it was saved.
    Restore(Box<Restore>),
}

/// A snapshot in the making.
pub(super) struct Golden {
    making: Making,
    parts: Parts,
    observed: Observed,
}

/// A snapshot about to be restored.
pub(super) struct Restore {
    saved: Saved,
    content: Content,
    given: Vec<Given>,
    /// What it printed before it was saved is known.
    of_this_run: bool,
}

/// What of a snapshot is the script's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    observed: Observed,
    entries: Vec<Entry>,
}

impl Way {
    /// Whether QEMU is given more than the contract says.
    pub(super) fn is_warm(&self) -> bool {
        !matches!(self, Self::Boot)
    }

    /// What is added to the arguments of the contract.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Boot => Vec::new(),
            Self::Golden(golden) => golden.arguments(),
            Self::Restore(restore) => restore.arguments(),
        }
    }
}

/// The device by which a kernel learns that it was restored.
fn devices() -> Vec<OsString> {
    ["-device", "vmgenid,guid=auto"].map(OsString::from).into()
}

impl Golden {
    fn arguments(&self) -> Vec<OsString> {
        let memory = Memory::Shared(self.making.dir().join(MEMORY));
        let mut words = devices();
        words.extend(memory.arguments(self.observed.memory));
        words
    }

    /// Makes the file that will be its memory, for nobody else to read.
    fn make_memory(&self) -> Result<(), PathError> {
        let path = self.making.dir().join(MEMORY);
        let mut options = fs::File::options();
        let made = options.write(true).create_new(true).mode(0o600).open(&path);
        made.and_then(|file| file.set_len(self.observed.memory))
            .path(&path)
    }

    /// Saves the machine, which then stands still.
    pub(super) async fn save(
        self,
        this: &ScriptVm,
        qmp: &Qmp,
        settled: &Settled,
        console: Vec<u8>,
    ) -> Result<Saved, String> {
        state::save(qmp, &self.making.dir().join(STATE)).await?;
        let (spec, settled) = (this.spec.clone(), settled.clone());
        let keep = move || {
            let entries = files::freeze(&spec.state_dir, self.making.dir());
            let content = Content {
                observed: self.observed,
                entries: entries.map_err(|error| chain(&error))?,
            };
            let text = serde_json::to_vec(&content).map_err(|error| chain(&error))?;
            for (name, bytes) in [(CONTENT, &text), (CONSOLE, &console)] {
                let path = self.making.dir().join(name);
                write_private(&path, bytes).map_err(|error| chain(&error))?;
            }
            let script = spec.command.rsplit('/').next().unwrap_or_default();
            let draft = Draft {
                machine: spec.name.clone(),
                image: script.to_owned(),
                system_ready: true,
                settled,
                parts: self.parts,
                digests: BTreeMap::new(),
            };
            self.making.commit(draft).map_err(|error| chain(&error))
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|error| error.to_string())?
    }

    /// Lets a machine that stands still go on. One that did not stand still does not mind.
    pub(super) async fn go_on(qmp: &Qmp) {
        // Where it fails, QEMU has ended, and that is seen.
        drop(state::go_on(qmp).await);
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let mut options = fs::File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).path(path)
}

impl ScriptVm {
    /// How the machine is to start now. Whatever speaks against a warm start is reported.
    pub(super) async fn way(&self) -> Way {
        if !self.spec.warm {
            return Way::Boot;
        }
        match self.warm_way().await {
            Ok(way) => way,
            Err(reason) => {
                self.cold(reason);
                Way::Boot
            }
        }
    }

    /// Says why the machine boots.
    pub(super) fn cold(&self, reason: String) {
        (self.environment.report)(Report::ColdBecause { reason });
    }

    async fn warm_way(&self) -> Result<Way, String> {
        let store = self.store()?.clone();
        self.is_new()?;
        let (spec, of) = (self.spec.clone(), store.clone());
        // Files that were never seen before are read.
        let parts = tokio::task::spawn_blocking(move || key::parts(&spec, &of)).await;
        let parts = parts.map_err(|error| error.to_string())??;
        let claim = store.claim(&parts.key()).await;
        match claim.map_err(|error| chain(&error))? {
            Claim::There(saved) => match self.restore(&saved).await {
                Ok(restore) => Ok(Way::Restore(Box::new(restore))),
                Err(reason) => {
                    self.discard(saved, reason);
                    Ok(Way::Boot)
                }
            },
            Claim::Ours(making) => {
                let golden = Golden {
                    observed: self.probe(&store).await?,
                    making,
                    parts,
                };
                golden.make_memory().map_err(|error| chain(&error))?;
                Ok(Way::Golden(Box::new(golden)))
            }
            Claim::Unable(reason) => Err(reason),
        }
    }

    fn store(&self) -> Result<&SnapshotStore, String> {
        let store = self.environment.snapshots.as_ref();
        store.ok_or_else(|| "there is no place for snapshots".to_owned())
    }

    /// A machine that has a past does not begin anew.
    fn is_new(&self) -> Result<(), String> {
        let empty = files::is_empty(&self.spec.state_dir);
        if empty.map_err(|error| chain(&error))? {
            return Ok(());
        }
        Err("its state directory has something from before".to_owned())
    }

    /// Puts the script's files where they were when it was saved.
    pub(super) async fn restore(&self, saved: &Saved) -> Result<Restore, String> {
        let (store, saved) = (self.store()?.clone(), saved.clone());
        let state = self.spec.state_dir.clone();
        let put = tokio::task::spawn_blocking(move || give_back(&store, saved, &state)).await;
        put.map_err(|error| error.to_string())?
    }

    /// Throws a snapshot away that is of no use, with whatever came from it.
    pub(super) fn discard(&self, saved: Saved, reason: String) {
        (self.environment.report)(Report::SnapshotDiscarded { reason });
        if let Ok(store) = self.store() {
            store.discard(saved);
        }
        self.clear();
    }

    /// Empties the state directory, which was empty before this start.
    pub(super) fn clear(&self) {
        if let Err(error) = files::clear(&self.spec.state_dir) {
            self.cold(format!(
                "what was begun cannot be removed: {}",
                chain(&error)
            ));
        }
    }

    /// Runs the script as far as to a QEMU that has not begun, to see what it will be.
    async fn probe(&self, store: &SnapshotStore) -> Result<Observed, String> {
        let mut extra = devices();
        extra.push("-S".into());
        let begun = self.begin(&extra, false).map_err(|error| chain(&error))?;
        let mut looked = Looked::new(begun).map_err(|error| chain(&error))?;
        let (observed, qmp) = match looked.qemu(&self.spec.state_dir).await {
            Ok((qmp, pid)) => {
                let observed = self.observe(store, &qmp, pid, &extra, false).await;
                (observed.map(|(observed, _)| observed), Some(qmp))
            }
            Err(reason) => (Err(reason), None),
        };
        looked.end(qmp.as_ref()).await;
        self.clear();
        observed
    }

    async fn observe(
        &self,
        store: &SnapshotStore,
        qmp: &Qmp,
        pid: u32,
        extra: &[OsString],
        may_restart: bool,
    ) -> Result<(Observed, BTreeSet<PathBuf>), String> {
        let mut ours = argv::arguments(&self.spec, may_restart);
        ours.extend_from_slice(extra);
        let known = store.known();
        Observed::of(&Look {
            spec: &self.spec,
            qmp,
            pid,
            ours: &ours,
            digest: &|path| known.digest(path).map_err(|error| chain(&error)),
        })
        .await
    }
}

/// Puts files of a snapshot, if that is whole, into a state directory. Blocks.
fn give_back(store: &SnapshotStore, saved: Saved, state: &Path) -> Result<Restore, String> {
    let whole = saved.verify(&store.host().boot_id);
    whole.map_err(|error| chain(&error))?;
    let path = saved.dir().join(CONTENT);
    let text = fs::read(&path).path(&path).map_err(|error| chain(&error))?;
    let content: Content = serde_json::from_slice(&text).map_err(|error| chain(&error))?;
    let given = files::give_back(&content.entries, saved.dir(), state);
    Ok(Restore {
        given: given.map_err(|error| chain(&error))?,
        saved,
        content,
        of_this_run: false,
    })
}

impl Restore {
    fn arguments(&self) -> Vec<OsString> {
        let mut words = devices();
        let memory = Memory::Private(self.saved.memory());
        words.extend(memory.arguments(self.content.observed.memory));
        words.extend(["-incoming".into(), "defer".into()]);
        words
    }

    /// One whose console has been seen.
    pub(super) fn of_this_run(self) -> Self {
        Self {
            of_this_run: true,
            ..self
        }
    }

    /// Loads the state into a QEMU that waits for it. The machine stands still then.
    pub(super) async fn load(
        &self,
        this: &ScriptVm,
        qmp: &Qmp,
        pid: u32,
        may_restart: bool,
    ) -> Result<(), String> {
        let extra = self.arguments();
        let store = this.store()?;
        let (observed, written) = this.observe(store, qmp, pid, &extra, may_restart).await?;
        if let Some(difference) = observed.difference(&self.content.observed) {
            return Err(difference);
        }
        let made_anew = |given: &&Given| written.contains(&given.path) && given.has_changed();
        if let Some(given) = self.given.iter().find(made_anew) {
            let path = given.path.display();
            return Err(format!("its script makes {path} anew at each start"));
        }
        state::load(qmp, &self.saved.state()).await
    }

    /// What the machine had printed when it was saved, where that has not been seen.
    pub(super) fn console(&self) -> Option<Vec<u8>> {
        let unseen = !self.of_this_run;
        unseen.then(|| self.saved.console().unwrap_or_default())
    }

    pub(super) fn settled(&self) -> &Settled {
        &self.saved.manifest().settled
    }

    pub(super) fn system_ready(&self) -> bool {
        self.saved.manifest().system_ready
    }

    pub(super) fn into_saved(self) -> Saved {
        self.saved
    }
}
