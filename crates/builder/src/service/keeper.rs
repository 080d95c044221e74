//! The one task that owns a builder's machine: lets sessions in, starts it for the first, and stops
//! it when it is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use machinist_guest::Agent;
use machinist_session::Cancel;
use tokio::sync::{mpsc, oneshot, watch};

use super::join::Carried;
use super::log::Log;
use super::machine::{Running, Starter};
use super::occupancy::{Do, InUse, Occupancy};
use crate::host_store::HostStore;
use crate::protocol::{MachineState, Status};

/// What is asked of the task, and what its own helpers tell it.
enum Message {
    Arrive(oneshot::Sender<Admitted>),
    /// Somebody who waited does not any more.
    GiveUp,
    Leave,
    Stop {
        force: bool,
        answer: oneshot::Sender<Result<(), String>>,
    },
    Status(oneshot::Sender<Status>),
    Started(Result<Running, String>),
    Stopped,
    /// The agent of the run of this number is gone.
    Died(u64),
    /// The service ends: stop the machine, whoever uses it, and say when that is done.
    End(oneshot::Sender<()>),
}

type Admitted = Result<Seat, String>;

/// Asks the task. Clones ask the same one.
#[derive(Clone)]
pub(super) struct Keeper {
    ask: mpsc::UnboundedSender<Message>,
    note: watch::Receiver<String>,
    carried: Arc<Carried>,
}

/// A session's right to the machine: as long as it is held, the machine runs.
pub(super) struct Seat {
    pub(super) agent: Agent,
    /// The socket of the machine's session.
    pub(super) session: std::path::PathBuf,
    /// What its clients may see of the host's store.
    pub(super) host_store: Option<HostStore>,
    /// Whether the machine ran before.
    pub(super) ran: bool,
    ask: mpsc::UnboundedSender<Message>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(self.ask.send(Message::Leave));
    }
}

/// Who waits for a seat. Dropping it gives the wait up.
pub(super) struct Waiting {
    answer: oneshot::Receiver<Admitted>,
    ask: mpsc::UnboundedSender<Message>,
    over: bool,
}

impl Waiting {
    /// The seat, or why there is none. Not lost where this is not waited for to its end.
    pub(super) async fn seat(&mut self) -> Admitted {
        let answer = (&mut self.answer).await;
        self.over = true;
        answer.unwrap_or_else(|_| Err("its service ends".into()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.answer.close();
        // A seat that was on its way is left when it is dropped; else nobody waits any more.
        if self.answer.try_recv().is_err() {
            drop(self.ask.send(Message::GiveUp));
        }
    }
}

impl Keeper {
    /// Starts the task.
    pub(super) fn new(starter: Starter) -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        let note = starter.note.subscribe();
        let carried = Arc::default();
        let task = Task {
            occupancy: Occupancy::new(starter.config.idle()),
            log: starter.log.clone(),
            starter: Arc::new(starter),
            running: None,
            starting: None,
            waiting: Vec::new(),
            stops: Vec::new(),
            ends: Vec::new(),
            run: 0,
            failure: None,
            carried: Arc::clone(&carried),
            tell: ask.clone(),
        };
        drop(tokio::spawn(task.run(asked)));
        Self { ask, note, carried }
    }

    /// How much connections have carried.
    pub(super) fn carried(&self) -> &Carried {
        &self.carried
    }

    /// What is going on while the machine starts.
    pub(super) fn notes(&self) -> watch::Receiver<String> {
        self.note.clone()
    }

    /// Asks for the machine.
    pub(super) fn arrive(&self) -> Waiting {
        let (tell, answer) = oneshot::channel();
        // Where the task is gone, the answer says so.
        drop(self.ask.send(Message::Arrive(tell)));
        Waiting {
            answer,
            ask: self.ask.clone(),
            over: false,
        }
    }

    /// Stops the machine, and waits until it is off.
    pub(super) async fn stop(&self, force: bool) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        drop(self.ask.send(Message::Stop { force, answer }));
        answered.await.unwrap_or(Ok(()))
    }

    pub(super) async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        drop(self.ask.send(Message::Status(answer)));
        answered.await.ok()
    }

    /// Stops the machine, whoever uses it, and starts no other.
    pub(super) async fn end(&self) {
        let (answer, answered) = oneshot::channel();
        drop(self.ask.send(Message::End(answer)));
        drop(answered.await);
    }
}

struct Task {
    occupancy: Occupancy,
    starter: Arc<Starter>,
    log: Log,
    running: Option<Running>,
    /// Ends a start that is on its way.
    starting: Option<Cancel>,
    waiting: Vec<oneshot::Sender<Admitted>>,
    /// Who wants to know when it is off.
    stops: Vec<oneshot::Sender<Result<(), String>>>,
    ends: Vec<oneshot::Sender<()>>,
    /// Counts starts.
    run: u64,
    failure: Option<String>,
    carried: Arc<Carried>,
    tell: mpsc::UnboundedSender<Message>,
}

impl Task {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Message>) {
        loop {
            let due = self.occupancy.due().map(tokio::time::Instant::from_std);
            tokio::select! {
                // Whoever has arrived counts before the time is up.
                biased;
                message = asked.recv() => match message {
                    Some(message) => self.hear(message),
                    None => return,
                },
                () = until(due) => {
                    let next = self.occupancy.expire(Instant::now());
                    if next == Do::Stop {
                        self.log.say("stopping: nobody has used it for a while");
                    }
                    self.obey(next, false);
                }
            }
            let off = self.occupancy.machine() == MachineState::Off;
            if off && !self.ends.is_empty() {
                return;
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Arrive(answer) if !self.ends.is_empty() => {
                drop(answer.send(Err("its service ends".into())));
            }
            Message::Arrive(answer) => {
                let ran = self.occupancy.machine() == MachineState::Up;
                self.waiting.push(answer);
                let next = self.occupancy.arrive();
                self.obey(next, ran);
            }
            Message::GiveUp => {
                // One that has been let in meanwhile leaves, as everybody does.
                let before = self.waiting.len();
                self.waiting.retain(|answer| !answer.is_closed());
                for _ in self.waiting.len()..before {
                    self.occupancy.give_up();
                }
            }
            Message::Leave => self.occupancy.leave(Instant::now()),
            Message::Stop { force, answer } => self.asked_to_stop(force, answer),
            Message::Status(answer) => drop(answer.send(self.status())),
            Message::Started(started) => self.started(started),
            Message::Stopped => {
                for answer in self.stops.drain(..) {
                    drop(answer.send(Ok(())));
                }
                self.log.say("off");
                if self.ends.is_empty() {
                    let next = self.occupancy.stopped();
                    self.obey(next, false);
                } else {
                    self.refuse("its service ends");
                    _ = self.occupancy.stopped();
                }
            }
            Message::Died(run) if run == self.run => {
                let next = self.occupancy.died();
                if next == Do::Stop {
                    self.log.say("its machine is gone");
                }
                self.obey(next, false);
            }
            Message::Died(_) => {}
            Message::End(answer) => {
                self.ends.push(answer);
                // By force, nothing refuses.
                if let Ok(next) = self.occupancy.stop(true) {
                    self.obey(next, false);
                }
            }
        }
    }

    fn asked_to_stop(&mut self, force: bool, answer: oneshot::Sender<Result<(), String>>) {
        match self.occupancy.stop(force) {
            Err(InUse(sessions)) => {
                let text = format!("{sessions} session(s) use it");
                drop(answer.send(Err(text)));
            }
            Ok(next) => {
                if self.occupancy.machine() == MachineState::Off {
                    drop(answer.send(Ok(())));
                    return;
                }
                self.stops.push(answer);
                if next == Do::Stop {
                    self.log.say("stopping: somebody asked for that");
                }
                self.obey(next, false);
            }
        }
    }

    fn started(&mut self, started: Result<Running, String>) {
        self.starting = None;
        match started {
            Ok(running) if self.occupancy.machine() == MachineState::Starting => {
                self.failure = None;
                self.starter.note.send_replace(String::new());
                self.watch(running.agent().clone());
                self.running = Some(running);
                let next = self.occupancy.started(Instant::now());
                self.obey(next, false);
            }
            // A stop was asked for meanwhile.
            Ok(running) => self.clear(Some(running)),
            Err(_) if self.occupancy.machine() == MachineState::Stopping => self.clear(None),
            Err(reason) => {
                self.refuse(&reason);
                self.failure = Some(reason);
                self.occupancy.start_failed();
            }
        }
    }

    fn refuse(&mut self, reason: &str) {
        for answer in self.waiting.drain(..) {
            drop(answer.send(Err(reason.to_owned())));
            self.occupancy.give_up();
        }
    }

    fn obey(&mut self, next: Do, ran: bool) {
        match next {
            Do::Nothing => {}
            Do::Admit => self.admit(ran),
            Do::Start => self.start(),
            Do::Stop if self.starting.is_some() => {
                // What it has made by now it clears away itself.
                self.refuse("it was stopped");
                if let Some(starting) = &self.starting {
                    starting.cancel();
                }
            }
            Do::Stop => {
                let running = self.running.take();
                self.clear(running);
            }
        }
    }

    fn admit(&mut self, ran: bool) {
        let Some(running) = &self.running else {
            return;
        };
        for answer in self.waiting.drain(..) {
            let seat = Seat {
                agent: running.agent().clone(),
                session: running.session().socket().to_owned(),
                host_store: running.host_store().cloned(),
                ran,
                ask: self.tell.clone(),
            };
            // Who has gone leaves at once: the seat is dropped.
            drop(answer.send(Ok(seat)));
        }
    }

    fn start(&mut self) {
        self.run += 1;
        self.log.say("starting");
        self.starter.note.send_replace("starting".into());
        let (starter, tell) = (Arc::clone(&self.starter), self.tell.clone());
        let cancel = Cancel::new();
        self.starting = Some(cancel.clone());
        drop(tokio::spawn(async move {
            let started = starter.start(&cancel).await;
            drop(tell.send(Message::Started(started)));
        }));
    }

    /// Hears when the agent is gone, and with it the machine.
    fn watch(&self, agent: Agent) {
        let (tell, run) = (self.tell.clone(), self.run);
        drop(tokio::spawn(async move {
            agent.closed().await;
            drop(tell.send(Message::Died(run)));
        }));
    }

    fn clear(&mut self, running: Option<Running>) {
        let (tell, log) = (self.tell.clone(), self.log.clone());
        drop(tokio::spawn(async move {
            if let Some(running) = running {
                running.stop(&log).await;
            }
            drop(tell.send(Message::Stopped));
        }));
    }

    fn status(&self) -> Status {
        let left = |due: Instant| due.saturating_duration_since(Instant::now()).as_secs_f64();
        let running = self.running.as_ref();
        let session = running.map(Running::session);
        Status {
            pid: std::process::id(),
            machine: self.occupancy.machine(),
            sessions: self.occupancy.sessions(),
            stops_in: self.occupancy.due().map(left),
            session: session.map(|session| session.path().to_owned()),
            failure: self.failure.clone(),
            sent: self.carried.up.load(Ordering::Relaxed),
            received: self.carried.down.load(Ordering::Relaxed),
            host_store: running.and_then(Running::host_store).map(HostStore::status),
        }
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
