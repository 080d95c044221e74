//! A root shell in the guest, as the way in for the agent.
//!
//! NixOS' tests attach a root shell to the guest's console `hvc0`. It prints [`READY`] when it is
//! there, and reads commands from then on. Through it the agent is brought ([`Bring`]): by the
//! directory that host and guest share, or else through the shell itself. It then speaks with the
//! host on a port of its own, so that whatever else is printed on `hvc0` disturbs nobody, and the
//! shell stays free for the next time: the agent may be killed, the service of the shell may start
//! anew, the machine may restart or leave its initrd.
//!
//! Where the agent cannot run, the shell itself is asked (`plain`).
//!
//! Everything that is expected from the shell begins with a number that nobody else prints, so a
//! kernel message or a login prompt in between does no harm.

mod bring;
mod lines;
mod plain;
mod quote;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

pub use bring::{Bring, Shared};
use lines::Lines;

/// What the shell prints when it is there.
pub const READY: &str = "Spawning backdoor root shell...";

/// What is between the host's and the adapter's end of a plain channel.
const BUFFER: usize = 256 * 1024;

/// What came of a shell.
#[derive(Debug)]
pub enum Brought {
    /// The agent runs and has opened its port.
    Agent,
    /// The agent cannot run there, for this reason; the shell is asked in its place, through this
    /// channel, which is as an agent's.
    Plain(DuplexStream, String),
}

/// What the shell's task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The agent is gone: bring another, when the shell is there.
    Again,
    /// The machine restarts: nothing of before is there any more.
    Restarted,
    /// The machine goes on from where it was saved: its agent is there.
    Restored,
}

/// Attends to the shell at the other end of `io`, on a task of its own. It ends with `io`, or when
/// the returned sender is dropped. Must be called within a tokio runtime.
pub fn attend<T>(
    io: T,
    bring: Bring,
) -> (
    mpsc::UnboundedSender<Order>,
    mpsc::UnboundedReceiver<Brought>,
)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    // It takes a moment, and the guest has not booted yet.
    let agent = bring.agent;
    drop(tokio::task::spawn_blocking(move || bring::packed(agent)));
    let (order, orders) = mpsc::unbounded_channel();
    let (tell, brought) = mpsc::unbounded_channel();
    let (read, write) = tokio::io::split(io);
    let shell = Shell {
        lines: Lines::new(read),
        write,
        orders,
        tell,
        bring,
    };
    // Both ends of it end it.
    drop(tokio::spawn(shell.run()));
    (order, brought)
}

/// Why the shell's task goes no further where it is.
enum Break {
    /// The shell's end of the channel, or the machine's owner, is gone.
    Over,
    /// The machine restarts.
    Restarted,
    /// The machine has been there before, and so has its agent.
    Restored,
    /// Another shell has begun.
    Anew,
    /// The shell says nothing.
    Silent,
}

/// What is known of the shell.
enum State {
    /// It will say so when it is there.
    Unknown,
    /// It may be there.
    Silent,
    /// It reads commands.
    Ready,
    /// The agent is there, whatever the shell does.
    Brought,
}

struct Shell<T> {
    lines: Lines<ReadHalf<T>>,
    write: WriteHalf<T>,
    orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::UnboundedSender<Brought>,
    bring: Bring,
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Shell<T> {
    async fn run(mut self) {
        let mut state = State::Unknown;
        loop {
            let next = match state {
                State::Unknown => self.until_ready().await,
                State::Silent => self.probe().await,
                State::Ready => self.round().await,
                // The shell may still be there when the agent is gone, or another may come.
                State::Brought => self.until_gone().await.and(Err(Break::Silent)),
            };
            state = match next {
                Ok(()) => State::Ready,
                Err(Break::Anew) => State::Ready,
                Err(Break::Silent) => State::Silent,
                Err(Break::Restarted) => State::Unknown,
                Err(Break::Restored) => State::Brought,
                Err(Break::Over) => return,
            }
        }
    }

    /// Brings the agent, or serves in its place, and waits for its end.
    async fn round(&mut self) -> Result<(), Break> {
        match self.bring_agent().await? {
            Ok(()) => {
                drop(self.tell.send(Brought::Agent));
                self.until_gone().await?;
            }
            Err(reason) => {
                let (ours, theirs) = tokio::io::duplex(BUFFER);
                drop(self.tell.send(Brought::Plain(theirs, reason)));
                self.serve_plain(ours).await?;
            }
        }
        // Nobody has printed anything: the shell may still be there, or another may come.
        Err(Break::Silent)
    }

    async fn until_ready(&mut self) -> Result<(), Break> {
        loop {
            if self.line().await?.contains(READY) {
                return Ok(());
            }
        }
    }

    /// Waits until the agent is gone.
    async fn until_gone(&mut self) -> Result<(), Break> {
        let mut anew = false;
        loop {
            tokio::select! {
                biased;
                line = self.lines.next() => match line {
                    Some(line) => anew |= line.contains(READY),
                    None => return Err(Break::Over),
                },
                order = self.orders.recv() => match order {
                    Some(Order::Again) if anew => return Err(Break::Anew),
                    Some(Order::Again) => return Ok(()),
                    Some(Order::Restarted) => return Err(Break::Restarted),
                    // Its agent is the one that was waited for.
                    Some(Order::Restored) => {}
                    None => return Err(Break::Over),
                },
            }
        }
    }

    /// Asks whether the shell is there, and waits until it is or another begins.
    async fn probe(&mut self) -> Result<(), Break> {
        let nonce = bring::Nonce::new();
        self.say(&format!("\n{}; echo \"$n ready\"\n", nonce.assignment()))
            .await?;
        loop {
            let line = self.line().await?;
            if line.contains(READY) || nonce.answer(&line) == Some("ready") {
                return Ok(());
            }
        }
    }

    /// The next line that the shell, or somebody else on its console, prints.
    async fn line(&mut self) -> Result<String, Break> {
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    // It is being brought already.
                    Some(Order::Again) => {}
                    Some(Order::Restarted) => return Err(Break::Restarted),
                    Some(Order::Restored) => return Err(Break::Restored),
                    None => return Err(Break::Over),
                },
                line = self.lines.next() => return line.ok_or(Break::Over),
            }
        }
    }

    async fn say(&mut self, text: &str) -> Result<(), Break> {
        self.send(text.as_bytes()).await
    }
}
