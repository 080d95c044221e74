//! The agent as `/init` of our initrd: from the kernel's first process to the machine's own.
//!
//! 1. Mount the kernel's file systems, load the modules of `/modules.list`.
//! 2. Mount the root that `machinist.root=` names, read-only, with an overlay in memory above.
//! 3. Answer the host on the virtio-serial port, and wait for `Configure`: who this machine is.
//! 4. Enter the root and apply it.
//! 5. Start another process of this program that goes on as the agent, and become the image's own
//!    init. Or, with `machinist.init=agent`, stay: then the agent is all that runs.
//!
//! Nobody is there to handle an error: it is printed on the console, and the machine powers off.

mod apply;
mod arguments;
mod mounts;
mod port;
mod root;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use machinist_wire::message::{Failure, Identity, Power};
use rustix::system::{RebootCommand, reboot};

pub(crate) use self::apply::{host_line, mount, netlink_failure, write};
use self::arguments::Arguments;
use crate::info;
use crate::server::{Init, Server, Stopped};

/// Why the machine cannot start.
#[derive(Debug)]
pub(crate) struct BootError {
    text: String,
    errno: i32,
}

impl BootError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            errno: 0,
        }
    }

    /// What was tried, and why it did not work.
    pub(crate) fn io(text: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self {
            text: format!("{text}: {error}"),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        Self {
            text: error.text,
            errno: error.errno,
        }
    }
}

/// Boots the machine. Comes back only to power it off.
pub(crate) fn run() -> ! {
    if let Err(error) = boot() {
        say(&error.text);
    }
    stop(RebootCommand::PowerOff);
    // The kernel panics now, which the host sees as well.
    std::process::exit(1);
}

/// Prints on the console.
fn say(text: &str) {
    drop(writeln!(io::stderr(), "machinist: {text}"));
}

fn stop(command: RebootCommand) {
    rustix::fs::sync();
    if let Err(errno) = reboot(command) {
        say(&format!("cannot stop the machine: {errno}"));
    }
}

fn boot() -> Result<(), BootError> {
    mounts::kernel()?;
    let arguments = Arguments::read()?;
    mounts::load_modules(say)?;
    root::mount(&arguments)?;
    let port = port::open()?;
    let copy = port
        .try_clone()
        .map_err(|error| BootError::io("cannot copy the port", error))?;
    let mut machine = Machine {
        stays: arguments.stays,
        entered: false,
    };
    let server = Server::new(copy, info::read(true))
        .map_err(|errno| BootError::io("cannot use the port", errno))?;
    let stopped = server
        .with_init(&mut machine)
        .run()
        .map_err(|error| BootError::io("cannot wait for the host", error))?;
    match stopped {
        Stopped::HandOver => Err(hand_over(port, arguments.init)),
        Stopped::HungUp => Err(BootError::new("the host has hung up")),
    }
}

/// Starts the agent that stays, and becomes the image's init. Returns only if that fails.
fn hand_over(port: OwnedFd, init: Option<PathBuf>) -> BootError {
    let agent = Command::new("/proc/self/exe")
        // By this sign systemd spares a process when it ends all others at a shutdown: the agent
        // is there to the last moment.
        .arg0("@machinist-agent")
        .arg("serve")
        .stdin(Stdio::from(port))
        .spawn();
    if let Err(error) = agent {
        return BootError::io("cannot start the agent", error);
    }
    let init = init.unwrap_or_else(|| "/sbin/init".into());
    let error = Command::new(&init)
        .env_clear()
        .env("TERM", "linux")
        .env("HOME", "/")
        .env("PATH", crate::login::PATH)
        .exec();
    BootError::io(format_args!("cannot run {}", init.display()), error)
}

/// What the host can ask of a machine whose init the agent is.
struct Machine {
    /// There will be no other init.
    stays: bool,
    /// The root has been entered already.
    entered: bool,
}

impl Init for Machine {
    fn configure(&mut self, identity: &Identity) -> Result<bool, Failure> {
        let mut done = || -> Result<(), BootError> {
            let first = !std::mem::replace(&mut self.entered, true);
            if first {
                mounts::enter_root()?;
                if self.stays {
                    mounts::in_place_of_init();
                }
            }
            apply::apply(identity, first)
        };
        match done() {
            Ok(()) => Ok(!self.stays),
            Err(error) => {
                say(&error.text);
                Err(error.into())
            }
        }
    }

    fn power(&mut self, power: Power) -> Failure {
        stop(match power {
            Power::Off => RebootCommand::PowerOff,
            Power::Reboot => RebootCommand::Restart,
        });
        Failure {
            text: "the machine does not stop".into(),
            errno: 0,
        }
    }
}
