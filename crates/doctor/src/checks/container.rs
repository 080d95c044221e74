//! What tests with containers need.

use crate::finding::Finding;
use crate::host::{Host, SOON};

pub(crate) fn check(host: &Host) -> Vec<Finding> {
    vec![nspawn(host), run(host)]
}

fn nspawn(host: &Host) -> Finding {
    const ID: &str = "container.nspawn";
    const LOOKED: &str = "systemd-nspawn --version";
    match host.ask("systemd-nspawn", ["--version"], SOON) {
        Ok(said) => {
            let line = said.stdout.lines().next().unwrap_or_default();
            Finding::fine(ID, LOOKED, line)
        }
        Err(error) => Finding::failure(ID, LOOKED, error.to_string())
            .why("containers run in systemd-nspawn")
            .mend("apt-get install systemd-container"),
    }
}

/// Tried by whoever asks us, since it takes a process without threads.
fn run(host: &Host) -> Finding {
    const ID: &str = "container.ground";
    const LOOKED: &str = "namespaces, mounts, a control group and ids, made as a container's";
    match &host.known.no_containers {
        None => Finding::fine(ID, LOOKED, "all can be made"),
        Some((why, remedies)) => {
            let finding = Finding::failure(ID, LOOKED, why).why("containers cannot run here");
            remedies.iter().fold(finding, Finding::mend)
        }
    }
}
