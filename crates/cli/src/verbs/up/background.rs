//! A session in the background: this program again, in a session of processes of its own, that
//! lets go of our terminal when its machines are ready.

use std::process::Stdio;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::{self, Exit};
use crate::interrupt::Signals;
use crate::ui;

/// Starts our own command line once more in the background, and waits until it says its session's
/// id, or ends.
pub async fn start(environment: &Environment) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut child = Command::new(&environment.exe)
        .args(std::env::args_os().skip(1))
        .args(["--foreground", "--then-detach"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| CliError::machinery(error).context("cannot start the session"))?;
    let id = tokio::select! {
        id = first_line(&mut child) => id,
        number = signals.next() => {
            pass_on(&child, number);
            None
        }
    };
    if let Some(id) = id {
        ui::data(id);
        return Ok(Exit::Passed);
    }
    let status = child.wait().await.map_err(CliError::machinery)?;
    // It has said what is wrong.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Exit::Command(code.unwrap_or(exit::MACHINERY)))
}

async fn first_line(child: &mut Child) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    lines.next_line().await.ok().flatten()
}

fn pass_on(child: &Child, number: u8) {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(i32::from(number))) {
        // It may have ended by itself.
        _ = rustix::process::kill_process(pid, signal);
    }
}

/// Lets go of the terminal that we were started from.
pub fn leave_terminal() -> Result<(), CliError> {
    let cannot = "cannot leave the terminal";
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| CliError::machinery(error).context(cannot))?;
    rustix::stdio::dup2_stdout(&null)
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|error| CliError::machinery(error).context(cannot))?;
    Ok(())
}

/// Leaves the session of processes that we were started in, so that neither Ctrl-C nor a hangup of
/// its terminal reaches us.
pub fn leave_session() -> Result<(), CliError> {
    let left = rustix::process::setsid();
    left.map(drop)
        .map_err(|error| CliError::machinery(error).context("cannot go to the background"))
}
