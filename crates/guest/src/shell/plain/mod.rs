//! A shell in the agent's place.
//!
//! Towards the host this speaks as an agent does ([`machinist_wire`]), so that whoever asks need not
//! know; [`Info::plain`] tells. Towards the guest it types commands. Each runs in the background and
//! prints what comes of it behind a number of its own, so several run at a time, and noise on the
//! console between their lines does no harm. What needs a connection that stays open (terminals,
//! sockets) cannot be had.

mod copy;
mod files;
mod job;
mod outbox;
mod script;
mod wait;

use std::collections::HashMap;
use std::future::pending;

use machinist_wire::message::{Command, Control, Exit, Failure, Reply, Request, decode, encode};
use machinist_wire::{Endpoint, Event, Hello, Info, Lane, Role, StreamId, VERSION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::bring::Nonce;
use super::{Break, Order, READY, Shell};
use copy::Putting;
use job::{Job, Purpose};
use outbox::Outbox;
use script::Tools;
use wait::Waiting;

/// The most that a command can be given to read: it travels in the command line.
const MAX_INPUT: usize = 1024 * 1024;

const READ: usize = 64 * 1024;

/// What is left of a request that has not become a job yet.
enum Pending {
    /// A command whose input is still coming.
    Input(Box<Command>, Vec<u8>),
    Put(Box<Putting>),
}

struct Plain<'s, T> {
    shell: &'s mut Shell<T>,
    endpoint: Endpoint,
    info: Info,
    tools: Tools,
    jobs: Vec<Job>,
    pending: HashMap<StreamId, Pending>,
    waits: Vec<Waiting>,
    outbox: Outbox,
    /// What is still to be typed.
    owed: Vec<String>,
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Shell<T> {
    /// Serves the host at the other end of `channel` until that hangs up, or the shell is gone.
    pub(super) async fn serve_plain(&mut self, channel: DuplexStream) -> Result<(), Break> {
        let nonce = Nonce::new();
        self.say(&script::question(&nonce)).await?;
        let said = self.answer(&nonce).await?;
        let (tools, info) = script::tools(&said);
        let mut plain = Plain {
            shell: self,
            endpoint: Endpoint::new(Role::Agent),
            info,
            tools,
            jobs: Vec::new(),
            pending: HashMap::new(),
            waits: Vec::new(),
            outbox: Outbox::default(),
            owed: Vec::new(),
        };
        plain.serve(channel).await
    }
}

/// What woke the loop.
enum Woken {
    Line(Option<String>),
    Order(Option<Order>),
    Read(usize),
    Written(usize),
    Time,
    /// The host has hung up.
    HungUp,
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Plain<'_, T> {
    async fn serve(&mut self, channel: DuplexStream) -> Result<(), Break> {
        let (mut read, mut write) = tokio::io::split(channel);
        self.say_hello(0);
        let mut buffer = vec![0; READ];
        loop {
            for line in std::mem::take(&mut self.owed) {
                self.shell.say(&line).await?;
            }
            self.outbox.flush(&mut self.endpoint);
            let output = self.endpoint.output();
            let at = self.waits.iter().filter_map(Waiting::due).min();
            let woken = tokio::select! {
                biased;
                line = self.shell.lines.next() => Woken::Line(line),
                order = self.shell.orders.recv() => Woken::Order(order),
                written = write.write(output), if !output.is_empty() => {
                    written.map_or(Woken::HungUp, Woken::Written)
                }
                count = read.read(&mut buffer) => match count {
                    Ok(count @ 1..) => Woken::Read(count),
                    _ => Woken::HungUp,
                },
                () = until(at) => Woken::Time,
            };
            match woken {
                Woken::Line(line) => self.line(&line.ok_or(Break::Over)?)?,
                Woken::Order(None) => return Err(Break::Over),
                Woken::Order(Some(Order::Restarted)) => return Err(Break::Restarted),
                Woken::Order(Some(Order::Again | Order::Restored)) => {}
                Woken::Written(count) => self.endpoint.written(count),
                Woken::Read(count) => self.receive(&buffer[..count]).await?,
                Woken::Time => self.look().await?,
                Woken::HungUp => return Ok(()),
            }
        }
    }

    fn say_hello(&mut self, nonce: u64) {
        self.endpoint.hello(&Hello {
            version: VERSION,
            nonce,
            info: Some(self.info.clone()),
        });
    }

    /// Takes a line of the console: part of what a job prints, or noise.
    fn line(&mut self, line: &str) -> Result<(), Break> {
        if line.contains(READY) {
            return Err(Break::Anew);
        }
        let found = self.jobs.iter_mut().enumerate();
        let mut found = found.filter_map(|(at, job)| Some((at, job.take(line)?)));
        match found.next() {
            Some((at, job::Told::Ended)) => {
                let job = self.jobs.swap_remove(at);
                self.ended(job);
            }
            Some((at, job::Told::Started(pid))) => {
                let job = &mut self.jobs[at];
                let announced = std::mem::replace(&mut job.announced, true);
                self.owed.extend(job.owed());
                if let (Purpose::Run(stream), false) = (job.purpose, announced) {
                    self.reply(stream, &Reply::Started { pid });
                }
            }
            Some((_, job::Told::More)) | None => {}
        }
        Ok(())
    }

    async fn receive(&mut self, bytes: &[u8]) -> Result<(), Break> {
        if self.endpoint.receive(bytes).is_err() {
            // As the agent does: start over and let the host say hello.
            self.forget().await?;
            self.endpoint = Endpoint::new(Role::Agent);
            self.say_hello(0);
        }
        while let Some(event) = self.endpoint.next_event() {
            self.event(event).await?;
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), Break> {
        match event {
            Event::Hello(hello) => {
                self.forget().await?;
                self.say_hello(hello.nonce);
            }
            Event::Opened { stream, payload } => match decode(&payload, "request") {
                Ok(request) => self.request(stream, request).await?,
                Err(error) => self.fail(stream, error.to_string()),
            },
            Event::Message { stream, payload } => {
                if let Ok(control) = decode(&payload, "control") {
                    self.control(stream, &control).await?;
                }
            }
            Event::Data { stream, bytes, .. } => self.data(stream, &bytes).await?,
            Event::End { stream, .. } => self.input_ended(stream).await?,
            Event::Closed { stream } => self.give_up(stream).await?,
            Event::Credit { .. } | Event::Announced { .. } | Event::Pong { .. } => {}
        }
        Ok(())
    }

    async fn request(&mut self, stream: StreamId, request: Request) -> Result<(), Break> {
        match request {
            Request::Run(command) if command.pty.is_some() => {
                self.fail(stream, lacking("a terminal"));
            }
            Request::Run(command) if command.stdin => {
                // The host sends no input to a command that does not run.
                self.reply(stream, &Reply::Started { pid: 0 });
                let waiting = Pending::Input(Box::new(command), Vec::new());
                self.pending.insert(stream, waiting);
            }
            Request::Run(command) => {
                let text = script::run(&command, &self.tools, None);
                self.start(Purpose::Run(stream), &text).await?;
            }
            Request::Wait(condition) => {
                self.waits.push(Waiting::new(stream, condition));
                self.look().await?;
            }
            Request::Put(put) => {
                let putting = Pending::Put(Box::new(Putting::new(put)));
                self.pending.insert(stream, putting);
            }
            Request::Get { path } => {
                let text = script::get(&path);
                self.start(Purpose::Get(stream), &text).await?;
            }
            Request::Connect(_) => self.fail(stream, lacking("a connection into the machine")),
            Request::Settle { .. } | Request::Renew(_) => self.fail(stream, lacking("a snapshot")),
            Request::Configure(_) | Request::Power(_) => {
                self.fail(stream, "a shell is not the machine's init".to_owned());
            }
        }
        Ok(())
    }

    async fn data(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), Break> {
        match self.pending.get_mut(&stream) {
            Some(Pending::Input(_, input)) if input.len() + bytes.len() > MAX_INPUT => {
                self.pending.remove(&stream);
                self.fail(stream, lacking("more input than 1 MiB"));
            }
            Some(Pending::Input(_, input)) => input.extend_from_slice(bytes),
            Some(Pending::Put(_)) => return self.put(stream, bytes).await,
            None => {}
        }
        self.endpoint.consumed(stream, Lane::Main, bytes.len());
        Ok(())
    }

    async fn input_ended(&mut self, stream: StreamId) -> Result<(), Break> {
        if let Some(Pending::Input(..)) = self.pending.get(&stream)
            && let Some(Pending::Input(command, input)) = self.pending.remove(&stream)
        {
            let text = script::run(&command, &self.tools, Some(&input));
            self.start(Purpose::Run(stream), &text).await?;
            if let Some(job) = self.jobs.last_mut() {
                job.announced = true;
            }
        }
        Ok(())
    }

    async fn start(&mut self, purpose: Purpose, text: &[u8]) -> Result<(), Break> {
        let (job, line) = Job::new(purpose, text);
        self.jobs.push(job);
        self.shell.send(&line).await
    }

    async fn control(&mut self, stream: StreamId, control: &Control) -> Result<(), Break> {
        let job = self.jobs.iter_mut().find(|job| job.is_of(stream));
        let Some(job) = job else { return Ok(()) };
        let line = match control {
            Control::Signal(number) => job.signal(&number.to_string()),
            Control::Expire => {
                job.expired = true;
                job.end()
            }
            Control::Resize(_) => None,
        };
        match line {
            Some(line) => self.shell.say(&line).await,
            None => Ok(()),
        }
    }

    /// The host has lost interest.
    async fn give_up(&mut self, stream: StreamId) -> Result<(), Break> {
        self.pending.remove(&stream);
        self.waits.retain(|wait| wait.stream != stream);
        self.outbox.forget(stream);
        let jobs = self.jobs.iter_mut().filter(|job| job.is_of(stream));
        let lines: Vec<String> = jobs.filter_map(Job::abandon).collect();
        for line in lines {
            self.shell.say(&line).await?;
        }
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), Break> {
        self.pending.clear();
        self.waits.clear();
        self.outbox = Outbox::default();
        let lines: Vec<String> = self.jobs.iter_mut().filter_map(Job::abandon).collect();
        for line in lines {
            self.shell.say(&line).await?;
        }
        Ok(())
    }

    fn ended(&mut self, job: Job) {
        let (purpose, expired, started) = (job.purpose, job.expired, job.announced);
        let result = job.result();
        match (purpose, result) {
            (Purpose::Nothing, _) => {}
            (Purpose::Run(stream), Ok(result)) => {
                if !started {
                    self.reply(stream, &Reply::Started { pid: 0 });
                }
                let exit = if expired {
                    Exit::TimedOut
                } else {
                    Exit::Code(result.status)
                };
                let last = Reply::Exited(exit);
                self.outbox
                    .put(stream, result.stdout, result.stderr, Some(last));
            }
            (Purpose::Wait(stream), Ok(result)) => self.looked(stream, &result),
            (Purpose::Get(stream), Ok(result)) => self.got(stream, &result),
            (Purpose::Wait(stream), Err(_)) => self.look_again(stream),
            (Purpose::Run(stream) | Purpose::Get(stream), Err(reason)) => self.fail(stream, reason),
        }
    }

    fn reply(&mut self, stream: StreamId, reply: &Reply) {
        self.endpoint.message(stream, &encode(reply));
    }

    fn fail(&mut self, stream: StreamId, text: String) {
        let failure = Failure { text, errno: 0 };
        self.reply(stream, &Reply::Failed(failure));
        self.endpoint.close(stream);
    }

    fn done(&mut self, stream: StreamId) {
        self.reply(stream, &Reply::Done);
        self.endpoint.close(stream);
    }
}

/// Why something cannot be had.
fn lacking(what: &str) -> String {
    format!("{what} needs the agent, which cannot run in this machine")
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}
