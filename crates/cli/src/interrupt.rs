//! Ctrl-C: the first ends and cleans up, the second kills.

use std::io::IsTerminal;
use std::time::Duration;

use machinist_session::Cancel;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;
use crate::exit;
use crate::ui;

/// How long killing may take after the second Ctrl-C before we leave it to the guard.
const KILLING: Duration = Duration::from_secs(3);

/// The two switches that Ctrl-C throws, one after another. SIGTERM and SIGHUP count as Ctrl-C.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// Thrown by the first: end, and clean up.
    pub cancel: Cancel,
    /// Thrown by the second: kill.
    pub kill: Cancel,
}

impl Interrupt {
    /// Listens from now on. To be called inside the runtime.
    pub fn listen() -> Result<Self, CliError> {
        let interrupt = Self::default();
        let signals = Signals::listen()?;
        tokio::spawn(interrupt.clone().watch(signals));
        Ok(interrupt)
    }

    /// As [`Interrupt::listen`], but Ctrl-C is for whoever has the terminal, and nothing to us.
    pub fn listen_but_to_keys() -> Result<Self, CliError> {
        let interrupt = Self::default();
        let mut signals = Signals::listen()?;
        signals.keys = false;
        tokio::spawn(interrupt.clone().watch(signals));
        Ok(interrupt)
    }

    async fn watch(self, mut signals: Signals) {
        signals.next().await;
        // On a terminal a bar, and the `^C` that it shows, stand on the line.
        let line_end = if std::io::stderr().is_terminal() {
            "\n"
        } else {
            ""
        };
        ui::status(format_args!(
            "{line_end}interrupted: cleaning up (once more to kill)"
        ));
        self.cancel.cancel();
        signals.next().await;
        ui::status("killing");
        self.kill.cancel();
        tokio::time::sleep(KILLING).await;
        // The guard kills and removes what is left as soon as we are gone.
        std::process::exit(i32::from(exit::INTERRUPTED));
    }
}

/// The signals that mean "end".
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether Ctrl-C counts. It does not kill us even if not.
    keys: bool,
}

impl Signals {
    /// Listens from now on. To be called inside the runtime.
    pub fn listen() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::machinery(error).context("cannot listen for signals"))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            keys: true,
        })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> u8 {
        // SIGINT, SIGTERM and SIGHUP have these numbers on every Linux.
        tokio::select! {
            _ = self.interrupt.recv(), if self.keys => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}
