//! The loop: one `poll` over the channel and everything that the tasks wait for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use machinist_sys::vfork::Child;
use machinist_wire::message::{self, Failure, Identity, Power, Reply, Request};
use machinist_wire::{Blob, Endpoint, Event, Hello, Info, Role, StreamId, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use crate::channel::{Channel, Read};
use crate::login::Logins;
use crate::renewal::{Hold, Lead, Rest, Watch};
use crate::spawn::Pipes;
use crate::task::{self, Input, Port, Step, Task, Token, Wants};
use crate::{plan9, renewal};

/// How long output may keep the loop from reading, in chunks.
const READ: usize = 64 * 1024;

/// As PID 1 the agent inherits processes whose end nobody tells it.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// What only an agent that is the machine's init can do.
pub(crate) trait Init {
    /// Makes the machine what the identity says. True where another process goes on as the agent.
    fn configure(&mut self, identity: &Identity) -> Result<bool, Failure>;
    /// Stops the machine; returns only where that failed.
    fn power(&mut self, power: Power) -> Failure;
}

/// Why a server stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The host hung up.
    HungUp,
    /// The machine is configured, and another process goes on as the agent.
    HandOver,
}

/// An agent.
pub(crate) struct Server<'a> {
    channel: Channel,
    endpoint: Endpoint,
    info: Info,
    tasks: BTreeMap<StreamId, Box<dyn Task>>,
    context: Context,
    init: Option<&'a mut dyn Init>,
    /// Tasks that are over, to be taken apart when the host has their last word.
    ended: Vec<Box<dyn Task>>,
    /// Set once the last word before a hand-over is queued.
    handing_over: bool,
}

/// What tasks leave behind and share.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) logins: Logins,
    /// Killed, not yet reaped.
    pub(crate) dying: Vec<Child>,
    /// `/dev/null`, once a command has had nothing to read.
    pub(crate) null: Option<OwnedFd>,
    /// For one read at a time.
    pub(crate) buffer: Vec<u8>,
    /// Output of background processes whose command has ended: read, so that they can go on, and
    /// thrown away.
    pub(crate) sinks: Vec<OwnedFd>,
    /// For the next command.
    pub(crate) pipes: Pipes,
    /// To be closed when the host has its answer.
    pub(crate) used: Vec<OwnedFd>,
    /// Files with bytes for the next boot's random state, where they have been looked for.
    pub(crate) seeds: Option<Vec<PathBuf>>,
    /// Nobody else runs, until the machine has been made right.
    pub(crate) hold: Option<Hold>,
    /// What is left to undo of that, when nobody waits.
    pub(crate) rest: Option<Rest>,
    /// What systemd watches the clock with.
    pub(crate) watch: Option<Watch>,
    /// Nobody runs before what the host asks for, for a while.
    pub(crate) lead: Option<Lead>,
    /// Whether that can be, where it has been looked for.
    pub(crate) may_lead: Option<bool>,
    /// Control groups that stand still, of which the host does not know.
    pub(crate) frozen: Vec<Blob>,
    /// What was unmounted so that the machine can be saved.
    pub(crate) left: Vec<plan9::Mount>,
}

impl<'a> Server<'a> {
    pub(crate) fn new(channel: OwnedFd, info: Info) -> rustix::io::Result<Self> {
        Ok(Self {
            channel: Channel::new(channel)?,
            endpoint: Endpoint::new(Role::Agent),
            info,
            tasks: BTreeMap::new(),
            context: Context::default(),
            init: None,
            ended: Vec::new(),
            handing_over: false,
        })
    }

    /// Lets the server act for the machine's init.
    pub(crate) fn with_init(mut self, init: &'a mut dyn Init) -> Self {
        self.init = Some(init);
        self
    }

    /// Serves the host until it hangs up for good, or the agent hands over.
    ///
    /// # Errors
    /// `poll` itself failed.
    pub(crate) fn run(mut self) -> io::Result<Stopped> {
        self.say_hello(0);
        let mut buffer = vec![0; READ];
        loop {
            if self.handing_over && self.endpoint.output().is_empty() {
                return Ok(Stopped::HandOver);
            }
            let (spoken_to, ready) = self.wait()?;
            if spoken_to && !self.exchange(&mut buffer) {
                self.abandon();
                if !self.channel.is_port() {
                    return Ok(Stopped::HungUp);
                }
                self.wait_for_host()?;
            }
            for (stream, token) in ready {
                self.step(stream, |task, port, context| {
                    task.ready(port, token, context)
                });
            }
            // Where the host is gone, the next read says so.
            self.flush();
            self.clean_up();
        }
    }

    fn say_hello(&mut self, nonce: u64) {
        self.endpoint.hello(&Hello {
            version: VERSION,
            nonce,
            info: Some(self.info.clone()),
        });
    }

    /// Sleeps until there is something to do; says whether that is on the channel, and which tasks can
    /// go on, and why.
    fn wait(&self) -> io::Result<(bool, Vec<(StreamId, Token)>)> {
        let mut flags = PollFlags::IN;
        if !self.endpoint.output().is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(&self.channel, flags)];
        let mut owners = Vec::new();
        let mut timers = Vec::new();
        let now = Instant::now();
        let mut until = self.next_reap(now);
        for (id, task) in &self.tasks {
            let mut wants = Wants::default();
            task.wants(&self.endpoint, *id, &mut wants);
            for (fd, flags, token) in wants.fds {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                owners.push((*id, token));
            }
            if let Some(at) = wants.at {
                timers.push((*id, at));
                until = Some(until.map_or(at, |until| until.min(at)));
            }
        }
        for sink in &self.context.sinks {
            fds.push(PollFd::new(sink, PollFlags::IN));
        }
        let until = match (&self.context.hold, &self.context.lead) {
            (Some(_), _) => Some(now),
            (None, Some(lead)) => Some(until.map_or(lead.until(), |it| it.min(lead.until()))),
            (None, None) => until,
        };
        let rest = self.context.rest.as_ref().map(Rest::at);
        let until = until.into_iter().chain(rest).min();
        let timeout = until.map(|until| until.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let now = Instant::now();
        let fired = timers.into_iter().filter(|(_, at)| *at <= now);
        let ready = fds[1..]
            .iter()
            .zip(owners)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, owner)| owner)
            .chain(fired.map(|(id, _)| (id, Token::Timer)))
            .collect();
        Ok((!fds[0].revents().is_empty(), ready))
    }

    fn next_reap(&self, now: Instant) -> Option<Instant> {
        if !self.context.dying.is_empty() {
            return Some(now + Duration::from_millis(10));
        }
        (self.info.pid == 1).then(|| now + REAP_INTERVAL)
    }

    /// Moves bytes to and from the host. False where the host is gone.
    fn exchange(&mut self, buffer: &mut [u8]) -> bool {
        match self.channel.read(buffer) {
            Read::Bytes(count) => {
                // The host is trusted, but not its version: start over and let it say hello.
                if self.endpoint.receive(&buffer[..count]).is_err() {
                    self.abandon();
                    self.say_hello(0);
                }
            }
            Read::Later => {}
            Read::HungUp => return false,
        }
        while let Some(event) = self.endpoint.next_event() {
            self.on_event(event);
        }
        self.flush()
    }

    /// Says what the channel takes. False where the host is gone.
    fn flush(&mut self) -> bool {
        while !self.endpoint.output().is_empty() {
            match self.channel.write(self.endpoint.output()) {
                Some(0) => break,
                Some(count) => self.endpoint.written(count),
                None => return false,
            }
        }
        true
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Hello(hello) => {
                self.end_tasks();
                self.say_hello(hello.nonce);
            }
            Event::Opened { stream, payload } => self.on_request(stream, &payload),
            Event::Message { stream, payload } => {
                self.give(stream, Input::Message(payload));
            }
            Event::Data {
                stream,
                lane: _,
                bytes,
            } => self.give(stream, Input::Data(bytes)),
            Event::End { stream, lane: _ } => self.give(stream, Input::End),
            Event::Credit { stream, lane: _ } => self.give(stream, Input::Credit),
            Event::Closed { stream } => {
                if let Some(task) = self.tasks.remove(&stream) {
                    task.abandon(&mut self.context);
                }
            }
            Event::Announced { .. } | Event::Pong { .. } => {}
        }
    }

    fn on_request(&mut self, stream: StreamId, payload: &[u8]) {
        let mut port = Port::new(&mut self.endpoint, stream);
        let request = match message::decode(payload, "request") {
            Ok(request) => request,
            Err(error) => {
                return port.fail(Failure {
                    text: error.to_string(),
                    errno: 0,
                });
            }
        };
        match (request, &mut self.init) {
            (Request::Configure(identity), Some(init)) => match init.configure(&identity) {
                Ok(restarts) => {
                    port.reply(&Reply::Configured { restarts });
                    port.close();
                    self.handing_over = restarts;
                }
                Err(failure) => port.fail(failure),
            },
            (Request::Power(power), Some(init)) => {
                let failure = init.power(power);
                port.fail(failure);
            }
            (Request::Settle { mark }, _) => {
                port.finish(renewal::settle(&mark, &mut self.context).map(Reply::Settled))
            }
            (Request::Renew(renewal), _) => match renewal::renew(&renewal, &mut self.context) {
                Ok((_, Some(reloading))) => {
                    self.tasks.insert(stream, Box::new(reloading));
                }
                Ok((renewed, None)) => port.finish(Ok(Reply::Renewed(renewed))),
                Err(failure) => port.fail(failure),
            },
            (Request::Configure(_) | Request::Power(_), None) => port.fail(Failure {
                text: "this agent is not the machine's init".into(),
                errno: 0,
            }),
            (request, _) => {
                if let Some(task) = task::start(request, &mut port, &mut self.context) {
                    self.tasks.insert(stream, task);
                }
            }
        }
    }

    fn give(&mut self, stream: StreamId, input: Input) {
        self.step(stream, |task, port, context| {
            task.input(port, input, context)
        });
    }

    fn step(
        &mut self,
        stream: StreamId,
        act: impl FnOnce(&mut dyn Task, &mut Port<'_>, &mut Context) -> Step,
    ) {
        let Some(task) = self.tasks.get_mut(&stream) else {
            return;
        };
        let mut port = Port::new(&mut self.endpoint, stream);
        if act(task.as_mut(), &mut port, &mut self.context) == Step::Finished {
            port.close();
            self.ended.extend(self.tasks.remove(&stream));
        }
    }

    fn end_tasks(&mut self) {
        for task in std::mem::take(&mut self.tasks).into_values() {
            task.abandon(&mut self.context);
        }
    }

    /// Gives up everything that was done for the host.
    fn abandon(&mut self) {
        self.end_tasks();
        self.endpoint = Endpoint::new(Role::Agent);
    }

    /// Waits until a host is at the other end of the port again. It is the one to speak first.
    fn wait_for_host(&mut self) -> io::Result<()> {
        // That nobody is there is an event that does not end; so what counts is its change.
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&watch, &self.channel, data, flags)?;
        loop {
            let mut fds = [PollFd::new(&self.channel, PollFlags::IN | PollFlags::OUT)];
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(_) if !fds[0].revents().intersects(PollFlags::HUP) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.clean_up();
            let now = Instant::now();
            let pause = self
                .next_reap(now)
                .map(|at| at.saturating_duration_since(now));
            let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data,
            }];
            match epoll::wait(&watch, &mut events, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Does what can be done while the host is busy with an answer.
    fn tidy(&mut self) {
        self.context.used.clear();
        if !self.ended.is_empty() {
            self.ended.clear();
            self.context.pipes.prepare();
        }
    }

    fn clean_up(&mut self) {
        self.tidy();
        if let Some(hold) = self.context.hold.take_if(|hold| hold.is_over()) {
            self.context.frozen = hold.hand_over();
        }
        let now = Instant::now();
        self.context.lead.take_if(|lead| lead.until() <= now);
        self.context.rest.take_if(|rest| rest.at() <= now);
        self.context
            .dying
            .retain(|child| matches!(child.try_wait(), Ok(None)));
        self.context.sinks.retain(drain);
        if self.info.pid == 1 {
            task::reap_strangers(&self.tasks);
        }
    }
}

/// Reads and drops what is there; false at the end.
fn drain(fd: &OwnedFd) -> bool {
    let Ok(mut file) = fd.try_clone().map(File::from) else {
        return false;
    };
    let mut buffer = [0; 16 * 1024];
    match file.read(&mut buffer) {
        Ok(count) => count > 0,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
