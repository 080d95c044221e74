//! Starting a VM warm: from its snapshot, which is made first where there is none.
//!
//! ```text
//! key ──▶ in the store? ──yes──▶ whole? ──yes──▶ restore ──▶ the agent answers ──▶ the machine is up
//!           │ no                   │ no             │ fails
//!           ▼                      ▼                ▼
//!         boot to the ready      thrown away, one line, and from the beginning;
//!         point, save, quit      what has just been made and fails as well: a boot
//! ```
//! A restore whose QEMU somebody kills says nothing of the snapshot: it is tried once more.
//! Whatever goes wrong here, the machine boots as it would without any of this.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use machinist_guest::Lack;

use super::frozen::Frozen;
use super::golden::{self, Unmade};
use super::spare::Spare;
use super::{Beginning, Qemu, key};
use crate::agent::{self, Agent};
use crate::backend::{Happening, Mode, Run, next_of};
use crate::environment::Report;
use crate::error::{LaunchError, chain};
use crate::lifecycle::Ending;
use crate::renewal::{self, Fresh, HostKeys};
use crate::snapshot::{Claim, Golden, Parts, ReadyPoint, Saved, SnapshotStore, Warm};
use crate::spec::{Disk, DiskAccess, Kind, MachineSpec};

/// How long the agent of a restored machine may take to answer. It answers in a fraction of a
/// second, but many may be restored at once on a busy host.
pub(super) const BACK: Duration = Duration::from_secs(60);

/// How long the end of a QEMU may come after the first sign of it.
const LAST_WORD: Duration = Duration::from_secs(3);

/// Bytes that are not enough for anything, and bytes that are for the memory of most.
const LITTLE: u64 = 32 << 20;
const MUCH: u64 = 1 << 30;

/// What a warm start needs.
struct Wish {
    store: SnapshotStore,
    ready: ReadyPoint,
    golden: Option<Golden>,
}

/// How a way to a warm start ended.
enum Way {
    /// It runs.
    Runs(Run),
    /// It has to boot: why, where the user is to be told.
    Cold(Option<String>),
    /// It is worth another attempt.
    Again,
}

/// What has been tried of a warm start.
#[derive(Default)]
struct Tried {
    /// The snapshot has been made.
    made: bool,
    /// A restore was begun whose QEMU somebody killed.
    killed: bool,
}

/// Why a machine did not come back.
pub(super) struct NotBack {
    pub(super) reason: String,
    /// Somebody killed its QEMU.
    killed: bool,
}

impl From<String> for NotBack {
    fn from(reason: String) -> Self {
        Self {
            reason,
            killed: false,
        }
    }
}

impl From<&str> for NotBack {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl Qemu {
    /// Starts it: from a snapshot where that is wanted and can be, else by a boot.
    pub(crate) async fn launch(self: Arc<Self>, mode: Mode) -> Result<Run, LaunchError> {
        let because = match self.wish_for_warmth() {
            Ok(wish) => match self.launch_warm(mode, &wish).await? {
                Ok(run) => return Ok(run),
                Err(because) => because,
            },
            Err(because) => because,
        };
        if let Some(reason) = because {
            (self.environment.report)(Report::ColdBecause { reason });
        }
        self.begin(mode, Beginning::Boot).await
    }

    /// Whether it is to be restored. If not, why, where there is something to say.
    fn wish_for_warmth(&self) -> Result<Wish, Option<String>> {
        let (ready, golden) = match &self.spec.warm {
            Warm::Cold { because } => return Err(because.clone()),
            Warm::At { ready, golden } => (ready.clone(), golden.clone()),
        };
        let Some(store) = self.environment.snapshots.clone() else {
            return Err(None);
        };
        if super::firmware(&super::host_program(self)).is_none() {
            return Err(Some("the BIOS of QEMU is not found".into()));
        }
        if let Some(reason) = hindrance(&self.spec, golden.as_ref()) {
            return Err(Some(reason));
        }
        if !self.tops.now().is_empty() {
            return Err(Some(
                "its disks hold what it wrote before it went off".to_owned(),
            ));
        }
        Ok(Wish {
            store,
            ready,
            golden,
        })
    }

    /// Starts it warm, or says why it has to boot.
    async fn launch_warm(
        self: &Arc<Self>,
        mode: Mode,
        wish: &Wish,
    ) -> Result<Result<Run, Option<String>>, LaunchError> {
        let began = Instant::now();
        let mut tried = Tried::default();
        loop {
            let spec = golden::identity(&self.spec, wish.golden.as_ref());
            let parts = match self.parts(mode, spec.clone(), wish).await? {
                Ok(parts) => parts,
                Err(reason) => return Ok(Err(Some(reason))),
            };
            let way = self.one_way(mode, wish, spec, parts, &mut tried, began);
            match way.await {
                Way::Runs(run) => return Ok(Ok(run)),
                Way::Cold(because) => return Ok(Err(because)),
                Way::Again => {}
            }
        }
    }

    /// Everything that goes into the snapshot.
    async fn parts(
        self: &Arc<Self>,
        mode: Mode,
        spec: MachineSpec,
        wish: &Wish,
    ) -> Result<Result<Parts, String>, LaunchError> {
        let accelerator = self.choose(mode.plain)?;
        let this = Arc::clone(self);
        let (store, ready) = (wish.store.clone(), wish.ready.clone());
        let reading = tokio::task::spawn_blocking(move || {
            key::parts(&this, spec, accelerator, &ready, &store)
        });
        Ok(match reading.await {
            Ok(parts) => parts.map_err(|error| chain(&error)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Restores the snapshot, or makes it first.
    async fn one_way(
        self: &Arc<Self>,
        mode: Mode,
        wish: &Wish,
        spec: MachineSpec,
        parts: Parts,
        tried: &mut Tried,
        began: Instant,
    ) -> Way {
        let key = parts.key();
        let (saved, fresh) = match wish.store.claim(&key).await {
            Ok(Claim::There(saved)) => (saved, false),
            Ok(Claim::Ours(_)) if tried.made => return Way::Cold(None),
            Ok(Claim::Ours(making)) => {
                if let Some(text) = wish.store.why_not_theirs(&self.spec.name, &parts) {
                    (self.environment.report)(Report::Warning { text });
                }
                if let Some(reason) = full(&wish.store, self.spec.memory) {
                    return Way::Cold(Some(reason));
                }
                tried.made = true;
                let making = self.make(mode, spec, &wish.ready, parts, making);
                match making.await {
                    Ok(saved) => (saved, true),
                    Err(Unmade::Unfit(reason)) => {
                        (self.environment.report)(Report::AccelFallback { reason });
                        tried.made = false;
                        return Way::Again;
                    }
                    Err(Unmade::Never(reason)) => {
                        let reason = format!("it could not be saved: {reason}");
                        // The next start would take as long, and for as little.
                        let again = format!("a while ago {reason}");
                        wish.store.refuse(&key, &again);
                        return Way::Cold(Some(reason));
                    }
                    Err(Unmade::Failed(reason)) => {
                        return Way::Cold(Some(format!("it could not be saved: {reason}")));
                    }
                }
            }
            Ok(Claim::Unable(reason)) => return Way::Cold(Some(reason)),
            Err(error) => return Way::Cold(Some(chain(&error))),
        };
        match self.restore(mode, wish, &saved, fresh, began).await {
            Ok(run) => Way::Runs(run),
            Err(why) if why.killed && tried.killed => Way::Cold(Some(why.reason)),
            Err(why) if why.killed => {
                tried.killed = true;
                let text = format!("it is restored once more: {}", why.reason);
                (self.environment.report)(Report::Warning { text });
                Way::Again
            }
            Err(NotBack { reason, .. }) => {
                if fresh {
                    let again = format!("a snapshot of it did not restore a while ago: {reason}");
                    wish.store.refuse(&key, &again);
                }
                (self.environment.report)(Report::SnapshotDiscarded { reason });
                wish.store.discard(saved);
                Way::Again
            }
        }
    }

    /// Restores a snapshot, and waits until its agent answers. `fresh` says that its console has
    /// been seen here already.
    async fn restore(
        self: &Arc<Self>,
        mode: Mode,
        wish: &Wish,
        saved: &Saved,
        fresh: bool,
        began: Instant,
    ) -> Result<Run, NotBack> {
        let settled = &saved.manifest().settled;
        let (dir, search) = (&self.environment.dir, &self.environment.search);
        let fresh_parts = Fresh {
            keys: HostKeys::begin(settled, &self.spec.name, dir, search),
            mark: String::new(),
        };
        let (this, store, looked_at) = (Arc::clone(self), wish.store.clone(), saved.clone());
        let looking = tokio::task::spawn_blocking(move || this.look(&store, &looked_at, fresh));
        let frozen = looking.await.map_err(|error| error.to_string())??;
        let golden = golden::identity(&self.spec, wish.golden.as_ref());
        let renew = |agent| async move {
            let renewed = renewal::renew(&agent, &golden, &self.spec, settled, fresh_parts).await?;
            self.tell_lacks(&renewed.lacks);
            Ok(agent)
        };
        let run = self.revive(mode, Arc::new(frozen), renew).await;
        let run = run.inspect_err(|_| self.tops.forget())?;
        let mut stands_on = self
            .stands_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *stands_on = Some(saved.clone());
        (self.environment.report)(Report::Restored {
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(run)
    }

    /// Looks whether a snapshot is whole, and shows its console. Blocks.
    fn look(&self, store: &SnapshotStore, saved: &Saved, fresh: bool) -> Result<Frozen, String> {
        store.verify(saved).map_err(|error| chain(&error))?;
        if !fresh {
            let console = saved.console().map_err(|error| chain(&error))?;
            self.console.feed(&console);
        }
        Ok(saved.frozen())
    }

    /// Tells what a restored machine lacks that a booted one would have.
    fn tell_lacks(&self, lacks: &[Lack]) {
        for Lack { what, why } in lacks {
            let text = format!("restored, but for its {what}: {why}");
            (self.environment.report)(Report::Warning { text });
        }
    }

    /// Starts it from where it stood still earlier in its life, or from where another did that it is
    /// made of; by a spare of that, where there is one.
    pub(crate) async fn go_back(
        self: Arc<Self>,
        mode: Mode,
        frozen: Arc<Frozen>,
        spare: Option<Spare>,
    ) -> Result<Run, LaunchError> {
        if let Some(spare) = spare {
            match self.take_over(spare).await {
                Ok(run) => return Ok(run),
                Err(reason) => tracing::debug!(machine = self.spec.name, reason, "a spare fails"),
            }
        }
        let was = frozen.was.clone().map(|was| {
            let (dir, search) = (&self.environment.dir, &self.environment.search);
            let keys = HostKeys::begin(&was.settled, &self.spec.name, dir, search);
            let mark = renewal::mark_of(was.saved);
            (was, Fresh { keys, mark })
        });
        let renew = |agent| async {
            match was {
                None => renewal::go_on(&agent).await?,
                Some((was, fresh)) => {
                    let renewed =
                        renewal::renew(&agent, &was.spec, &self.spec, &was.settled, fresh).await?;
                    self.tell_lacks(&renewed.lacks);
                    renewed
                }
            };
            Ok(agent)
        };
        let revived = self.revive(mode, frozen, renew).await;
        revived.map_err(|why| LaunchError::Unable(why.reason))
    }

    /// Starts it from where it or another stood still, and waits until its agent answers and `renew`
    /// has made it right.
    async fn revive<F>(
        self: &Arc<Self>,
        mode: Mode,
        frozen: Arc<Frozen>,
        renew: impl FnOnce(Agent) -> F,
    ) -> Result<Run, NotBack>
    where
        F: Future<Output = Result<Agent, String>>,
    {
        let system_ready = frozen.system_ready;
        let begun = self.begin(mode, Beginning::Frozen(frozen)).await;
        let mut run = begun.map_err(|error| chain(&error))?;
        let answered = tokio::time::timeout(BACK, until_back(&mut run, system_ready, renew)).await;
        let late = || Err(format!("its agent does not answer within {BACK:?}").into());
        let mut early = match answered.unwrap_or_else(|_| late()) {
            Ok(early) => early,
            Err(why) => {
                let why = why_it_ended(&mut run).await.unwrap_or(why);
                golden::end(run).await;
                return Err(why);
            }
        };
        early.append(&mut run.early);
        run.early = early;
        Ok(run)
    }
}

/// Waits until a restored machine's agent answers and `renew` is done with it. Returns what the
/// machine's task is to hear of first.
pub(super) async fn until_back<F>(
    run: &mut Run,
    system_ready: bool,
    renew: impl FnOnce(Agent) -> F,
) -> Result<VecDeque<Happening>, NotBack>
where
    F: Future<Output = Result<Agent, String>>,
{
    // What its system was it is: who hears of the agent shall know that, and need not ask it.
    let mut early: VecDeque<_> = system_ready
        .then_some(Happening::Ready)
        .into_iter()
        .collect();
    let mut renew = Some(renew);
    let mut reviving = None;
    loop {
        tokio::select! {
            happening = next_of(Some(run)) => match happening {
                Happening::Channel(channel) => {
                    // What is said to it waits until the machine goes on.
                    let renew = renew.take().ok_or("its agent went away")?;
                    reviving = Some(Box::pin(async {
                        renew(agent::find(channel, BACK).await?).await
                    }));
                }
                Happening::Unfit(reason)
                | Happening::Panicked(reason)
                | Happening::Broken(reason) => return Err(reason.into()),
                Happening::Ended(ending) => {
                    return Err(not_back(ending).unwrap_or_else(|| "it went off".into()));
                }
                Happening::Reset => return Err("it restarted".into()),
                other => early.push_back(other),
            },
            revived = golden::next(reviving.as_mut()) => {
                early.push_back(Happening::Agent(revived?));
                return Ok(early);
            }
        }
    }
}

/// Why a restored machine ended, if it is about to: a channel that closes is the first sign of that,
/// and the end itself, which says more, comes a moment later.
async fn why_it_ended(run: &mut Run) -> Option<NotBack> {
    let ended = async {
        loop {
            if let Happening::Ended(ending) = next_of(Some(run)).await {
                return not_back(ending);
            }
        }
    };
    tokio::time::timeout(LAST_WORD, ended).await.ok().flatten()
}

/// An end that says why.
fn not_back(ending: Ending) -> Option<NotBack> {
    match ending {
        Ending::Fault(reason) => Some(reason.into()),
        Ending::KilledByOthers(reason) => Some(NotBack {
            reason,
            killed: true,
        }),
        Ending::ByItself | Ending::Killed => None,
    }
}

/// Whether there is too little room for the snapshot of a machine with so much memory. How much of
/// it a boot uses nobody knows before.
pub(super) fn full(store: &SnapshotStore, memory: u64) -> Option<String> {
    let free = store.free().ok()?;
    let needed = memory.clamp(LITTLE, MUCH);
    (free < needed).then(|| {
        format!(
            "the file system of {} has {} MB free",
            store.dir().display(),
            free / 1_000_000
        )
    })
}

/// What of a machine keeps it from being saved or restored, as one sentence.
fn hindrance(spec: &MachineSpec, golden: Option<&Golden>) -> Option<String> {
    let boot = spec.image.boot.as_ref()?;
    if let machinist_image::BootRoot::Share9p(_) = boot.root {
        return Some("its root is a directory of the host".into());
    }
    if let Some(volume) = spec.volumes.first() {
        let target = volume.target.display();
        return Some(format!("it sees a directory of the host at {target}"));
    }
    let written = |disk: &Disk| match disk {
        Disk::File {
            path,
            access: DiskAccess::Write,
        } => Some(format!("it writes to {}", path.display())),
        _ => None,
    };
    if let Kind::Vm { disks, .. } = &spec.kind
        && let Some(reason) = disks.iter().find_map(written)
    {
        return Some(reason);
    }
    let names = |nics: &[crate::spec::NicSpec]| -> Vec<String> {
        nics.iter().map(|nic| nic.name.clone()).collect()
    };
    if let Some(golden) = golden
        && names(&golden.nics) != names(&spec.nics)
    {
        return Some("its network interfaces are not those of its golden machine".into());
    }
    None
}
