//! VMs, run by QEMU.
//!
//! QEMU is our child. It speaks QMP on a socket pair, writes the serial console to its standard
//! output, and listens on a socket of ours for the agent's port.

mod argv;
mod cmdline;
mod disks;
pub(crate) mod panic;
pub(crate) mod port;
pub(crate) mod qmp;
mod run;
mod vitality;

pub(crate) use argv::AGENT_PORT;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use machinist_image::BootRoot;
use machinist_sys::process::{Child, Spawn};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::backend::{Happening, Mode, Run};
use crate::console::Console;
use crate::environment::{Attached, Environment};
use crate::error::LaunchError;
use crate::path_error::PathContext;
use crate::reach::{ConsoleInput, Reach};
use crate::spec::{Kind, MachineSpec};
use crate::supervised::Supervised;
use crate::verdict::{Accel, Accelerator};
use crate::words::{self, Words};

use argv::{Drive, Format, Nic, Share, VmPlan};
use cmdline::{RootArguments, kernel_command_line};
use port::AgentPort;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The tag of the volume with this number.
pub(crate) fn volume_tag(number: usize) -> String {
    format!("volume{number}")
}

/// One machine's backend.
pub(crate) struct Qemu {
    pub(crate) spec: MachineSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
    pub(crate) words: Words,
}

/// A QEMU that has just begun, and what belongs to it. Dropping it ends both.
struct Spawned {
    child: Child,
    port: AgentPort,
    /// QMP.
    control_socket: UnixStream,
    accelerator: Accelerator,
    attached: Attached,
}

impl Qemu {
    fn wish(&self) -> Accel {
        match &self.spec.kind {
            Kind::Vm { accel, .. } => *accel,
            Kind::Container { .. } => Accel::Auto,
        }
    }

    /// What the next launch will run on.
    pub(crate) fn accelerator(&self, plain: bool) -> Accelerator {
        let wish = if plain { Accel::Tcg } else { self.wish() };
        // Where the wish cannot be fulfilled, the launch says so.
        let chosen = self.environment.verdicts.choose(wish);
        chosen.unwrap_or(Accelerator::Kvm)
    }

    pub(crate) async fn launch(self: Arc<Self>, mode: Mode) -> Result<Run, LaunchError> {
        // Disks and ports are made there, and a disk may be slow.
        let this = Arc::clone(&self);
        let spawned = tokio::task::spawn_blocking(move || this.spawn(mode))
            .await
            .map_err(|error| spawn_failed(error.into()))??;
        self.supervise(spawned).map_err(spawn_failed)
    }

    /// Makes what QEMU needs, and starts it. Blocks.
    fn spawn(&self, mode: Mode) -> Result<Spawned, LaunchError> {
        let wish = if mode.plain { Accel::Tcg } else { self.wish() };
        let verdicts = &self.environment.verdicts;
        let accelerator = verdicts.choose(wish).map_err(LaunchError::Unable)?;
        let dir = &self.environment.dir;

        // Whatever fails from here on, the ports that were opened are let go.
        let attached = Attached::new(&self.environment, &self.spec.name);
        let (port, listener) = AgentPort::new(dir)?;
        let (ours, theirs) = UnixStream::pair().path(dir)?;
        let mut spawn = Spawn::new(PROGRAM);
        let plan = self.plan(
            accelerator,
            mode,
            spawn.pass(theirs.into()),
            spawn.pass(listener.into()),
        )?;
        spawn
            .command()
            .args(plan.argv())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Spawned {
            child: spawn.start().map_err(spawn_failed)?,
            port,
            control_socket: ours,
            accelerator,
            attached,
        })
    }

    fn supervise(&self, spawned: Spawned) -> std::io::Result<Run> {
        let Spawned {
            mut child,
            port,
            control_socket,
            accelerator,
            attached,
        } = spawned;
        control_socket.set_nonblocking(true)?;
        let control_socket = tokio::net::UnixStream::from_std(control_socket)?;
        let (seen, signs) = mpsc::unbounded_channel();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let console = self.console.clone();
            let mut finder = panic::PanicFinder::default();
            readers.push(words::drain(OwnedFd::from(stdout), move |bytes| {
                console.feed(bytes);
                // Nobody looks at signs of life any more when the run is over.
                drop(seen.send(finder.feed(bytes)));
            })?);
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(words::words(OwnedFd::from(stderr), self.words.clone())?);
        }
        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        if accelerator == Accelerator::Tcg
            && let Some(note) = self.environment.verdicts.shut(self.wish())
        {
            // The receiver is in our hand.
            drop(tell.send(Happening::Note(note)));
        }
        let (qmp, events) = qmp::Qmp::start(control_socket);
        // The receiver is in our hand.
        drop(tell.send(Happening::Reach(reach(&mut child, &qmp)?)));
        let trial = (accelerator == Accelerator::Kvm).then(|| run::Trial {
            verdicts: self.environment.verdicts.clone(),
            strict: self.wish() == Accel::Kvm,
            condemned: self.environment.verdicts.watch(),
            vitality: vitality::Vitality::default(),
            signs: 0,
        });
        let running = run::Running {
            child: Supervised::new(child)?,
            qmp,
            events,
            console_signs: signs,
            port,
            controlled,
            tell,
            words: self.words.clone(),
            readers,
            trial,
            went_off: false,
            attached,
        };
        Ok(Run {
            control,
            happenings,
            task: tokio::spawn(running.run()),
        })
    }

    fn plan(
        &self,
        accelerator: Accelerator,
        mode: Mode,
        qmp: i32,
        agent: i32,
    ) -> Result<VmPlan, LaunchError> {
        let spec = &self.spec;
        let boot = spec.image.boot.as_ref().ok_or_else(|| {
            LaunchError::Unable(format!(
                "the image {} has no kernel: it was not made for a VM",
                spec.image.name
            ))
        })?;
        let mut shares = Vec::new();
        let root = match &boot.root {
            BootRoot::Erofs(_) => "erofs:root",
            BootRoot::Share9p(path) => {
                shares.push(Share {
                    tag: "root".into(),
                    path: path.clone(),
                    writable: false,
                });
                "9p:root"
            }
        };
        for (number, volume) in spec.volumes.iter().enumerate() {
            shares.push(Share {
                tag: volume_tag(number),
                path: volume.source.clone(),
                writable: volume.writable,
            });
        }
        let root = RootArguments {
            root: root.to_owned(),
            modules: boot.modules.as_ref().map(|_| "modules".to_owned()),
        };
        Ok(VmPlan {
            name: spec.name.clone(),
            accelerator,
            memory: spec.memory,
            cpus: spec.cpus,
            kernel: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            append: kernel_command_line(&root, spec.boot),
            drives: self.drives(boot)?,
            shares,
            nics: self.ports()?,
            qmp,
            agent,
            may_restart: mode.may_restart,
        })
    }

    /// What becomes `vda`, `vdb` and so on: ours first, then the lab's, and what only the agent
    /// looks for (by its serial) behind them, so that the lab's begin at `vdb` in every VM.
    fn drives(&self, boot: &machinist_image::Boot) -> Result<Vec<Drive>, LaunchError> {
        let root = match &boot.root {
            BootRoot::Erofs(path) => Some(read_only_drive("root", path)),
            BootRoot::Share9p(_) => None,
        };
        let modules = boot.modules.as_ref();
        let mut ours = root
            .into_iter()
            .chain(modules.map(|path| read_only_drive("modules", path)));
        let mut drives: Vec<Drive> = ours.next().into_iter().collect();
        if let Kind::Vm { disks, .. } = &self.spec.kind {
            drives.extend(disks::prepare(&self.environment.dir, disks)?);
        }
        drives.extend(ours);
        Ok(drives)
    }

    fn ports(&self) -> Result<Vec<Nic>, LaunchError> {
        let attach = &self.environment.attach;
        let port = |nic: &crate::spec::NicSpec| {
            Ok(Nic {
                mac: nic.mac,
                socket: attach.vm_port(&self.spec.name, nic)?,
            })
        };
        let ports: Result<_, _> = self.spec.nics.iter().map(port).collect();
        ports.map_err(LaunchError::Network)
    }
}

/// What of a QEMU that has just begun handles can get at.
fn reach(child: &mut Child, qmp: &qmp::Qmp) -> std::io::Result<Reach> {
    let console = child.stdin.take().map(OwnedFd::from);
    let console = console.map(pipe::Sender::from_owned_fd).transpose()?;
    Ok(Reach {
        running: true,
        pid: Some(child.pid()),
        qmp: Some(qmp.clone()),
        console: console.map(ConsoleInput::new),
        ..Reach::default()
    })
}

fn spawn_failed(source: std::io::Error) -> LaunchError {
    LaunchError::Spawn {
        program: PROGRAM.into(),
        source,
    }
}

fn read_only_drive(serial: &str, path: &Path) -> Drive {
    Drive {
        path: path.to_owned(),
        format: Format::Raw,
        read_only: true,
        serial: serial.to_owned(),
    }
}
