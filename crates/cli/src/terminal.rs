//! A command's streams on our own: bytes to and fro, the terminal raw where there is one.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use machinist_session::protocol::Pty;
use machinist_session::stream::Frame;
use machinist_session::{Cancel, Shell, ShellReader, ShellWriter};
use rustix::termios::{OptionalActions, Termios};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::exit::Exit;
use crate::interrupt::Signals;

/// Bytes of input that are read at once.
const CHUNK: usize = 32 * 1024;

/// What a command gets that writes where nobody reads, as in `machinist run -- yes | head`.
const SIGPIPE: u8 = 13;

/// The terminal to give to a command: ours, if our input and output are both on one.
pub fn pty() -> Option<Pty> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    if !stdin.is_terminal() || !stdout.is_terminal() {
        return None;
    }
    let (rows, cols) = size(stdout.as_fd())?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "vt100".into());
    Some(Pty { rows, cols, term })
}

fn size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Carries the streams of a command until it ends, and gives its status.
///
/// Without a terminal, Ctrl-C and SIGTERM go to the command; it may end as it likes. `kill` thrown
/// (the second Ctrl-C) stops the waiting. With a terminal the keys go there as they are.
pub async fn carry(shell: Shell, pty: bool, kill: &Cancel) -> Result<Exit, CliError> {
    let raw = if pty { Some(Raw::enter()?) } else { None };
    let (sender, receiver) = mpsc::channel(4);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(write(shell.writer, receiver));
    tasks.spawn(read_input(sender.clone()));
    if pty {
        tasks.spawn(watch_size(sender.clone()));
    } else {
        tasks.spawn(forward_signals(sender.clone(), kill.clone()));
    }
    let status = tokio::select! {
        status = show(shell.reader, sender) => status,
        () = kill.cancelled() => Ok(Exit::Interrupted),
    };
    // What still reads our input must not outlive the command.
    tasks.abort_all();
    drop(raw);
    status
}

/// What goes to the command.
enum Send {
    Input(Vec<u8>),
    Resize(u16, u16),
    Signal(u8),
}

async fn write(mut writer: ShellWriter, mut receiver: mpsc::Receiver<Send>) {
    while let Some(next) = receiver.recv().await {
        let sent = match next {
            Send::Input(bytes) => writer.input(&bytes).await,
            Send::Resize(rows, cols) => writer.resize(rows, cols).await,
            Send::Signal(number) => writer.signal(number).await,
        };
        if sent.is_err() {
            // The reader tells what happened.
            return;
        }
    }
}

/// Our input, and at its end no bytes, which ends the command's.
async fn read_input(sender: mpsc::Sender<Send>) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut bytes = vec![0; CHUNK];
        let read = stdin.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(read);
        if sender.send(Send::Input(bytes)).await.is_err() || read == 0 {
            return;
        }
    }
}

async fn watch_size(sender: mpsc::Sender<Send>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else {
        return;
    };
    while changed.recv().await.is_some() {
        if let Some((rows, cols)) = size(std::io::stdout().as_fd())
            && sender.send(Send::Resize(rows, cols)).await.is_err()
        {
            return;
        }
    }
}

async fn forward_signals(sender: mpsc::Sender<Send>, kill: Cancel) {
    let Ok(mut signals) = Signals::listen() else {
        return;
    };
    let number = signals.next().await;
    // A full queue means that the command does not read: it will not miss the signal.
    drop(sender.send(Send::Signal(number)).await);
    signals.next().await;
    kill.cancel();
}

/// The command's output on ours, until it ends.
async fn show(mut reader: ShellReader, sender: mpsc::Sender<Send>) -> Result<Exit, CliError> {
    let mut heard = true;
    loop {
        let frame = reader.next().await.map_err(CliError::machinery)?;
        match frame {
            Some(Frame::Output(bytes)) => {
                if heard && !print(&mut std::io::stdout(), &bytes) {
                    heard = false;
                    // A full queue means a command that does not read: it cannot be told.
                    drop(sender.try_send(Send::Signal(SIGPIPE)));
                }
            }
            Some(Frame::Error(bytes)) => _ = print(&mut std::io::stderr(), &bytes),
            Some(Frame::Exit(status)) => {
                // 128 + signal is at most 192; whatever else comes is cut as a shell cuts it.
                return Ok(Exit::Command((status & 0xff) as u8));
            }
            Some(Frame::Failed(message)) => return Err(CliError::machinery(message)),
            Some(Frame::Input(_) | Frame::Resize { .. } | Frame::Signal(_)) => {}
            None => return Err(CliError::machinery("the session ended before the command")),
        }
    }
}

/// Writes; false says that nobody reads any more. Output that cannot be written is dropped.
fn print(to: &mut impl Write, bytes: &[u8]) -> bool {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    !matches!(written, Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Our terminal in raw mode; dropping it puts it back.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, CliError> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).map_err(|error| {
            CliError::machinery(error).context("cannot read the terminal's modes")
        })?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)
            .map_err(|error| CliError::machinery(error).context("cannot make the terminal raw"))?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
