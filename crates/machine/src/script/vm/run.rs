//! A start script's VM that runs: one task that hears everything and owns the script.

use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use machinist_guest::shell::{Brought, Order};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::supervise::{Said, Script};
use super::argv::AGENT_DEVICE;
use super::begin::Begun;
use super::doors::{Doors, Heard, heard_of, open, opened};
use super::warm::{Record, Ripe, Way};
use super::{ScriptVm, thaw};
use crate::backend::{Channel, Control, Happening};
use crate::error::LaunchError;
use crate::lifecycle::Ending;
use crate::qemu::panic::PanicFinder;
use crate::qemu::qmp::{Event, PowerDown, Quit};
use crate::reach::{ConsoleInput, Reach};
use crate::snapshot::Saved;
use crate::supervised::describe;
use crate::words::{self, Words};

/// How long after the process the rest of its output may come.
const DRAIN: Duration = Duration::from_millis(500);
/// How long QEMU may take to end in order, so that its disks are whole.
const QUIT: Duration = Duration::from_secs(2);
/// How long a kernel that has panicked may go on: many are told to restart after a moment.
const PANIC: Duration = Duration::from_secs(15);

/// What connects a machine's task with what runs, over all the QEMUs of one start.
pub(super) struct Link {
    pub(super) controlled: mpsc::UnboundedReceiver<Control>,
    pub(super) tell: mpsc::UnboundedSender<Happening>,
    /// When the start was asked for.
    pub(super) began: std::time::Instant,
    pub(super) may_restart: bool,
}

pub(super) struct Running {
    pub(super) this: Arc<ScriptVm>,
    pub(super) link: Link,
    /// How it began, until that is over.
    pub(super) way: Way,
    script: Script,
    listeners: Option<(UnixListener, UnixListener)>,
    pid: Option<u32>,
    pub(super) console: Option<ConsoleInput>,
    /// From when QEMU has opened them.
    pub(super) doors: Option<Doors>,
    /// Whether an agent has its port open.
    pub(super) agent: bool,
    /// What comes of waiting until the machine can be saved.
    pub(super) ripening: Option<JoinHandle<Ripe>>,
    /// What is printed while it boots to be saved.
    pub(super) record: Record,
    /// A kernel's panic.
    console_signs: mpsc::UnboundedReceiver<String>,
    words: Words,
    readers: Vec<JoinHandle<()>>,
    /// The snapshot that its memory is.
    pub(super) held: Option<Saved>,
    /// The kernel gave up, and until when the machine may restart or end by itself.
    panic: Option<(String, Instant)>,
    /// Why QEMU said that it ends.
    shutdown: Option<String>,
}

pub(super) enum End {
    Exited(ExitStatus),
    /// The script could not be run, or was lost.
    Failed(String),
    Killed,
    /// It was saved, and is to go on as a restore of that.
    Saved(Box<Saved>),
    /// It could not be restored, for this reason.
    Unrestored(String),
}

impl Running {
    /// Starts the script.
    pub(super) fn start(this: Arc<ScriptVm>, way: Way, link: Link) -> Result<Self, LaunchError> {
        let alone = matches!(way, Way::Golden(_));
        this.environment.attach.plug(&this.spec.name, !alone);
        let begun = this.begin(&way.arguments(), link.may_restart)?;
        let Begun {
            mut script,
            monitor,
            shell,
        } = begun;
        let (seen, console_signs) = mpsc::unbounded_channel();
        let (words, record) = (Words::default(), Record::new(alone));
        let readers = read(&this, &mut script, seen, &words, &record);
        Ok(Self {
            console: script.stdin.take().map(ConsoleInput::new),
            readers: readers.map_err(|source| LaunchError::Spawn {
                program: this.spec.command.clone(),
                source,
            })?,
            this,
            link,
            way,
            script,
            listeners: Some((monitor, shell)),
            pid: None,
            doors: None,
            agent: false,
            ripening: None,
            record,
            held: None,
            console_signs,
            words,
            panic: None,
            shutdown: None,
        })
    }

    pub(super) async fn run(mut self) {
        let ending = loop {
            let end = self.attend().await;
            if matches!(end, End::Killed | End::Saved(_)) {
                self.quit().await;
            }
            self.script.kill().await;
            self.drain().await;
            let next = match self.judge(end) {
                Judged::Over(ending) => break ending,
                Judged::Again(next) => next,
            };
            let way = thaw::way(&self.this, next).await;
            let this = Arc::clone(&self.this);
            // What the last one held goes before the next begins. Looking through all processes
            // takes its time.
            let old = tokio::task::spawn_blocking(move || self.link);
            let Ok(link) = old.await else { return };
            let tell = link.tell.clone();
            match Self::start(this, way, link) {
                Ok(next) => self = next,
                Err(error) => {
                    let ending = Ending::Fault(crate::error::chain(&error));
                    drop(tell.send(Happening::Ended(ending)));
                    return;
                }
            }
        };
        let tell = self.link.tell.clone();
        // Dropping a script looks through all processes.
        drop(tokio::task::spawn_blocking(move || drop(self)).await);
        drop(tell.send(Happening::Ended(ending)));
    }

    async fn attend(&mut self) -> End {
        let this = Arc::clone(&self.this);
        let mut opening = self
            .listeners
            .take()
            .map(|(monitor, shell)| Box::pin(async move { open(&this, monitor, shell).await }));
        loop {
            let expires = self.panic.as_ref().map(|(_, until)| *until);
            tokio::select! {
                said = self.script.next() => match said {
                    Said::Running(pid) => self.pid = Some(pid),
                    Said::Ended(status) => return End::Exited(ExitStatus::from_raw(status)),
                    Said::Failed(reason) => return End::Failed(reason),
                },
                doors = opened(opening.as_mut()) => {
                    opening = None;
                    match doors {
                        Ok(doors) => if let Err(reason) = self.entered(doors).await {
                            return End::Unrestored(reason);
                        },
                        Err(error) => self.say(Happening::Broken(format!(
                            "QEMU cannot be reached: {error}"
                        ))),
                    }
                }
                heard = heard_of(self.doors.as_mut()) => match heard {
                    Heard::Event(event) => self.heard(event),
                    Heard::Brought(brought) => self.brought(brought),
                },
                ripe = ripe(self.ripening.as_mut()) => {
                    self.ripening = None;
                    if let Some(saved) = self.ripened(ripe).await {
                        return End::Saved(Box::new(saved));
                    }
                }
                Some(panic) = self.console_signs.recv() => {
                    self.panic = Some((panic, Instant::now() + PANIC));
                }
                () = until(expires) => {
                    if let Some((panic, _)) = self.panic.take() {
                        self.say(Happening::Panicked(panic));
                    }
                }
                control = self.link.controlled.recv() => match control {
                    Some(Control::PowerButton) => self.press_button(),
                    // Nobody holds the other end any more: the machine is dropped.
                    Some(Control::Kill) | None => return End::Killed,
                },
            }
        }
    }

    pub(super) fn say(&self, happening: Happening) {
        // Nobody listens to a run that is being replaced.
        drop(self.link.tell.send(happening));
    }

    /// QEMU runs, and can be spoken to. Fails only where it is to be restored, and cannot.
    async fn entered(&mut self, mut doors: Doors) -> Result<(), String> {
        if let Way::Restore(_) = self.way {
            self.restore(&mut doors).await?;
            self.order_to(&doors, Order::Restored);
        } else {
            self.reachable(&doors);
        }
        self.doors = Some(doors);
        Ok(())
    }

    /// Tells what handles can get at.
    pub(super) fn reachable(&self, doors: &Doors) {
        self.say(Happening::Reach(Reach {
            running: true,
            pid: doors.pid.or(self.pid),
            qmp: Some(doors.qmp.clone()),
            console: self.console.clone(),
            ..Reach::default()
        }));
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
        self.boots("it restarted while it booted");
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
    pub(super) fn agent_up(&mut self) {
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

    fn channel(&mut self, channel: Channel) {
        if let Way::Golden(_) = self.way {
            self.ripen(channel);
        } else {
            self.say(Happening::Channel(channel));
        }
    }

    fn order(&self, order: Order) {
        if let Some(doors) = &self.doors {
            self.order_to(doors, order);
        }
    }

    fn order_to(&self, doors: &Doors, order: Order) {
        // The shell's task ends with QEMU.
        _ = doors.orders.send(order);
    }

    pub(super) fn renew(&mut self) {
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
                self.boots("the agent cannot run in it");
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

    fn judge(&mut self, end: End) -> Judged {
        let way = std::mem::replace(&mut self.way, Way::Boot);
        let ending = match end {
            End::Killed => Ending::Killed,
            End::Saved(saved) => return Judged::Again(thaw::Next::Restore(saved)),
            End::Unrestored(reason) => {
                // Its own words say more than that it ended.
                let reason = self.words.lines().pop().unwrap_or(reason);
                return Judged::Again(thaw::Next::of_failed(way, reason));
            }
            End::Failed(reason) => Ending::Fault(reason),
            End::Exited(exit) => self.judge_exit(exit),
        };
        match ending {
            // It does not take what a warm start needs.
            Ending::Fault(reason) if self.doors.is_none() && way.is_warm() => {
                Judged::Again(thaw::Next::of_failed(way, reason))
            }
            ending => Judged::Over(ending),
        }
    }

    fn judge_exit(&mut self, exit: ExitStatus) -> Ending {
        if let Ok(panic) = self.console_signs.try_recv() {
            self.panic = Some((panic, Instant::now()));
        }
        // With `-no-reboot` a kernel that restarts after its panic ends QEMU.
        if let Some((panic, _)) = self.panic.take()
            && !self.link.may_restart
        {
            return Ending::Fault(panic);
        }
        let ran = self.doors.is_some();
        if exit.success() && ran && self.shutdown.as_deref() != Some("host-signal") {
            return Ending::ByItself;
        }
        let script = &self.this.spec.command;
        let name = script.rsplit('/').next().unwrap_or(script);
        let last = self.words.lines().pop();
        let last = last.map_or_else(String::new, |line| format!(": {line}"));
        let ended = describe(exit);
        Ending::Fault(match (exit.success(), ran) {
            (true, true) => format!("QEMU was ended by a signal{last}"),
            (true, false) => format!("{name} {ended} before its QEMU could be reached{last}"),
            (false, _) => format!("{name} {ended}{last}"),
        })
    }
}

/// What follows the end of a QEMU.
enum Judged {
    Over(Ending),
    Again(thaw::Next),
}

/// Reads what the script and QEMU print. All of it is the console's, as in NixOS' driver; what
/// goes to the standard error is kept for the last words.
fn read(
    this: &ScriptVm,
    script: &mut Script,
    seen: mpsc::UnboundedSender<String>,
    said: &Words,
    record: &Record,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut readers = Vec::new();
    if let Some(stdout) = script.stdout.take() {
        let (console, record) = (this.console.clone(), record.clone());
        let mut finder = PanicFinder::default();
        readers.push(words::drain(stdout, move |bytes| {
            console.feed(bytes);
            record.feed(bytes);
            if let Some(panic) = finder.feed(bytes) {
                // Nobody looks at it any more when the run is over.
                drop(seen.send(panic));
            }
        })?);
    }
    if let Some(stderr) = script.stderr.take() {
        readers.push(words::tee(stderr, this.console.clone(), said.clone())?);
    }
    Ok(readers)
}

/// What came of waiting until the machine can be saved; never, where nobody waits.
async fn ripe(ripening: Option<&mut JoinHandle<Ripe>>) -> Ripe {
    match ripening {
        Some(ripening) => match ripening.await {
            Ok(ripe) => ripe,
            Err(error) => Ripe::Never(error.to_string()),
        },
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}
