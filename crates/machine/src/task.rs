//! The one task that owns a machine's state, and does what its life cycle decides.

mod attending;
mod spare;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::agent::{Agent, Power};
use crate::backend::{Backend, Control, Earlier, Happening, Mode, Run, next_of};
use crate::console::Console;
use crate::environment::{Environment, Report};
use crate::error::{LaunchError, chain};
use crate::lifecycle::{Decision, Effect, Ending, Event, Lifecycle, Refused, State};
use crate::machine::{StartOptions, Status};
use crate::origin::Origin;
use crate::publish::Published;
use crate::qemu::frozen::{Frozen, Tops};
use crate::qemu::spare::{Counted, Spare};
use crate::reach::Reach;
use crate::words::Words;

/// Lines of the console in a machine's last words.
const LAST_LINES: usize = 20;

/// What a handle asks.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Start(StartOptions),
    Shutdown(Duration),
    PowerOff,
    Reboot,
    /// Whether its system had finished its start then.
    Restore(Earlier, bool),
    /// Have a spare of this moment.
    Reserve(Arc<Frozen>, Counted),
    /// Have none of this moment.
    Forget(Arc<Frozen>),
    /// Have none.
    ForgetAll,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: Ask,
    pub(crate) answer: oneshot::Sender<Result<(), Refused>>,
}

/// What the task's own helpers tell it. The number says which agent they speak of.
enum Inner {
    Agent(u64, Agent),
    NoAgent(u64, String),
    AgentLost(u64),
    Ready(u64),
}

pub(crate) struct Task {
    origin: Arc<Origin>,
    environment: Environment,
    console: Console,
    words: Words,
    backend: Backend,
    life: Lifecycle,
    /// A launch on its way. It is on a task of its own: what is asked meanwhile is heard.
    launching: Option<JoinHandle<Result<Run, LaunchError>>>,
    run: Option<Run>,
    may_restart: bool,
    /// What the next launch goes on with, where it is no boot.
    earlier: Option<Earlier>,
    spare: Option<Spare>,
    status: watch::Sender<Status>,
    agents: watch::Sender<Option<Agent>>,
    reach: watch::Sender<Reach>,
    published: Option<Published>,
    /// The machine's system has finished its start, since the last start or restart.
    system_ready: bool,
    /// Our own: `agents` has it only while the machine may be used.
    agent: Option<Agent>,
    /// The machine was made to stand still.
    standing: bool,
    /// Counts channels: what is heard of an older one is void.
    channel: u64,
    helper: Option<AbortHandle>,
    tell: mpsc::UnboundedSender<Inner>,
    told: mpsc::UnboundedReceiver<Inner>,
    expires: Option<Instant>,
    stop_within: Duration,
    began: Instant,
}

impl Task {
    pub(crate) fn new(
        origin: Arc<Origin>,
        environment: Environment,
        console: Console,
        tops: &Tops,
        status: watch::Sender<Status>,
        agents: watch::Sender<Option<Agent>>,
        reach: watch::Sender<Reach>,
    ) -> Self {
        let words = Words::default();
        let backend = Backend::of(&origin, &environment, &console, &words, tops);
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            life: Lifecycle::new(origin.may_end_early()),
            origin,
            environment,
            console,
            words,
            backend,
            launching: None,
            run: None,
            may_restart: true,
            earlier: None,
            spare: None,
            status,
            agents,
            reach,
            published: None,
            system_ready: false,
            agent: None,
            standing: false,
            channel: 0,
            helper: None,
            tell,
            told,
            expires: None,
            stop_within: Duration::ZERO,
            began: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            let expires = self.expires.map(tokio::time::Instant::from_std);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.asked(request).await,
                    None => break,
                },
                launched = end_of(self.launching.as_mut()) => {
                    self.launching = None;
                    match launched {
                        Ok(run) => {
                            if self.origin.is_warm() {
                                // What came before may have been another machine's boot.
                                self.begin_to_wait();
                            }
                            self.run = Some(run);
                        }
                        Err(reason) => self.event(Event::Broken(reason)).await,
                    }
                }
                happening = next_of(self.run.as_mut()) => self.happened(happening).await,
                Some(inner) = self.told.recv() => self.heard(inner).await,
                () = until(expires) => {
                    self.expires = None;
                    self.event(self.expired()).await;
                }
            }
        }
        // The last handle is gone. What runs is killed, and waited for.
        self.drop_agent();
        self.end_run().await;
        self.end_spare().await;
    }

    async fn asked(&mut self, request: Request) {
        if matches!(request.what, Ask::PowerOff) && self.life.state().is_over() {
            // A machine that has failed may still be on its way out.
            self.end_run().await;
        }
        let event = match request.what {
            Ask::Start(options) => {
                if self.life.state().is_over() {
                    self.may_restart = options.may_restart;
                }
                Event::Start
            }
            Ask::Shutdown(within) => {
                self.stop_within = within;
                Event::Shutdown
            }
            Ask::PowerOff => Event::PowerOff,
            Ask::Reboot => Event::Reboot,
            Ask::Restore(earlier, ready) => {
                self.earlier = Some(earlier);
                self.began = Instant::now();
                Event::Restore { ready }
            }
            Ask::Reserve(of, counted) => {
                _ = request.answer.send(Ok(()));
                return self.reserve(of, counted).await;
            }
            Ask::Forget(of) => {
                self.forget(&of).await;
                _ = request.answer.send(Ok(()));
                return;
            }
            Ask::ForgetAll => {
                self.end_spare().await;
                _ = request.answer.send(Ok(()));
                return;
            }
        };
        let decision = self.decide(event);
        let answer = match &decision {
            Decision::Do(_) => Ok(()),
            Decision::Refuse(why) => Err(*why),
        };
        // Answered before it is done, but after the state has moved: whoever asked waits for a
        // state, and must not see the one before. It may also have given up.
        _ = request.answer.send(answer);
        self.obey(decision).await;
    }

    async fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Channel(channel) => self.connect(channel),
            Happening::Agent(agent) => self.attend(async { Ok(agent) }),
            Happening::Reach(reach) => drop(self.reach.send_replace(reach)),
            Happening::Standing(standing) => self.stand(standing),
            Happening::Ready => self.event(Event::SystemReady).await,
            Happening::Reset => {
                self.began = Instant::now();
                self.event(Event::GuestReset).await;
            }
            Happening::Unfit(reason) => {
                self.report(Report::AccelFallback {
                    reason: reason.clone(),
                });
                self.event(Event::Unfit(reason)).await;
            }
            Happening::Panicked(reason) => self.event(Event::Panicked(reason)).await,
            Happening::Broken(reason) => self.event(Event::Broken(reason)).await,
            Happening::Note(text) => self.report(Report::Warning { text }),
            Happening::Ended(ending) => {
                self.run = None;
                self.reach.send_replace(Reach::default());
                if let (Ending::KilledByOthers(reason) | Ending::Fault(reason), State::Stopping) =
                    (&ending, self.life.state())
                {
                    // It was to end, so this is no failure of the machine. But its disks may lack
                    // what it wrote last.
                    let text = format!("it was about to stop: {reason}");
                    self.report(Report::Warning { text });
                }
                self.event(Event::Ended(ending)).await;
            }
        }
    }

    async fn heard(&mut self, inner: Inner) {
        match inner {
            Inner::Agent(channel, agent) if channel == self.channel => {
                agent.set_standing(self.standing);
                self.agent = Some(agent.clone());
                self.agents.send_replace(Some(agent));
                self.status.send_modify(|status| status.boots += 1);
                self.event(Event::AgentUp).await;
            }
            Inner::NoAgent(channel, reason) if channel == self.channel => {
                self.event(Event::Broken(reason)).await;
            }
            Inner::AgentLost(channel) if channel == self.channel => {
                self.event(Event::AgentLost).await;
            }
            Inner::Ready(channel) if channel == self.channel => {
                self.event(Event::SystemReady).await;
            }
            Inner::Agent(..) | Inner::NoAgent(..) | Inner::AgentLost(_) | Inner::Ready(_) => {}
        }
    }

    async fn event(&mut self, event: Event) {
        let decision = self.decide(event);
        self.obey(decision).await;
    }

    /// Moves the state, and tells of it.
    fn decide(&mut self, event: Event) -> Decision {
        let before = self.life.state().clone();
        match event {
            Event::SystemReady => self.system_ready = true,
            Event::GuestReset => self.system_ready = false,
            // The next agent may be another system's: one that came after the initrd's.
            Event::AgentLost if self.origin.ready_by_asking() => self.system_ready = false,
            _ => {}
        }
        let relaunch = matches!(event, Event::Start | Event::Unfit(_));
        let decision = self.life.handle(event);
        let after = self.life.state().clone();
        if before != after || (relaunch && after == State::Starting) {
            self.moved(&before, &after);
        }
        decision
    }

    fn moved(&mut self, before: &State, after: &State) {
        let now = Instant::now();
        if before.is_over() {
            self.began = now;
        }
        self.expires = match after {
            State::Starting => Some(now + self.origin.launch_within()),
            State::Rebooting => Some(now + self.origin.start_within()),
            State::Silent => Some(now + self.origin.silence()),
            State::Stopping => Some(now + self.stop_within),
            State::Off | State::Up | State::Ready | State::Failed { .. } => None,
        };
        let last_words = match after {
            State::Failed { .. } => self.last_words(),
            _ => Vec::new(),
        };
        if !after.answers() {
            // Whoever sees the new state must not find the old agent.
            self.agents.send_replace(None);
        }
        let seconds = self.began.elapsed().as_secs_f64();
        if after.answers() && !before.answers() {
            self.report(Report::Up { seconds });
        }
        match after {
            State::Ready => self.report(Report::Ready { seconds }),
            State::Off => self.report(Report::Stopped),
            State::Failed { reason } => self.report(Report::Failed {
                reason: reason.clone(),
                last_words: last_words.clone(),
            }),
            _ => {}
        }
        self.status.send_modify(|status| {
            if after.is_over() && !before.is_over() {
                status.ends += 1;
                status.failure = match after {
                    State::Failed { reason } => Some(reason.clone()),
                    _ => None,
                };
            }
            status.state = after.clone();
            status.last_words = last_words;
        });
    }

    /// Gives a machine that was launched its time to answer.
    fn begin_to_wait(&mut self) {
        if *self.life.state() == State::Starting {
            self.expires = Some(Instant::now() + self.origin.start_within());
        }
    }

    fn expired(&self) -> Event {
        if self.launching.is_none() {
            return Event::Expired;
        }
        let seconds = self.origin.launch_within().as_secs_f64();
        Event::Broken(format!("it could not be launched within {seconds} s"))
    }

    async fn obey(&mut self, decision: Decision) {
        let Decision::Do(effects) = decision else {
            return;
        };
        for effect in effects {
            match effect {
                Effect::Launch { plain } => {
                    if let Err(reason) = self.launch(plain).await {
                        let decision = self.decide(Event::Broken(reason));
                        // What follows a failed launch launches nothing.
                        Box::pin(self.obey(decision)).await;
                    }
                }
                Effect::AskToStop | Effect::Kill if self.launching.is_some() => {
                    // Nothing runs in it yet that could be asked.
                    self.end_run().await;
                    let decision = self.decide(Event::Ended(Ending::Killed));
                    Box::pin(self.obey(decision)).await;
                }
                Effect::AskToStop => self.ask_power(Power::Off),
                Effect::AskToReboot => self.ask_power(Power::Reboot),
                Effect::DropAgent => self.drop_agent(),
                Effect::Kill => self.control(Control::Kill),
            }
        }
    }

    /// Listens on the published ports, from the first start to the end of the last handle.
    async fn publish(&mut self) -> Result<(), String> {
        if self.published.is_none() {
            let published = Published::listen(self.origin.publish(), &self.agents)
                .await
                .map_err(|error| chain(&error))?;
            self.status
                .send_modify(|status| status.published = published.addresses().to_vec());
            self.published = Some(published);
        }
        Ok(())
    }

    async fn launch(&mut self, plain: bool) -> Result<(), String> {
        self.end_run().await;
        self.drop_agent();
        self.words.clear();
        self.system_ready = false;
        self.standing = false;
        let mode = self.mode(plain);
        let (backend, accel) = self.backend.names(mode);
        self.report(Report::Starting { backend, accel });
        self.publish().await?;
        let backend = self.backend.clone();
        let earlier = self.earlier.take();
        let spare = self.spare_of(earlier.as_ref(), mode);
        let launch = async move { backend.launch(mode, earlier, spare).await };
        self.launching = Some(tokio::spawn(launch));
        Ok(())
    }

    fn mode(&self, plain: bool) -> Mode {
        Mode {
            plain,
            may_restart: self.may_restart,
        }
    }

    /// Gives up a launch, kills what runs, and waits for its end.
    async fn end_run(&mut self) {
        if let Some(launching) = self.launching.take() {
            launching.abort();
            // It may have ended just before.
            if let Ok(Ok(run)) = launching.await {
                self.run = Some(run);
            }
        }
        if let Some(run) = self.run.take() {
            // Either it is told, or it has ended.
            _ = run.control.send(Control::Kill);
            drop(run.task.await);
        }
        self.reach.send_replace(Reach::default());
    }

    fn control(&self, control: Control) {
        if let Some(run) = &self.run {
            // It has ended, and the news is on its way.
            _ = run.control.send(control);
        }
    }

    fn stand(&mut self, standing: bool) {
        self.standing = standing;
        if let Some(agent) = &self.agent {
            agent.set_standing(standing);
        }
    }

    fn drop_agent(&mut self) {
        self.channel += 1;
        if let Some(helper) = self.helper.take() {
            helper.abort();
        }
        self.agent = None;
        self.agents.send_replace(None);
    }

    fn last_words(&self) -> Vec<String> {
        let mut lines = self.console.tail(LAST_LINES);
        lines.extend(self.words.lines());
        lines
    }

    fn report(&self, report: Report) {
        (self.environment.report)(report);
    }
}

/// How a launch ends; never, where there is none.
async fn end_of(
    launching: Option<&mut JoinHandle<Result<Run, LaunchError>>>,
) -> Result<Run, String> {
    match launching {
        Some(launching) => match launching.await {
            Ok(run) => run.map_err(|error| chain(&error)),
            Err(error) => Err(format!("its launch was lost: {error}")),
        },
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
