//! The boot of a VM that is to be saved.
//!
//! It has its golden identity and nobody on its networks: what is saved holds nothing of the lab
//! that happens to run. When it is ready it is settled, stopped and saved, and its QEMU ends; the
//! machine that it was for then goes on as a restore of it, like all later ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machinist_guest::{Command, Settled};
use rustix::fs::MemfdFlags;

use super::disks;
use super::frozen::Tops;
use super::qmp::{Qmp, Quit};
use super::save::save_devices;
use super::{Beginning, Qemu};
use crate::agent::{self, Agent};
use crate::backend::{Channel, Control, Happening, Mode, Run, next_of};
use crate::console::Console;
use crate::environment::Report;
use crate::error::{LaunchError, chain};
use crate::lifecycle::Ending;
use crate::path_error::{PathContext, PathError};
use crate::renewal;
use crate::snapshot::{
    CONSOLE, Draft, Golden, MEMORY, Making, Parts, ReadyPoint, STATE, Saved, digest,
};
use crate::spec::{Kind, MachineSpec};

/// The directory, in that of the snapshot that is being made, of what is not saved.
const RUN: &str = "run";

/// Between two attempts of a command that says whether the machine is ready, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a system may take to say whether its start has finished, where that is not waited for.
const LOOK: Duration = Duration::from_secs(1);

/// How long QEMU may take to end when it is told to: it writes what its disks still lack.
const QUIT: Duration = Duration::from_secs(60);

/// Why there is no snapshot.
#[derive(Debug)]
pub(super) enum Unmade {
    /// The accelerator does not run this machine: it is worth another attempt.
    Unfit(String),
    /// The next attempt would end the same way: it was not ready in all the time that it may take,
    /// or wrote to what it is to leave alone until then.
    Never(String),
    /// Anything else.
    Failed(String),
}

impl From<String> for Unmade {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl From<LaunchError> for Unmade {
    fn from(error: LaunchError) -> Self {
        Self::Failed(chain(&error))
    }
}

/// A machine that stands ready to be saved.
struct Ready {
    settled: Settled,
    system_ready: bool,
    since: Instant,
}

/// A file for a memory of `size` bytes, which takes up none yet and is in no file system: the first write
/// to a page of a file on a disk is ten times as much work for the kernel, and a disk that is full would
/// end the machine.
pub(super) fn empty_memory(size: u64) -> io::Result<File> {
    let file: File = rustix::fs::memfd_create("machinist-memory", MemfdFlags::CLOEXEC)?.into();
    // QEMU's sizes are whole mebibytes.
    file.set_len(size.div_ceil(1 << 20) << 20)?;
    Ok(file)
}

/// Writes a memory to the directory of its snapshot. Returns its digest. Blocks.
fn keep_memory(memory: &File, dir: &Path) -> Result<String, PathError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join(MEMORY);
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|file| digest::copy(memory, &file))
        .path(&path)
}

/// The machine as it is while it boots to be saved.
pub(super) fn identity(spec: &MachineSpec, golden: Option<&Golden>) -> MachineSpec {
    let mut spec = spec.clone();
    if let Some(golden) = golden {
        spec.name.clone_from(&golden.name);
        spec.machine_id.clone_from(&golden.machine_id);
        spec.nics.clone_from(&golden.nics);
        spec.hosts.clone_from(&golden.hosts);
    }
    spec
}

impl Qemu {
    /// Boots `spec`, which is this machine with its golden identity, and saves it.
    pub(super) async fn make(
        &self,
        mode: Mode,
        spec: MachineSpec,
        ready: &ReadyPoint,
        parts: Parts,
        making: Making,
    ) -> Result<Saved, Unmade> {
        let (ready, digest) = match self.boot_and_save(mode, spec, ready, making.dir()).await {
            Ok(saved) => saved,
            Err(Unmade::Failed(reason)) => {
                // That there is no room shows in many ways, all of them less plain; and there is
                // again as soon as what was made so far goes.
                let reason = super::warm::full(making.store(), 0).unwrap_or(reason);
                return Err(Unmade::Failed(reason));
            }
            Err(unfit) => return Err(unfit),
        };
        let draft = Draft {
            machine: self.spec.name.clone(),
            image: self.spec.image.name.clone(),
            system_ready: ready.system_ready,
            settled: ready.settled,
            parts,
            digests: BTreeMap::from([(MEMORY.to_owned(), digest)]),
        };
        let committed = tokio::task::spawn_blocking(move || {
            let run = making.dir().join(RUN);
            std::fs::remove_dir_all(&run).path(&run)?;
            making.commit(draft)
        })
        .await;
        let saved = committed
            .map_err(|error| error.to_string())?
            .map_err(|error| chain(&error))?;
        (self.environment.report)(Report::SnapshotSaved {
            seconds: ready.since.elapsed().as_secs_f64(),
        });
        Ok(saved)
    }

    /// Boots `spec` to its ready point, and leaves in `dir` what it was. Returns its memory's digest.
    async fn boot_and_save(
        &self,
        mode: Mode,
        spec: MachineSpec,
        ready: &ReadyPoint,
        dir: &Path,
    ) -> Result<(Ready, String), Unmade> {
        let golden = Arc::new(self.golden(spec, dir)?);
        let mode = Mode {
            may_restart: true,
            ..mode
        };
        let beginning = Beginning::Golden(dir.to_owned());
        let mut run = golden.begin(mode, beginning).await?;
        let within = self.spec.start_within;
        let booted = tokio::time::timeout(within, golden.until_ready(&mut run, ready)).await;
        let late = || {
            let reason = format!("it was not ready ({ready}) within {within:?}");
            Err(Unmade::Never(reason))
        };
        let (ready, qmp, memory) = match booted.unwrap_or_else(|_| late()) {
            Ok(ready) => ready,
            Err(error) => {
                end(run).await;
                return Err(error);
            }
        };
        if let Err(error) = save_devices(&qmp, &dir.join(STATE)).await {
            end(run).await;
            return Err(Unmade::Failed(chain(&error)));
        }
        let to = dir.to_owned();
        let kept = tokio::task::spawn_blocking(move || keep_memory(&memory, &to));
        let ended = quit(&qmp, run).await;
        let digest = kept.await.map_err(|error| error.to_string())?;
        let digest = digest.map_err(|error| chain(&error))?;
        ended?;
        golden.left_alone()?;
        Ok((ready, digest))
    }

    /// The backend of the machine that boots to be saved in `dir`.
    fn golden(&self, spec: MachineSpec, dir: &Path) -> Result<Self, LaunchError> {
        let run = dir.join(RUN);
        std::fs::create_dir(&run).path(&run)?;
        let mut environment = self.environment.clone();
        environment.dir = run;
        let console = dir.join(CONSOLE);
        let mut golden = Self::new(
            spec,
            environment,
            self.console.clone(),
            self.words.clone(),
            Tops::default(),
        );
        golden.record = Some(Console::new(Some(&console), Box::new(|_| {}))?);
        Ok(golden)
    }

    /// Whether it has kept away from the disks that it is to leave alone until it is ready.
    fn left_alone(&self) -> Result<(), Unmade> {
        let Kind::Vm { disks, .. } = &self.spec.kind else {
            return Ok(());
        };
        match disks::too_early(&self.environment.dir, disks)? {
            None => Ok(()),
            Some(number) => Err(Unmade::Never(format!(
                "it wrote to its disk {number} before it was ready"
            ))),
        }
    }

    /// Waits until it can be saved.
    async fn until_ready(
        &self,
        run: &mut Run,
        ready: &ReadyPoint,
    ) -> Result<(Ready, Qmp, Arc<File>), Unmade> {
        let mut parts = None;
        let mut preparing = None;
        loop {
            tokio::select! {
                happening = next_of(Some(run)) => match happening {
                    Happening::Channel(channel) => {
                        preparing = Some(Box::pin(self.prepare(channel, ready)));
                    }
                    Happening::Reach(reach) => parts = reach.qmp.zip(reach.memory),
                    Happening::Note(text) => (self.environment.report)(Report::Warning { text }),
                    Happening::Unfit(reason) => return Err(Unmade::Unfit(reason)),
                    Happening::Panicked(reason) | Happening::Broken(reason) => {
                        return Err(reason.into());
                    }
                    Happening::Ended(Ending::KilledByOthers(reason) | Ending::Fault(reason)) => {
                        return Err(reason.into());
                    }
                    Happening::Ended(_) => {
                        return Err("it went off before it was ready".to_owned().into());
                    }
                    // The agent of before is gone; the next one is on its way.
                    Happening::Reset => preparing = None,
                    Happening::Agent(_) | Happening::Ready | Happening::Standing(_) => {}
                },
                prepared = next(preparing.as_mut()) => {
                    let ready = prepared?;
                    let (qmp, memory) =
                        parts.ok_or_else(|| "QEMU has no control socket, or no memory of ours".to_owned())?;
                    return Ok((ready, qmp, memory));
                }
            }
        }
    }

    /// Brings the machine to its ready point, and makes it quiet.
    async fn prepare(&self, channel: Channel, ready: &ReadyPoint) -> Result<Ready, String> {
        let spec = &self.spec;
        let agent = agent::connect_to(channel, spec).await?;
        let system_ready = match ready {
            ReadyPoint::Agent => spec.boot == crate::spec::Boot::Agent,
            ReadyPoint::System => {
                if !agent::system_ready(&agent, spec.boot, spec.start_within).await {
                    return Err("its system does not say that its start has finished".into());
                }
                true
            }
            ReadyPoint::Unit(unit) => {
                agent::unit_active(&agent, unit, spec.start_within).await?;
                agent::system_ready(&agent, spec.boot, LOOK).await
            }
            ReadyPoint::Command(command) => {
                until_success(&agent, command).await?;
                agent::system_ready(&agent, spec.boot, LOOK).await
            }
        };
        let since = Instant::now();
        let settled = agent.settle(&renewal::mark()).await;
        let settled = settled.map_err(|error| chain(&error))?;
        // The agent's handle goes, the connection stays: in the guest nobody hangs up, and a restored
        // agent waits for the host's next word without looking for it again and again.
        Ok(Ready {
            settled,
            system_ready,
            since,
        })
    }
}

/// Ends a run in order, so that its disks are closed, and waits for its end.
async fn quit(qmp: &Qmp, mut run: Run) -> Result<(), String> {
    // Its answer may be lost with it.
    drop(qmp.perform(&Quit {}).await);
    let ended = async { while !matches!(next_of(Some(&mut run)).await, Happening::Ended(_)) {} };
    let in_time = tokio::time::timeout(QUIT, ended).await.is_ok();
    end(run).await;
    if in_time {
        return Ok(());
    }
    Err(format!("QEMU did not end within {QUIT:?}"))
}

/// Ends a run at once, and waits for that.
pub(super) async fn end(run: Run) {
    // It may have ended.
    _ = run.control.send(Control::Kill);
    drop(run.task.await);
}

/// What is being prepared; never, where nothing is.
pub(super) async fn next<F: Future + Unpin>(preparing: Option<F>) -> F::Output {
    match preparing {
        Some(preparing) => preparing.await,
        None => std::future::pending().await,
    }
}

/// Runs a command until it succeeds.
async fn until_success(agent: &Agent, command: &str) -> Result<(), String> {
    let command = Command::shell(command);
    let mut pause = FIRST_PAUSE;
    loop {
        let output = agent.output(&command).await;
        if output.map_err(|error| chain(&error))?.success() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
