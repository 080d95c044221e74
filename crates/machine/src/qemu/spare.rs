//! A QEMU in reserve: a machine that goes back to a checkpoint again and again has the next one ready
//! while the present one runs.
//!
//! ```text
//! starts, restored, made right ──▶ stands still ──▶ takes the machine's place ──▶ clock and random state
//!   beside the machine that runs                     when that goes back            once more, and on
//! ```
//! Until it takes the place, nothing of it is the machine's: its disks are overlays of its own, its
//! console is not read, and what it sends waits in sockets that hang on no VLAN. It runs for as long
//! as any restored machine does before its first command, so that what comes then finds code that
//! QEMU has translated. Whatever is wrong with it, the machine is restored without it.

use std::any::Any;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::argv::{Drive, VmPlan};
use super::frozen::Frozen;
use super::plan::plugged;
use super::qmp::{Cont, Qmp, Stop};
use super::warm::{BACK, until_back};
use super::{Beginning, Qemu, golden, spawn_failed};
use crate::agent::Agent;
use crate::backend::{Happening, Mode, Run};
use crate::environment::{Attached, Reserve};
use crate::error::{LaunchError, chain};
use crate::renewal;

/// What counts a spare, for whom that matters; it goes with the spare.
pub(crate) type Counted = Arc<dyn Any + Send + Sync>;

/// A spare that is ready, or in the making. Dropping it ends it.
pub(crate) struct Spare {
    of: Arc<Frozen>,
    mode: Mode,
    making: JoinHandle<Result<Waiting, String>>,
    /// Dropped, it ends what is in the making.
    wanted: oneshot::Sender<()>,
    _counted: Counted,
}

/// A spare that stands still.
struct Waiting {
    run: Run,
    agent: Agent,
    qmp: Qmp,
    apart: Apart,
}

/// What a spare has for itself, until it is the machine's.
pub(super) struct Apart {
    socket: String,
    disks: Overlays,
    places: Box<dyn Reserve>,
    /// Its places on the network, when it has them.
    attached: Arc<Mutex<Option<Attached>>>,
    /// Whether what it prints is the machine's.
    is_machine: watch::Sender<bool>,
}

/// Disks of nobody, which go with this.
struct Overlays(Vec<Drive>);

impl Drop for Overlays {
    fn drop(&mut self) {
        for disk in &self.0 {
            // The machine's directory may be gone already.
            drop(std::fs::remove_file(&disk.path));
        }
    }
}

/// Whether what a QEMU prints is the machine's: at once, or when a spare takes its place.
pub(super) fn is_wanted(apart: Option<&Apart>) -> impl Future<Output = bool> + Send + 'static {
    let is_machine = apart.map(|apart| apart.is_machine.subscribe());
    async {
        match is_machine {
            None => true,
            Some(mut is_machine) => is_machine.wait_for(|&is| is).await.is_ok(),
        }
    }
}

impl Apart {
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    pub(super) fn disks(&self) -> &[Drive] {
        &self.disks.0
    }

    pub(super) fn attached(&self) -> Arc<Mutex<Option<Attached>>> {
        Arc::clone(&self.attached)
    }

    /// From now on all of this is the machine's. Blocks.
    fn join(mut self, qemu: &Qemu) -> std::io::Result<()> {
        let attached = Attached::new(&qemu.environment, &qemu.spec.name);
        let mut slot = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(attached);
        drop(slot);
        self.places.take()?;
        qemu.tops.begin(&std::mem::take(&mut self.disks.0));
        self.is_machine.send_replace(true);
        Ok(())
    }
}

impl Qemu {
    /// Makes what a spare is to have for itself. Blocks.
    pub(super) fn set_apart(&self, frozen: &Frozen) -> Result<Apart, LaunchError> {
        let number = self.spares.fetch_add(1, Ordering::Relaxed);
        let dir: &Path = &self.environment.dir;
        let places = self
            .environment
            .attach
            .reserve(&self.spec.name, &self.spec.nics);
        Ok(Apart {
            socket: format!("{}-{number}", super::AGENT_SOCKET),
            disks: Overlays(self.tops.overlays(dir, &frozen.disks)?),
            places: places.map_err(LaunchError::Network)?,
            attached: Arc::default(),
            is_machine: watch::Sender::new(false),
        })
    }

    /// Lets the cards of a spare's plan lead to where they are to lead later.
    pub(super) fn plug_apart(&self, plan: &mut VmPlan, apart: &Apart) {
        let sockets = apart.places.sockets().iter();
        let nics = self.spec.nics.iter().zip(sockets);
        plan.nics = nics.map(|(nic, socket)| plugged(nic, socket)).collect();
    }

    /// Begins to make a spare of the machine, as it was then.
    pub(crate) fn spare(self: &Arc<Self>, mode: Mode, of: Arc<Frozen>, counted: Counted) -> Spare {
        let (this, frozen) = (Arc::clone(self), Arc::clone(&of));
        let (wanted, unwanted) = oneshot::channel();
        let making = async move { this.make_spare(mode, frozen, unwanted).await };
        Spare {
            of,
            mode,
            making: tokio::spawn(making),
            wanted,
            _counted: counted,
        }
    }

    async fn make_spare(
        self: Arc<Self>,
        mode: Mode,
        of: Arc<Frozen>,
        unwanted: oneshot::Receiver<()>,
    ) -> Result<Waiting, String> {
        let (system_ready, this) = (of.system_ready, Arc::clone(&self));
        let spawned = tokio::task::spawn_blocking(move || this.spawn(mode, &Beginning::Spare(of)));
        let spawned = spawned.await.map_err(|error| error.to_string())?;
        let mut spawned = spawned.map_err(|error| chain(&error))?;
        let apart = spawned.apart.take().ok_or("it has nothing for itself")?;
        let begun = self.supervise(spawned, Some(&apart));
        let mut run = begun.map_err(|error| chain(&spawn_failed(error)))?;
        let ready = tokio::select! {
            ready = tokio::time::timeout(BACK, rehearse(&mut run, system_ready)) => ready,
            _ = unwanted => Ok(Err("nobody wants it any more".into())),
        };
        match ready.unwrap_or_else(|_| Err(format!("it is not ready within {BACK:?}"))) {
            Ok((agent, qmp)) => Ok(Waiting {
                run,
                agent,
                qmp,
                apart,
            }),
            Err(why) => {
                // Nobody waits for what it prints.
                drop(apart);
                golden::end(run).await;
                Err(why)
            }
        }
    }

    /// Lets a spare take the place of the machine, which does not run any more.
    ///
    /// # Errors
    /// It is of no use. Nothing is left of it.
    pub(super) async fn take_over(self: &Arc<Self>, mut spare: Spare) -> Result<Run, String> {
        let made = (&mut spare.making).await;
        let Waiting {
            mut run,
            agent,
            qmp,
            apart,
        } = made.map_err(|error| error.to_string())??;
        let taken = async {
            catch_up(&mut run)?;
            let this = Arc::clone(self);
            let joined = tokio::task::spawn_blocking(move || apart.join(&this)).await;
            let joined = joined.map_err(|error| error.to_string())?;
            joined.map_err(|error| error.to_string())?;
            agent.set_standing(false);
            qmp.perform(&Cont {}).await.map_err(|error| chain(&error))?;
            renewal::go_on(&agent).await.map(drop)
        };
        let taken = tokio::time::timeout(BACK, taken).await;
        match taken.unwrap_or_else(|_| Err(format!("it does not go on within {BACK:?}"))) {
            Ok(()) => Ok(run),
            Err(why) => {
                golden::end(run).await;
                Err(why)
            }
        }
    }
}

impl Spare {
    /// Whether it is what a machine is to go back to, when it is started like this.
    pub(crate) fn fits(&self, frozen: &Arc<Frozen>, mode: Mode) -> bool {
        self.is_of(frozen) && self.mode == mode
    }

    /// Whether it is of this moment.
    pub(crate) fn is_of(&self, frozen: &Arc<Frozen>) -> bool {
        Arc::ptr_eq(&self.of, frozen)
    }

    /// Ends it, and waits until it is gone.
    pub(crate) async fn end(self) {
        drop(self.wanted);
        if let Ok(Ok(Waiting { run, apart, .. })) = self.making.await {
            // Nobody waits for what it prints.
            drop(apart);
            golden::end(run).await;
        }
    }
}

/// Lets a spare run until it is what a restored machine is before its first command, and stops it.
async fn rehearse(run: &mut Run, system_ready: bool) -> Result<(Agent, Qmp), String> {
    let renew = |agent| async move {
        renewal::rehearse(&agent).await?;
        Ok(agent)
    };
    let early = until_back(run, system_ready, renew).await;
    let early = early.map_err(|why| why.reason)?;
    let agent = early.iter().find_map(|happening| match happening {
        Happening::Agent(agent) => Some(agent.clone()),
        _ => None,
    });
    let qmp = early.iter().find_map(|happening| match happening {
        Happening::Reach(reach) => reach.qmp.clone(),
        _ => None,
    });
    let (Some(agent), Some(qmp)) = (agent, qmp) else {
        return Err("it does not say how it is reached".into());
    };
    let mut seen: VecDeque<Happening> = early;
    seen.append(&mut run.early);
    run.early = seen;
    agent.set_standing(true);
    qmp.perform(&Stop {}).await.map_err(|error| chain(&error))?;
    Ok((agent, qmp))
}

/// Looks at what a spare has seen while it waited.
fn catch_up(run: &mut Run) -> Result<(), String> {
    while let Ok(happening) = run.happenings.try_recv() {
        match happening {
            // That was we; what comes of it now the machine hears.
            Happening::Standing(_) => {}
            Happening::Ended(_)
            | Happening::Reset
            | Happening::Unfit(_)
            | Happening::Panicked(_)
            | Happening::Broken(_) => return Err("it did not wait".into()),
            other => run.early.push_back(other),
        }
    }
    Ok(())
}
