//! SSH servers that read their keys anew. For a moment nobody listens then, so that moment is waited
//! for: whoever connects as soon as the machine is right shall find the server.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use machinist_sys::stat::Stat;
use machinist_wire::message::Reply;
use machinist_wire::renewal::{Lack, Renewed};
use machinist_wire::{Endpoint, StreamId};
use rustix::process::{Pid, Signal, kill_process};

use super::clock;
use crate::server::Context;
use crate::task::{Input, Port, Step, Task, Token, Wants, listeners};

/// Between two looks: of what another process closes and opens there is no event.
const LOOK: Duration = Duration::from_millis(5);

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Processes that serve SSH for all connections: those that the machine's init started.
pub(super) fn servers() -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_server(*pid)).collect()
}

fn is_server(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.name() == "sshd" && stat.parent() == Some(1))
}

/// A renewal of which this is left.
pub(crate) struct Reloading {
    renewed: Renewed,
    /// Servers with the sockets that they had.
    servers: Vec<(u32, Vec<PathBuf>)>,
    listeners: Vec<(IpAddr, u16)>,
    next: Instant,
    deadline: Instant,
}

/// Tells servers to read their keys anew. None where none of them is there.
pub(super) fn begin(servers: &[u32], renewed: &Renewed) -> Option<Reloading> {
    // One that has ended meanwhile has no keys.
    let servers: Vec<u32> = servers
        .iter()
        .copied()
        .filter(|it| is_server(*it))
        .collect();
    if servers.is_empty() {
        return None;
    }
    let listeners = listeners();
    let mut told = Vec::new();
    for server in &servers {
        let sockets = sockets(*server);
        let pid = i32::try_from(*server).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| kill_process(pid, Signal::HUP).is_ok()) {
            told.push((*server, sockets));
        }
    }
    let now = Instant::now();
    (!told.is_empty()).then(|| Reloading {
        renewed: renewed.clone(),
        servers: told,
        listeners,
        next: now + LOOK,
        deadline: now + PATIENCE,
    })
}

/// The sockets that a process has opened itself, as the kernel names them.
fn sockets(pid: u32) -> Vec<PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    let files = files.into_iter().flatten().flatten();
    // What it was given stays when it begins anew.
    let own = files.filter(|file| {
        !["0", "1", "2"]
            .iter()
            .any(|given| file.file_name() == *given)
    });
    own.filter_map(|file| fs::read_link(file.path()).ok())
        .filter(|target| target.as_os_str().to_string_lossy().starts_with("socket:"))
        .collect()
}

impl Reloading {
    /// Whether all servers have let go of what they had, and everybody listens who did before.
    fn is_over(&self) -> bool {
        let let_go = |(pid, old): &(u32, Vec<PathBuf>)| {
            let now = sockets(*pid);
            old.iter().all(|socket| !now.contains(socket))
        };
        self.servers.iter().all(let_go) && {
            let now = listeners();
            self.listeners.iter().all(|listener| now.contains(listener))
        }
    }
}

impl Task for Reloading {
    fn wants<'fd>(&'fd self, _: &Endpoint, _: StreamId, wants: &mut Wants<'fd>) {
        wants.at(self.next);
    }

    fn ready(&mut self, port: &mut Port<'_>, _: Token, _: &mut Context) -> Step {
        let now = Instant::now();
        let over = self.is_over();
        if !over && now < self.deadline {
            self.next = now + LOOK;
            return Step::Continue;
        }
        let mut renewed = std::mem::take(&mut self.renewed);
        if !over {
            renewed.lacks.push(Lack {
                what: "SSH host keys".into(),
                why: format!("sshd does not listen {PATIENCE:?} after it was told of new keys"),
            });
        }
        renewed.clock = clock::now();
        port.reply(&Reply::Renewed(renewed));
        Step::Finished
    }

    fn input(&mut self, _: &mut Port<'_>, _: Input, _: &mut Context) -> Step {
        Step::Continue
    }
}
