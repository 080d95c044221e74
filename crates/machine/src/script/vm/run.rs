//! A start script's VM that runs: one task that hears everything and owns the script.

use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use machinist_guest::shell::{self, Bring, Brought, Order, Shared};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::supervise::{Said, Script};
use super::ScriptVm;
use super::argv::{self, AGENT_DEVICE, AGENT_PORT};
use crate::backend::{Channel, Control, Happening};
use crate::lifecycle::Ending;
use crate::qemu::port::AgentPort;
use crate::qemu::qmp::{Capabilities, Event, PowerDown, Qmp, Quit};
use crate::reach::{ConsoleInput, Reach};
use crate::supervised::describe;
use crate::unique::ShortPath;
use crate::words::Words;

/// How long after the process the rest of its output may come.
const DRAIN: Duration = Duration::from_millis(500);
/// How long QEMU may take to end in order, so that its disks are whole.
const QUIT: Duration = Duration::from_secs(2);
/// How long QEMU's sockets may take to be there, once its monitor has connected.
const CONTROL: Duration = Duration::from_secs(10);
/// How long a kernel that has panicked may go on: many are told to restart after a moment.
const PANIC: Duration = Duration::from_secs(15);

/// Where files are, in guests that follow NixOS' contract.
const SHARED: &str = "/tmp/shared";

/// What leads into a running QEMU.
pub(super) struct Doors {
    qmp: Qmp,
    events: mpsc::UnboundedReceiver<Event>,
    port: AgentPort,
    orders: mpsc::UnboundedSender<Order>,
    brought: mpsc::UnboundedReceiver<Brought>,
}

pub(super) struct Running {
    pub(super) this: Arc<ScriptVm>,
    pub(super) script: Script,
    pub(super) pid: Option<u32>,
    pub(super) console: Option<ConsoleInput>,
    /// From when QEMU has opened them.
    pub(super) doors: Option<Doors>,
    /// Whether an agent has its port open.
    pub(super) agent: bool,
    /// A kernel's panic.
    pub(super) console_signs: mpsc::UnboundedReceiver<String>,
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    pub(super) words: Words,
    pub(super) readers: Vec<JoinHandle<()>>,
    /// The kernel gave up, and until when the machine may restart or end by itself.
    pub(super) panic: Option<(String, Instant)>,
    /// Why QEMU said that it ends.
    pub(super) shutdown: Option<String>,
    pub(super) may_restart: bool,
}

enum End {
    Exited(ExitStatus),
    /// The script could not be run, or was lost.
    Failed(String),
    Killed,
}

impl Running {
    pub(super) async fn run(mut self, monitor: UnixListener, shell: UnixListener) {
        let end = self.attend(monitor, shell).await;
        if matches!(end, End::Killed) {
            self.quit().await;
        }
        self.script.kill().await;
        self.drain().await;
        let ending = self.judge(end);
        let tell = self.tell.clone();
        // Dropping a script looks through all processes.
        drop(tokio::task::spawn_blocking(move || drop(self)).await);
        drop(tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self, monitor: UnixListener, shell: UnixListener) -> End {
        let this = Arc::clone(&self.this);
        let mut opening = Box::pin(async move { open(&this, monitor, shell).await });
        let mut opened = false;
        loop {
            let expires = self.panic.as_ref().map(|(_, until)| *until);
            tokio::select! {
                said = self.script.next() => match said {
                    Said::Running(pid) => self.pid = Some(pid),
                    Said::Ended(status) => return End::Exited(ExitStatus::from_raw(status)),
                    Said::Failed(reason) => return End::Failed(reason),
                },
                doors = &mut opening, if !opened => {
                    opened = true;
                    match doors {
                        Ok((doors, monitor)) => self.entered(doors, monitor),
                        Err(error) => self.say(Happening::Broken(format!(
                            "QEMU cannot be reached: {error}"
                        ))),
                    }
                }
                heard = heard_of(self.doors.as_mut()) => match heard {
                    Heard::Event(event) => self.heard(event),
                    Heard::Brought(brought) => self.brought(brought),
                },
                Some(panic) = self.console_signs.recv() => {
                    self.panic = Some((panic, Instant::now() + PANIC));
                }
                () = until(expires) => {
                    if let Some((panic, _)) = self.panic.take() {
                        self.say(Happening::Panicked(panic));
                    }
                }
                control = self.controlled.recv() => match control {
                    Some(Control::PowerButton) => self.press_button(),
                    // Nobody holds the other end any more: the machine is dropped.
                    Some(Control::Kill) | None => return End::Killed,
                },
            }
        }
    }

    fn say(&self, happening: Happening) {
        // Nobody listens to a run that is being replaced.
        drop(self.tell.send(happening));
    }

    /// QEMU runs, and can be spoken to.
    fn entered(&mut self, doors: Doors, monitor: UnixStream) {
        // We use its control socket. The monitor is for who counts on its prompt; it is read, so
        // that QEMU never waits for us.
        drop(tokio::spawn(async move {
            let mut monitor = monitor;
            drop(tokio::io::copy(&mut monitor, &mut tokio::io::sink()).await);
        }));
        let greeting = doors.qmp.clone();
        // If it fails, QEMU ends, and that is seen with its own words.
        drop(tokio::spawn(async move {
            greeting.perform(&Capabilities {}).await
        }));
        self.say(Happening::Reach(Reach {
            running: true,
            pid: self.pid,
            qmp: Some(doors.qmp.clone()),
            console: self.console.clone(),
            ..Reach::default()
        }));
        self.doors = Some(doors);
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::PortChange { id, open } if id == AGENT_DEVICE => self.port_changed(open),
            Event::Shutdown { reason, .. } => self.shutdown = Some(reason),
            Event::Reset => self.reset(),
            Event::GuestPanicked => {
                let panic = ("kernel panic".to_owned(), Instant::now() + PANIC);
                self.panic.get_or_insert(panic);
            }
            Event::Stop => self.say(Happening::Standing(true)),
            Event::Resume => self.say(Happening::Standing(false)),
            Event::PortChange { .. } | Event::Other => {}
        }
    }

    fn reset(&mut self) {
        self.agent = false;
        self.panic = None;
        self.renew();
        self.order(Order::Restarted);
        self.say(Happening::Reset);
    }

    fn port_changed(&mut self, open: bool) {
        if !open {
            self.agent = false;
            self.renew();
            self.order(Order::Again);
            return;
        }
        self.agent_up();
    }

    /// An agent has its port open.
    fn agent_up(&mut self) {
        if std::mem::replace(&mut self.agent, true) {
            return;
        }
        match self.doors.as_mut().map(|doors| doors.port.take()) {
            Some(Ok(Some(stream))) => self.channel(Box::pin(stream)),
            Some(Err(error)) => self.say(Happening::Broken(format!(
                "the agent's port cannot be used: {error}"
            ))),
            Some(Ok(None)) | None => {}
        }
    }

    fn channel(&self, channel: Channel) {
        self.say(Happening::Channel(channel));
    }

    fn order(&self, order: Order) {
        if let Some(doors) = &self.doors {
            // The shell's task ends with QEMU.
            _ = doors.orders.send(order);
        }
    }

    fn renew(&mut self) {
        let renewed = self.doors.as_mut().map(|doors| doors.port.renew());
        if let Some(Err(error)) = renewed {
            self.say(Happening::Broken(format!(
                "the agent's port cannot be connected again: {error}"
            )));
        }
    }

    fn brought(&mut self, brought: Brought) {
        match brought {
            // QEMU tells of its port, too, but not more than once in a second.
            Brought::Agent => self.agent_up(),
            // A late agent is better than none.
            Brought::Plain(..) if self.agent => {}
            Brought::Plain(channel, reason) => {
                self.say(Happening::Note(format!(
                    "the agent cannot run in it ({reason}): its shell is asked for everything, which is slow"
                )));
                self.channel(Box::pin(channel));
            }
        }
    }

    fn press_button(&self) {
        let Some(doors) = &self.doors else { return };
        let qmp = doors.qmp.clone();
        // An error means that it goes off already.
        drop(tokio::spawn(
            async move { qmp.perform(&PowerDown {}).await },
        ));
    }

    /// Lets QEMU end in order: what it has not written yet of its disks it writes now.
    async fn quit(&mut self) {
        let Some(doors) = &self.doors else { return };
        let qmp = doors.qmp.clone();
        let ended = async {
            drop(qmp.perform(&Quit {}).await);
            loop {
                match self.script.next().await {
                    Said::Running(_) => {}
                    Said::Ended(_) | Said::Failed(_) => return,
                }
            }
        };
        drop(tokio::time::timeout(QUIT, ended).await);
    }

    async fn drain(&mut self) {
        for reader in &mut self.readers {
            drop(tokio::time::timeout(DRAIN, reader).await);
        }
        while let Some(Ok(event)) = self.doors.as_mut().map(|doors| doors.events.try_recv()) {
            if let Event::Shutdown { reason, .. } = event {
                self.shutdown = Some(reason);
            }
        }
    }

    fn judge(&mut self, end: End) -> Ending {
        let exit = match end {
            End::Killed => return Ending::Killed,
            End::Failed(reason) => return Ending::Fault(reason),
            End::Exited(exit) => exit,
        };
        if let Ok(panic) = self.console_signs.try_recv() {
            self.panic = Some((panic, Instant::now()));
        }
        // With `-no-reboot` a kernel that restarts after its panic ends QEMU.
        if let Some((panic, _)) = self.panic.take()
            && !self.may_restart
        {
            return Ending::Fault(panic);
        }
        if exit.success() && self.shutdown.as_deref() != Some("host-signal") {
            return Ending::ByItself;
        }
        let script = &self.this.spec.command;
        let name = script.rsplit('/').next().unwrap_or(script);
        let last = self.words.lines().pop();
        let last = last.map_or_else(String::new, |line| format!(": {line}"));
        if exit.success() {
            return Ending::Fault(format!("QEMU was ended by a signal{last}"));
        }
        Ending::Fault(format!("{name} {}{last}", describe(exit)))
    }
}

/// Takes QEMU's connections, and connects to it.
async fn open(
    this: &ScriptVm,
    monitor: UnixListener,
    shell: UnixListener,
) -> io::Result<(Doors, UnixStream)> {
    let ((monitor, _), (shell, _)) = tokio::try_join!(monitor.accept(), shell.accept())?;
    let dir = &this.spec.state_dir;
    let short = ShortPath::new(dir)?;
    let control = there(|| std::os::unix::net::UnixStream::connect(short.join(argv::QMP))).await?;
    control.set_nonblocking(true)?;
    let control = UnixStream::from_std(control)?;
    let (qmp, events) = Qmp::start(control);
    let port = there(|| AgentPort::connect(dir, argv::AGENT)).await?;
    let (orders, brought) = shell::attend(
        shell,
        Bring {
            agent: machinist_guest::AGENT,
            port: AGENT_PORT.to_owned(),
            shared: Some(Shared {
                host: this.spec.shared_dir.clone(),
                guest: SHARED.into(),
            }),
        },
    );
    let doors = Doors {
        qmp,
        events,
        port,
        orders,
        brought,
    };
    Ok((doors, monitor))
}

/// Connects to a socket that QEMU is about to listen on. Nothing tells when it does.
async fn there<T>(connect: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + CONTROL;
    let mut pause = Duration::from_millis(1);
    loop {
        match connect() {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// What comes through the doors.
enum Heard {
    Event(Event),
    Brought(Brought),
}

async fn heard_of(doors: Option<&mut Doors>) -> Heard {
    let Some(doors) = doors else {
        return pending().await;
    };
    tokio::select! {
        Some(event) = doors.events.recv() => Heard::Event(event),
        Some(brought) = doors.brought.recv() => Heard::Brought(brought),
        // QEMU ends, which is seen elsewhere.
        else => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}
