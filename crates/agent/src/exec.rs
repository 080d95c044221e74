//! Becoming another user or taking a terminal, between fork and exec of a command.
//!
//! Doing this inside the forked child would need `unsafe`; a second exec of this small binary does
//! not. It costs a millisecond, and only commands that need it pay.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fd::BorrowedFd;
use rustix::process::{Gid, Uid};

use crate::users::User;

/// Environment variable-free hand-over: `__exec <status fd> <uid> <gids> <tty> program args...`.
/// The first of the gids is the user's own; `-` for uid and gids keeps those of the agent.
pub(crate) fn command(user: Option<&User>, terminal: bool, status: &OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("machinist-agent").arg("__exec");
    command.arg(status.as_raw_fd().to_string());
    match user {
        Some(user) => {
            let gids: Vec<String> = std::iter::once(user.gid)
                .chain(user.groups.iter().copied().filter(|gid| *gid != user.gid))
                .map(|gid| gid.to_string())
                .collect();
            command.arg(user.uid.to_string()).arg(gids.join(","));
        }
        None => {
            command.args(["-", "-"]);
        }
    }
    command.arg(if terminal { "tty" } else { "-" });
    command
}

/// The other side of [`command`]. Returns only where it failed.
pub(crate) fn exec(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut text = || {
        let word = arguments.next().unwrap_or_default();
        word.into_string().unwrap_or_default()
    };
    let (status, uid, gids, terminal) = (text(), text(), text(), text());
    let status = status
        .parse()
        .map_err(|_| std::io::ErrorKind::InvalidInput.into());
    let status = status.and_then(machinist_sys::inherited::take);
    let error = match prepare(&uid, &gids, terminal == "tty") {
        Ok(()) => match arguments.next() {
            Some(program) => Command::new(program).args(arguments).exec(),
            None => std::io::ErrorKind::InvalidInput.into(),
        },
        Err(errno) => errno.into(),
    };
    if let Ok(status) = status {
        let errno = error.raw_os_error().unwrap_or(0);
        drop(File::from(status).write_all(&errno.to_le_bytes()));
    }
    ExitCode::from(127)
}

fn prepare(uid: &str, gids: &str, terminal: bool) -> rustix::io::Result<()> {
    if terminal {
        rustix::process::setsid()?;
        let stdin = std::io::stdin();
        let stdin: BorrowedFd<'_> = stdin.as_fd();
        rustix::process::ioctl_tiocsctty(stdin)?;
    }
    if let Ok(uid) = uid.parse() {
        let uid = Uid::from_raw(uid);
        let gids: Vec<Gid> = gids
            .split(',')
            .filter_map(|gid| gid.parse().ok())
            .map(Gid::from_raw)
            .collect();
        let gid = *gids.first().ok_or(rustix::io::Errno::INVAL)?;
        rustix::thread::set_thread_groups(&gids)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}
