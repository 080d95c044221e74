//! `machinist builder stop`

use clap::Args;
use machinist_builder::{Asked, Client, ConnectError};
use rustix::process::{Pid, Signal};

use super::{find, refused};
use crate::Outcome;
use crate::exit::Exit;
use crate::ui;

/// Stop a builder's machine in order; the next build starts it again
#[derive(Debug, Args)]
pub struct Stop {
    /// The builder
    name: String,
    /// Also under builds that run: they fail
    #[arg(short, long)]
    force: bool,
    /// End its service as well, where no init system runs it
    #[arg(long)]
    service: bool,
}

impl Stop {
    /// Stops it, and waits until it is off.
    pub fn run(self) -> Outcome {
        let state = find(&self.name)?;
        let mut client = match Client::connect(&state) {
            Err(ConnectError::Nobody { .. }) => {
                ui::status(format_args!("{}: it does not run", self.name));
                return Ok(Exit::Passed);
            }
            client => client.map_err(refused)?,
        };
        let mut note = |text: &str| ui::status(text);
        let asked = Asked::Stop { force: self.force };
        client.ask(&asked, &mut note).map_err(|error| {
            let hint = "--force stops it all the same, and the builds fail";
            refused(error).hint(hint)
        })?;
        ui::status(format_args!("{}: off", self.name));
        if self.service {
            end(&state);
        }
        Ok(Exit::Passed)
    }
}

/// Asks the service to end, and waits until it has.
fn end(state: &machinist_builder::State) {
    let pid = state.pid().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let Some(pid) = pid else { return };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    // It may have ended by itself.
    _ = rustix::process::pidfd_send_signal(&process, Signal::TERM);
    let mut polled = [rustix::event::PollFd::new(
        &process,
        rustix::event::PollFlags::IN,
    )];
    _ = rustix::event::poll(&mut polled, None);
}
