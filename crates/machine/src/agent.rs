//! All that the life cycle wants of the agent.

use std::time::{Duration, SystemTime};

pub use machinist_guest::Agent;
use machinist_guest::systemd::Manager;
use machinist_guest::{
    Address, ChannelError, Command, GuestError, HostLine, Identity, Interface, Mount, MountKind,
    Stream,
};

use tokio::time::Instant;

use crate::backend::Channel;
use crate::error::chain;
use crate::origin::Origin;
use crate::qemu::volume_tag;
use crate::spec::{Boot, Kind, MachineSpec};

/// How a machine leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Off,
    Reboot,
}

/// Finds the agent at the other end of `channel`, and tells it who it is where it asks for that.
pub(crate) async fn connect(channel: Channel, origin: &Origin) -> Result<Agent, String> {
    match origin {
        Origin::Lab(spec) => connect_to(channel, spec).await,
        Origin::Script(spec) => find(channel, spec.start_within).await,
    }
}

/// Finds the agent of a machine of ours, and tells it who it is where it asks for that.
pub(crate) async fn connect_to(channel: Channel, spec: &MachineSpec) -> Result<Agent, String> {
    let agent = find(channel, spec.start_within).await?;
    if agent.info().init {
        let configured = agent.configure(&identity(spec)).await;
        configured.map_err(|error| format!("its agent cannot prepare it: {}", chain(&error)))?;
    }
    Ok(agent)
}

/// Finds the agent at the other end of `channel`.
pub(crate) async fn find(channel: Channel, within: Duration) -> Result<Agent, String> {
    Agent::connect(channel, within)
        .await
        .map_err(|error| format!("its agent does not answer: {}", chain(&error)))
}

/// Who the machine is. A container has been told by its files; this is for VMs.
pub(crate) fn identity(spec: &MachineSpec) -> Identity {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let hosts = spec.hosts.iter().map(|line| HostLine {
        address: line.address,
        names: line.names.clone(),
    });
    let interfaces = spec.nics.iter().map(|nic| Interface {
        mac: nic.mac,
        name: nic.name.clone(),
        addresses: nic.addresses.clone(),
    });
    let mounts = match &spec.kind {
        Kind::Vm { .. } => spec.volumes.iter().enumerate().collect(),
        Kind::Container { .. } => Vec::new(),
    };
    let mounts = mounts.into_iter().map(|(number, volume)| Mount {
        kind: MountKind::Plan9,
        tag: volume_tag(number),
        target: volume.target.clone().into_os_string().into(),
        writable: volume.writable,
    });
    Identity {
        hostname: spec.name.clone(),
        hosts: hosts.collect(),
        machine_id: spec.machine_id.clone(),
        interfaces: interfaces.collect(),
        mounts: mounts.collect(),
        clock: now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or_default()),
    }
}

/// Waits until the channel closes. Where it did because the machine stands still, of which nothing
/// else tells, that is said.
pub(crate) async fn closed(agent: &Agent) -> Option<String> {
    match agent.closed().await {
        error @ ChannelError::Silent { .. } => Some(error.to_string()),
        _ => None,
    }
}

/// Waits until the machine's own system has finished its start. A machine that has no system of its
/// own has finished; one whose system cannot say so never does.
pub(crate) async fn system_ready(agent: &Agent, boot: Boot, within: Duration) -> bool {
    if boot == Boot::Agent {
        return true;
    }
    let deadline = Instant::now() + within;
    match Manager::connect(agent, None, deadline).await {
        // Degraded is finished, too: what failed is the test's business.
        Ok(manager) => manager.wait_ready(deadline).await.is_ok(),
        Err(_) => false,
    }
}

/// Waits until a unit is active.
pub(crate) async fn unit_active(agent: &Agent, unit: &str, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    let active = async {
        let manager = Manager::connect(agent, None, deadline).await?;
        manager.wait_for_unit(unit, deadline, &mut |_| {}).await
    };
    active.await.map_err(|error| chain(&error))
}

/// Asks the machine's system to go off or to restart. Whether it was asked.
pub(crate) async fn ask_power(agent: &Agent, boot: Boot, power: Power) -> bool {
    let asked = match (boot, power) {
        (Boot::Agent, Power::Off) => agent.power_off().await,
        (Boot::Agent, Power::Reboot) => agent.reboot().await,
        (Boot::System, power) => return ask_system(agent, power).await,
    };
    asked.is_ok()
}

/// Asks systemd. One that has just begun does not listen yet: it gets a moment.
async fn ask_system(agent: &Agent, power: Power) -> bool {
    let verb = match power {
        Power::Off => "poweroff",
        Power::Reboot => "reboot",
    };
    let command = Command::argv(["systemctl", "--no-block", verb]).timeout(Duration::from_secs(30));
    let mut pause = Duration::from_millis(50);
    while pause < Duration::from_secs(10) {
        match agent.output(&command).await {
            Ok(output) if output.success() => return true,
            Ok(_) => {}
            // It was fast.
            Err(GuestError::Channel(_)) => return true,
            Err(_) => return false,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    false
}

/// Connects to a port on the machine's loopback.
pub(crate) async fn open_port(agent: &Agent, port: u16) -> Result<Stream, GuestError> {
    let host = "localhost".to_owned();
    agent.open(Address::Tcp { host, port }).await
}
