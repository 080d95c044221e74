//! The hidden verb `__enter`: brings the agent into a running container.
//!
//! `__enter LEADER AGENT`: LEADER is the process id of the container's init, AGENT the number of an
//! inherited descriptor of the agent's binary. Standard input is the agent's channel. The process
//! enters the container's cgroup and namespaces, forks the agent there (a process-id namespace is
//! entered only by forking), and waits for it: it ends when the agent does, and the agent with it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

use machinist_sys::process::Spawn;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use super::cgroup;

/// Why the agent could not be brought in.
#[derive(Debug, thiserror::Error)]
enum EnterError {
    #[error("wrong arguments")]
    Arguments,
    #[error("the container's init is gone")]
    Leader(#[source] io::Error),
    #[error("cannot enter the container's namespaces")]
    Namespaces(#[source] io::Error),
    #[error("cannot give up the capabilities that the container lacks")]
    Capabilities(#[source] io::Error),
    #[error("cannot run the agent")]
    Agent(#[source] io::Error),
}

/// Runs the verb. The error's text goes to standard error, which the engine reads.
pub fn main(arguments: &[String]) -> ExitCode {
    match enter(arguments) {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write;
            drop(writeln!(io::stderr(), "{}", crate::error::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn enter(arguments: &[String]) -> Result<ExitCode, EnterError> {
    let [leader, agent] = arguments else {
        return Err(EnterError::Arguments);
    };
    let number: i32 = leader.parse().map_err(|_| EnterError::Arguments)?;
    let agent: i32 = agent.parse().map_err(|_| EnterError::Arguments)?;
    let pid = Pid::from_raw(number).ok_or(EnterError::Arguments)?;
    let leader = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| EnterError::Leader(error.into()))?;
    let bounds = bounding_set(number).map_err(EnterError::Leader)?;
    join_cgroup(number);
    // All at once: entering the mount namespace alone would hide what the rest needs.
    rustix::thread::move_into_thread_name_spaces(
        leader.as_fd(),
        ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::CONTROL_GROUP,
    )
    .map_err(|error| EnterError::Namespaces(error.into()))?;
    confine(bounds).map_err(EnterError::Capabilities)?;

    let mut spawn = Spawn::new(format!("/proc/self/fd/{agent}"));
    spawn
        .command()
        // By the `@` systemd spares it when it ends all processes at the very end. It is no child of
        // systemd's, which would not hear that it has died, and look again only after ten seconds.
        .arg0("@machinist-agent")
        .arg("serve")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit());
    let mut child = spawn.start_here().map_err(EnterError::Agent)?;
    let exit = child.wait().map_err(EnterError::Agent)?;
    let code = exit.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Joins the cgroup that the container's init is in, so that what the agent starts counts as the
/// container's. Init moves to a cgroup of its own while it starts, hence the second look; a
/// container without a cgroup does without.
fn join_cgroup(leader: i32) {
    for _attempt in 0..3 {
        let dir = cgroup::of_process(u32::try_from(leader).ok());
        if dir.is_none_or(|dir| cgroup::join(&dir).is_ok()) {
            return;
        }
    }
}

/// The capabilities that processes of the container can have at all.
fn bounding_set(pid: i32) -> io::Result<CapabilitySet> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_bounding_set(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_bounding_set(status: &str) -> Option<CapabilitySet> {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    let bits = u64::from_str_radix(bits.trim(), 16).ok()?;
    Some(CapabilitySet::from_bits_retain(bits))
}

/// Takes from us, and so from the agent, what the container itself may not do.
fn confine(allowed: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !allowed.contains(capability) => {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_read() {
        let status = "Name:\tsystemd\nCapEff:\t0000000000000001\nCapBnd:\t0000000000000021\n";
        assert_eq!(
            parse_bounding_set(status),
            Some(CapabilitySet::CHOWN | CapabilitySet::KILL)
        );
        assert_eq!(parse_bounding_set("Name:\tx\n"), None);
    }
}
