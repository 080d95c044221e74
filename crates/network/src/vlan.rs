//! VLANs, and how machines are attached to them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use machinist_sys::ethtool;
use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Mac, Netlink, NetlinkError, VethEnd};
use machinist_sys::packet::{Headers, PacketSocket};

use crate::engine::{self, Commands, NewPort};
use crate::error::{AttachError, VlanError};
use crate::port::{Device, Port, SocketDevice, Tally, VethDevice};
use crate::switch::PortId;

/// The longest packet that passes unless said otherwise, in bytes: that of every Ethernet.
pub const DEFAULT_MTU: u32 = 1500;

/// How long the kernel may take to note that a veth pair's cable is in; microseconds are usual.
const CARRIER: Duration = Duration::from_secs(1);

/// Offloads that the switch neither passes on nor finishes: packets within packets, and protocols
/// that are cut or summed in other ways than TCP and UDP. Without them the container's kernel does
/// the work.
const FOREIGN_OFFLOADS: &[&str] = &[
    "tx-checksum-sctp",
    "tx-checksum-fcoe-crc",
    "tx-esp-segmentation",
    "tx-fcoe-segmentation",
    "tx-gre-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gso-list",
    "tx-gso-partial",
    "tx-gso-robust",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-sctp-segmentation",
    "tx-tunnel-remcsum-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-udp_tnl-segmentation",
];

/// One Ethernet segment of a lab. It lives as long as the handle or a port of it.
///
/// Attaching and detaching wait for the kernel, for some milliseconds; the frames have a thread of
/// their own.
#[derive(Debug)]
pub struct Vlan {
    segment: Arc<Segment>,
}

/// A container's interface that is to be.
#[derive(Debug)]
pub struct VethSpec {
    /// The container's network namespace.
    pub netns: NetNs,
    /// The interface's name in the container, 1 to 15 bytes, like `eth1`.
    pub ifname: String,
    /// The interface's MAC address.
    pub mac: Mac,
    /// The interface's addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The interface's MTU in bytes, 68 to 65535; `None` for the VLAN's.
    pub mtu: Option<u32>,
}

/// What a VLAN's handle and its ports share.
#[derive(Debug)]
pub(crate) struct Segment {
    id: u8,
    mtu: u32,
    /// `None` only while this is dropped.
    engine: Option<(Commands, JoinHandle<()>)>,
    /// Where the outer ends of containers' interfaces are, once there are any.
    outside: Mutex<Option<Outside>>,
}

/// A network namespace that is held by this process alone: when the process is gone, so is every
/// interface in it, and with it the other end in the container.
#[derive(Debug)]
struct Outside {
    netns: NetNs,
    netlink: Netlink,
    /// How many interfaces have been made in it, to name them by.
    made: u64,
}

impl Vlan {
    /// A VLAN with the MTU of every Ethernet.
    ///
    /// # Errors
    /// Where the number is not 1 to 254, or no thread is to be had.
    pub fn new(id: u8) -> Result<Self, VlanError> {
        Self::with_mtu(id, DEFAULT_MTU)
    }

    /// A VLAN that carries packets of up to `mtu` bytes, Ethernet header not counted.
    ///
    /// # Errors
    /// Where the number is not 1 to 254, or no thread is to be had.
    pub fn with_mtu(id: u8, mtu: u32) -> Result<Self, VlanError> {
        if !(1..=crate::addresses::HIGHEST).contains(&id) {
            return Err(VlanError::Number { vlan: id });
        }
        let engine = engine::start(id).map_err(|source| VlanError::Start { vlan: id, source })?;
        let segment = Segment {
            id,
            mtu,
            engine: Some(engine),
            outside: Mutex::new(None),
        };
        Ok(Self {
            segment: Arc::new(segment),
        })
    }

    /// Its number, 1 to 254.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.segment.id
    }

    /// The longest packet it carries, in bytes without the Ethernet header.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.segment.mtu
    }

    /// Attaches a virtual machine: QEMU's `stream` network backend is to connect to the socket at
    /// `path` (at most 107 bytes long), one at a time, and again as often as it likes.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn attach_socket(&self, name: &str, path: &Path) -> Result<Port, AttachError> {
        let device = SocketDevice::listen(path).map_err(|source| AttachError::Listen {
            port: name.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        self.attach(name, self.segment.mtu, Device::Socket(device), None)
    }

    /// Attaches a container: makes an interface in its network namespace, and sets it up with its
    /// addresses, and the loopback interface too.
    ///
    /// # Errors
    /// Without the privileges or the kernel's parts for it, where the interface's name is taken in
    /// the container, or where the kernel does not take its parameters. Then nothing stays behind.
    pub fn attach_veth(&self, name: &str, spec: VethSpec) -> Result<Port, AttachError> {
        let segment = &self.segment;
        let mtu = spec.mtu.unwrap_or(segment.mtu);
        let (index, socket) = segment.make_outer(name, &spec, mtu)?;
        let configured = configure_inner(name, &spec);
        let attached = configured.and_then(|()| {
            segment.settle(name, index)?;
            self.attach(
                name,
                mtu,
                Device::Veth(VethDevice::new(socket)),
                Some(index),
            )
        });
        attached.inspect_err(|_| segment.delete(index))
    }

    fn attach(
        &self,
        name: &str,
        mtu: u32,
        device: Device,
        interface: Option<u32>,
    ) -> Result<Port, AttachError> {
        let tally = Arc::new(Tally::default());
        let port = NewPort {
            name: name.to_owned(),
            mtu,
            tally: Arc::clone(&tally),
            device,
        };
        let id = self
            .segment
            .attach(port)
            .map_err(|source| AttachError::Refused {
                vlan: self.segment.id,
                port: name.to_owned(),
                source,
            })?;
        Ok(Port {
            name: name.to_owned(),
            id,
            tally,
            segment: Arc::clone(&self.segment),
            interface,
        })
    }
}

impl Segment {
    fn attach(&self, port: NewPort) -> io::Result<PortId> {
        match &self.engine {
            Some((commands, _)) => commands.attach(port),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn set_up(&self, port: PortId, up: bool) {
        if let Some((commands, _)) = &self.engine {
            commands.set_up(port, up);
        }
    }

    pub(crate) fn detach(&self, port: PortId, interface: Option<u32>) {
        if let Some((commands, _)) = &self.engine {
            commands.detach(port);
        }
        if let Some(index) = interface {
            self.delete(index);
        }
    }

    /// Makes a container's interface and opens its outer end.
    fn make_outer(
        &self,
        name: &str,
        spec: &VethSpec,
        mtu: u32,
    ) -> Result<(u32, PacketSocket), AttachError> {
        let no_namespace = |source| AttachError::Namespace {
            vlan: self.id,
            source,
        };
        let failed = |source| AttachError::Interface {
            port: name.to_owned(),
            source,
        };
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if outside.is_none() {
            *outside = Some(Outside::new().map_err(no_namespace)?.map_err(failed)?);
        }
        let Some(outside) = outside.as_mut() else {
            return Err(no_namespace(io::ErrorKind::NotFound.into()));
        };
        let index = outside.make(spec, mtu).map_err(failed)?;
        let open = || PacketSocket::open(index, Headers::Offload);
        match outside.netns.run(open).and_then(|opened| opened) {
            Ok(socket) => Ok((index, socket)),
            Err(source) => {
                outside.delete(index);
                Err(AttachError::Packets {
                    port: name.to_owned(),
                    source,
                })
            }
        }
    }

    /// Waits until the outer end carries frames, which takes the inner one to be up.
    fn settle(&self, name: &str, index: u32) -> Result<(), AttachError> {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = outside.as_mut().map_or(Ok(true), |outside| {
            outside.netlink.wait_until_running(index, CARRIER)
        });
        // What does not carry by then loses a first frame, which its sender repeats.
        settled.map(drop).map_err(|source| AttachError::Interface {
            port: name.to_owned(),
            source,
        })
    }

    fn delete(&self, index: u32) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outside) = outside.as_mut() {
            outside.delete(index);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some((commands, thread)) = self.engine.take() {
            drop(commands);
            // A panic in it has been reported where it happened.
            drop(thread.join());
        }
    }
}

impl Outside {
    fn new() -> io::Result<Result<Self, NetlinkError>> {
        let netns = NetNs::new()?;
        let netlink = netns.run(|| {
            // The outer ends are wires, not hosts: they are to say nothing of their own. Where the
            // kernel has no IPv6, there is nothing to turn off.
            drop(fs::write(
                "/proc/sys/net/ipv6/conf/default/disable_ipv6",
                "1",
            ));
            Netlink::open()
        })?;
        Ok(netlink.map(|netlink| Self {
            netns,
            netlink,
            made: 0,
        }))
    }

    /// Makes a pair: the outer end here, up, and the inner one in the container, down.
    fn make(&mut self, spec: &VethSpec, mtu: u32) -> Result<u32, NetlinkError> {
        self.made += 1;
        let name = format!("p{}", self.made);
        let outer = VethEnd {
            name: &name,
            mac: None,
            mtu,
            netns: None,
        };
        let inner = VethEnd {
            name: &spec.ifname,
            mac: Some(spec.mac),
            mtu,
            netns: Some(spec.netns.as_fd()),
        };
        self.netlink.create_veth(outer, inner)?;
        let index = self.netlink.link_by_name(&name)?.index;
        let set = self.netlink.set_arp(index, false);
        let set = set.and_then(|()| self.netlink.set_up(index, true));
        if set.is_err() {
            self.delete(index);
        }
        set.map(|()| index)
    }

    fn delete(&mut self, index: u32) {
        // It is gone already where the container's network namespace is.
        drop(self.netlink.delete(index));
    }
}

/// Sets the container's end up with its addresses.
fn configure_inner(port: &str, spec: &VethSpec) -> Result<(), AttachError> {
    let entered = spec.netns.run(|| {
        let offloads = ethtool::turn_off(&spec.ifname, FOREIGN_OFFLOADS);
        offloads.map_err(|source| AttachError::Offloads {
            port: port.to_owned(),
            interface: spec.ifname.clone(),
            source,
        })?;
        // No second of waiting whether somebody else has the link-local address. Best effort: in
        // some containers these files are read-only.
        let file = format!("/proc/sys/net/ipv6/conf/{}/accept_dad", spec.ifname);
        drop(fs::write(file, "0"));
        bring_up(spec).map_err(|source| AttachError::Interface {
            port: port.to_owned(),
            source,
        })
    });
    entered.map_err(|source| AttachError::Enter {
        port: port.to_owned(),
        source,
    })?
}

fn bring_up(spec: &VethSpec) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    netlink.loopback_up()?;
    let index = netlink.link_by_name(&spec.ifname)?.index;
    netlink.set_up(index, true)?;
    for (address, prefix) in &spec.addresses {
        netlink.add_address(index, *address, *prefix)?;
    }
    netlink.wait_until_running(index, CARRIER)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine with many threads may hold them.
    #[test]
    fn handles_go_from_thread_to_thread() {
        const fn may_go<T: Send + Sync + 'static>() {}
        may_go::<Vlan>();
        may_go::<Port>();
        may_go::<VethSpec>();
    }
}
