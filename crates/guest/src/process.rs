//! A command that runs.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use machinist_wire::Lane;
use machinist_wire::message::{Control, Exit, Reply, Request, Size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::command::{Command, Output};
use crate::error::{ChannelError, GuestError};
use crate::link::{Handle, Link};
use crate::stream::{Reader, Writer};

/// How long the agent may take to say how a command ended that was told to end. A guest that is
/// too busy to answer must not hold up the host's deadline for longer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long output that a command printed before it ended may take to get here.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// The status as a shell gives it: 128 and the number for a signal, 124 for a timeout.
pub(crate) fn status(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::TimedOut => 124,
    }
}

/// A running command. Dropping it before its end kills its whole process group.
pub struct Process {
    /// What it reads. Dropping this is its end of file.
    pub stdin: Writer,
    /// What it prints, or what its terminal shows.
    pub stdout: Reader,
    /// What it prints to standard error.
    pub stderr: Reader,
    control: Running,
}

/// The part of a process that is not its streams. Dropping it before the end kills the process.
pub struct Running {
    handle: Arc<Handle>,
    pid: u32,
    started: Instant,
    deadline: Option<Instant>,
    exit: Option<Exit>,
}

/// The agent's first answer. A machine that stands still gives none: the deadline is the host's.
async fn answer_by(deadline: Option<Instant>, handle: &Handle) -> Result<Reply, GuestError> {
    let Some(deadline) = deadline else {
        return handle.reply().await;
    };
    match timeout_at(deadline + LAST_WORDS, handle.reply()).await {
        Ok(reply) => reply,
        Err(_) => Err(GuestError::TimedOut {
            what: "the command to start: the machine does not answer".into(),
        }),
    }
}

impl Process {
    pub(crate) async fn spawn(link: &Arc<Link>, command: &Command) -> Result<Self, GuestError> {
        let started = Instant::now();
        let deadline = command
            .timeout
            .and_then(|timeout| started.checked_add(timeout));
        let handle = link.open(&Request::Run(command.request.clone()))?;
        if !command.request.stdin && command.request.pty.is_none() {
            // Said along with the request. Later it would wake the agent once more.
            handle.end();
        }
        let Reply::Started { pid } = answer_by(deadline, &handle).await? else {
            return Err(ChannelError::Unexpected("another reply than started").into());
        };
        let handle = Arc::new(handle);
        Ok(Self {
            stdin: Writer::new(&handle),
            stdout: Reader::new(&handle, Lane::Main),
            stderr: Reader::new(&handle, Lane::Error),
            control: Running {
                handle,
                pid,
                started,
                deadline,
                exit: None,
            },
        })
    }

    /// Its process id in the guest.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.control.pid
    }

    /// Waits for its end, or for its deadline, which ends it. What it printed last may still be on
    /// its way then. Its standard output and error must be read meanwhile, or it may never end.
    ///
    /// # Errors
    /// The channel ended.
    pub async fn wait(&mut self) -> Result<Exit, GuestError> {
        self.control.wait().await
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: i32) {
        self.control.handle.control(&Control::Signal(signal));
    }

    /// Tells its terminal a new size.
    pub fn resize(&self, size: Size) {
        self.control.handle.control(&Control::Resize(size));
    }

    /// Its input, its output, its errors, and the rest of it: to be used side by side.
    #[must_use]
    pub fn split(self) -> (Writer, Reader, Reader, Running) {
        (self.stdin, self.stdout, self.stderr, self.control)
    }

    /// Gives `input` to it, and waits for its end and for all that it prints.
    ///
    /// # Errors
    /// The channel ended.
    pub async fn output(self, input: &[u8]) -> Result<Output, GuestError> {
        let Self {
            mut stdin,
            mut stdout,
            mut stderr,
            mut control,
        } = self;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = async {
            let feed = async {
                // A command that does not read its input has its reasons.
                drop(stdin.write_all(input).await);
                drop(stdin.shutdown().await);
            };
            let (out, err) = (stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
            // A stream that breaks shows in the exit as well.
            drop(tokio::join!(feed, out, err));
        };
        let exit = control.wait_with(streams).await?;
        Ok(Output {
            exit,
            stdout: out,
            stderr: err,
            duration: control.started.elapsed(),
        })
    }
}

impl Running {
    /// Sends a signal to its process group.
    pub fn signal(&self, signal: i32) {
        self.handle.control(&Control::Signal(signal));
    }

    /// Tells its terminal a new size.
    pub fn resize(&self, size: Size) {
        self.handle.control(&Control::Resize(size));
    }

    async fn exited(&mut self) -> Result<Exit, GuestError> {
        match self.handle.reply().await? {
            Reply::Exited(exit) => {
                self.exit = Some(exit);
                Ok(exit)
            }
            _ => Err(ChannelError::Unexpected("another reply than exited").into()),
        }
    }

    /// As [`Process::wait`].
    ///
    /// # Errors
    /// The channel ended.
    pub async fn wait(&mut self) -> Result<Exit, GuestError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let Some(deadline) = self.deadline else {
            return self.exited().await;
        };
        if let Ok(exit) = timeout_at(deadline, self.exited()).await {
            return exit;
        }
        self.handle.control(&Control::Expire);
        match timeout(LAST_WORDS, self.exited()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.handle.close();
                self.exit = Some(Exit::TimedOut);
                Ok(Exit::TimedOut)
            }
        }
    }

    /// After its end: waits for `output` of a command that lingers, which somebody in the background
    /// may hold open, no longer than until the command's deadline. Then what is left of its process
    /// group is ended too, and the exit is [`Exit::TimedOut`].
    pub async fn outlast<T>(
        &mut self,
        exit: Exit,
        output: impl Future<Output = T>,
    ) -> (Exit, Option<T>) {
        let Some(deadline) = self.deadline else {
            return (exit, Some(output.await));
        };
        let mut output = pin!(output);
        // What it printed in time is on its way, however late it ended.
        let deadline = deadline.max(Instant::now() + ON_ITS_WAY);
        if let Ok(read) = timeout_at(deadline, &mut output).await {
            return (exit, Some(read));
        }
        self.handle.control(&Control::Expire);
        let read = timeout(LAST_WORDS, output).await.ok();
        (Exit::TimedOut, read)
    }

    /// Waits for its end, and for `streams` to have carried all that was printed.
    async fn wait_with(&mut self, streams: impl Future<Output = ()>) -> Result<Exit, GuestError> {
        let mut streams = pin!(streams);
        let mut read = false;
        let exit = loop {
            tokio::select! {
                exit = self.wait() => break exit?,
                () = &mut streams, if !read => read = true,
            }
        };
        // All that was printed comes before the agent closes the stream. Only where the time is
        // over is it not waited for: the agent may have lost the power to.
        let limit = self.deadline.map(|it| it.max(Instant::now()) + LAST_WORDS);
        match limit {
            _ if read => {}
            Some(limit) => drop(timeout_at(limit, streams).await),
            None => streams.await,
        }
        Ok(exit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its streams may be held by others, and would keep it alive.
        if self.exit.is_none() {
            self.handle.close();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("pid", &self.pid)
            .field("exit", &self.exit)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.control.pid)
            .field("exit", &self.control.exit)
            .finish_non_exhaustive()
    }
}
