//! Making a machine the one that it is told to be.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machinist_sys::netlink::{Mac, Netlink, NetlinkError};
use machinist_wire::message::{HostLine, Identity, Interface, Mount, MountKind};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::BootError;
use super::mounts::attach;
use super::root::{PLAN9, wait_for};

/// A clock that is less than this off is left alone.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// Applies all of it, in the root that the machine has from now on. Shared folders are mounted
/// the first time only.
pub(super) fn apply(identity: &Identity, first: bool) -> Result<(), BootError> {
    set_clock(identity.clock)?;
    names(identity)?;
    network(&identity.interfaces)?;
    match first {
        true => identity.mounts.iter().try_for_each(mount),
        false => Ok(()),
    }
}

fn set_clock(nanos: u64) -> Result<(), BootError> {
    let wanted = UNIX_EPOCH + Duration::from_nanos(nanos);
    let now = SystemTime::now();
    let off = now
        .duration_since(wanted)
        .or_else(|_| wanted.duration_since(now));
    if nanos == 0 || off.is_ok_and(|off| off < CLOCK_TOLERANCE) {
        return Ok(());
    }
    let time = Timespec::try_from(Duration::from_nanos(nanos))
        .map_err(|_| BootError::new("the host's clock makes no sense"))?;
    clock_settime(ClockId::Realtime, time)
        .map_err(|errno| BootError::io("cannot set the clock", errno))
}

fn names(identity: &Identity) -> Result<(), BootError> {
    if !identity.hostname.is_empty() {
        rustix::system::sethostname(identity.hostname.as_bytes())
            .map_err(|errno| BootError::io("cannot set the host name", errno))?;
        write("/etc/hostname", &format!("{}\n", identity.hostname))?;
        write("/etc/hosts", &hosts(identity))?;
    }
    if !identity.machine_id.is_empty() {
        write("/etc/machine-id", &format!("{}\n", identity.machine_id))?;
    }
    Ok(())
}

fn hosts(identity: &Identity) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for line in &identity.hosts {
        text.push_str(&host_line(line));
        text.push('\n');
    }
    text
}

/// A line of `/etc/hosts`.
pub(crate) fn host_line(line: &HostLine) -> String {
    format!("{} {}", line.address, line.names.join(" "))
}

/// Writes a file of the machine, never through a link that the image has there.
pub(crate) fn write(path: &str, text: &str) -> Result<(), BootError> {
    let told = |error| BootError::io(format_args!("cannot write {path}"), error);
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory).map_err(told)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    fs::write(path, text).map_err(told)
}

/// What the kernel said.
pub(crate) fn netlink_failure(error: NetlinkError) -> BootError {
    let source = std::error::Error::source(&error);
    let reason = source.map_or_else(String::new, |source| format!(": {source}"));
    BootError::new(format!("{error}{reason}"))
}

fn network(interfaces: &[Interface]) -> Result<(), BootError> {
    let told = netlink_failure;
    let mut netlink = Netlink::open().map_err(told)?;
    netlink.loopback_up().map_err(told)?;
    let mut found = Vec::with_capacity(interfaces.len());
    for interface in interfaces {
        let mac = Mac(interface.mac);
        let link = wait_for(&format!("network interface {mac}"), || {
            Netlink::open().ok()?.link_by_mac(mac).ok()
        })?;
        // Only an interface that is down can be renamed. It is up where this machine was another
        // one before.
        if link.name != interface.name {
            netlink.set_up(link.index, false).map_err(told)?;
        }
        found.push(link);
    }
    // By way of names that nobody has: one's new name may be another's old one.
    let renamed = || {
        let pairs = interfaces.iter().zip(&found);
        pairs.filter(|(interface, link)| link.name != interface.name)
    };
    for (number, (_, link)) in renamed().enumerate() {
        let name = format!("machinist{number}");
        netlink.rename(link.index, &name).map_err(told)?;
    }
    for (interface, link) in renamed() {
        netlink.rename(link.index, &interface.name).map_err(told)?;
    }
    for (interface, link) in interfaces.iter().zip(&found) {
        let index = link.index;
        // The host gave out the addresses: looking for others who have them costs a second.
        let accept = format!("/proc/sys/net/ipv6/conf/{}/accept_dad", interface.name);
        drop(fs::write(accept, "0"));
        netlink.set_up(index, true).map_err(told)?;
        for (address, prefix) in &interface.addresses {
            match netlink.add_address(index, *address, *prefix) {
                Err(error) if error.os_error() == Some(Errno::EXIST.raw_os_error()) => {}
                added => added.map_err(told)?,
            }
        }
    }
    Ok(())
}

/// Mounts a shared folder.
pub(crate) fn mount(mount: &Mount) -> Result<(), BootError> {
    let flags = match mount.writable {
        true => MountFlags::empty(),
        false => MountFlags::RDONLY,
    };
    let (kind, options) = match mount.kind {
        MountKind::Plan9 => ("9p", PLAN9),
        MountKind::Virtiofs => ("virtiofs", ""),
    };
    attach(&mount.tag, mount.target.as_path(), kind, flags, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_begin_with_the_loopback() {
        let identity = Identity {
            hosts: vec![HostLine {
                address: [192, 168, 1, 1].into(),
                names: vec!["db".into(), "db.lab".into()],
            }],
            ..Identity::default()
        };
        let text = hosts(&identity);
        assert!(text.starts_with("127.0.0.1 localhost\n::1 localhost"));
        assert!(text.ends_with("\n192.168.1.1 db db.lab\n"));
    }
}
