//! The program inside a machine: one static binary, brought along by the host.
//!
//! How it is called tells what it does:
//! - `/init`, as PID 1 of our initrd: [`init`].
//! - `serve`: the agent on its standard input, a socket or a virtio-serial port ([`server`]).
//! - `bring`: from a root shell to an agent on a port ([`bring`]).
//! - `build`: the builder of a derivation that was described elsewhere ([`build`]).
//! - `fuse`: a file system that the host answers for ([`fuse`]).
//! - `probe`: what a build of Nix's may do, as the builder of a derivation ([`probe`]).
//! - `store`: the disk of a restored builder ([`store`]).
//!
//! It is single-threaded: one `poll` over the channel and all that the running tasks wait for.

#![forbid(unsafe_code)]

mod bring;
mod build;
mod channel;
mod fuse;
mod info;
mod init;
mod login;
mod names;
mod plain;
mod plan9;
mod probe;
mod renewal;
mod server;
mod spawn;
mod store;
mod task;
mod users;

use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let verb = std::env::args_os().nth(1);
    match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some("serve") => serve(),
        Some("bring") => bring::run(),
        Some("build") => build::run(),
        Some("fuse") => fuse::run(),
        Some("probe") => probe::run(),
        Some("store") => store::run(),
        // The kernel gives its init the words of the command line that it does not know itself.
        _ if std::process::id() == 1 => init::run(),
        _ => ExitCode::from(2),
    }
}

/// The agent on standard input, until the host hangs up.
fn serve() -> ExitCode {
    // Its own session: a terminal's hang-up or a group's kill is not meant for the agent.
    let _ = rustix::process::setsid();
    let channel = match rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3) {
        Ok(fd) => fd,
        Err(_) => return ExitCode::from(1),
    };
    // Nobody but the agent may hold the channel, or its end would not be seen.
    if let Ok(null) = spawn::null() {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let server = server::Server::new(channel, info::read(false));
    match server
        .map_err(std::io::Error::from)
        .and_then(server::Server::run)
    {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}
