//! VLANs, and how machines are attached to them.

mod inner;
mod outside;
mod reserved;
mod segment;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use machinist_sys::namespace::NetNs;
use machinist_sys::netlink::{Mac, VethEnd};

use crate::door::{Directory, VdeDoor};
use crate::engine::{NewDoor, NewPort};
use crate::error::{AttachError, VlanError};
use crate::port::{Device, Port, Tally, VethDevice};
pub use reserved::Reserved;
pub(crate) use segment::Segment;

/// The longest packet that passes unless said otherwise, in bytes: that of every Ethernet.
pub const DEFAULT_MTU: u32 = 1500;

/// One Ethernet segment of a lab. It lives as long as the handle or a port of it.
///
/// Attaching and detaching wait for the kernel, for some milliseconds; the frames have a thread of
/// their own.
#[derive(Debug)]
pub struct Vlan {
    pub(crate) segment: Arc<Segment>,
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
        Self::start(id.into(), mtu)
    }

    /// A VLAN with any number, for start scripts, whose machines have their addresses from
    /// elsewhere.
    ///
    /// # Errors
    /// Where no thread is to be had.
    pub fn numbered(id: u32) -> Result<Self, VlanError> {
        Self::start(id, DEFAULT_MTU)
    }

    fn start(id: u32, mtu: u32) -> Result<Self, VlanError> {
        let segment =
            Segment::new(id, mtu).map_err(|source| VlanError::Start { vlan: id, source })?;
        Ok(Self {
            segment: Arc::new(segment),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
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
        self.reserve_socket(name, path)?.attach()
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
        let inner = VethEnd {
            name: &spec.ifname,
            mac: Some(spec.mac),
            mtu,
            netns: Some(spec.netns.as_fd()),
            index: None,
        };
        let (index, socket) = segment.make_outer(name, inner)?;
        let configured = inner::configure(name, &spec);
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

    /// Brings the VLAN into the network namespace `netns`, in which start scripts of containers
    /// run, in the place of a tap interface: as `vde-tap<n>`, *n* being the VLAN's number, which is
    /// up, and which a script puts into its bridge. Bridges may come and go; when the port is
    /// dropped, the interface is gone. It needs no `/dev/net/tun`.
    ///
    /// # Errors
    /// [`AttachError::Taken`] where there is such an interface already, and those of
    /// [`Vlan::attach_veth`].
    pub fn attach_tap(&self, netns: &NetNs) -> Result<Port, AttachError> {
        let segment = &self.segment;
        let name = format!("vde-tap{}", segment.id);
        let inner = VethEnd {
            name: &name,
            mac: None,
            mtu: segment.mtu,
            netns: Some(netns.as_fd()),
            index: None,
        };
        let made = segment.make_outer(&name, inner);
        let (index, socket) = made.map_err(|error| error.or_taken(&name))?;
        let configured = inner::configure_wire(netns, &name);
        let attached = configured.and_then(|()| {
            segment.settle(&name, index)?;
            let device = Device::Veth(VethDevice::new(socket));
            self.attach(&name, segment.mtu, device, Some(index))
        });
        attached.inspect_err(|_| segment.delete(index))
    }

    /// Serves clients of the VDE protocol in `directory`, which is made if it is not there: QEMU
    /// with `-netdev vde,sock=DIRECTORY`, `vde_plug`, `vde_plug2tap`. Each client that connects has
    /// a port of its own. May be called for any number of directories: with one for each machine,
    /// the [`VdeDoor`] is the machine's place at the switch.
    ///
    /// # Errors
    /// Where the directory's path is longer than [`crate::vde::LONGEST_DIRECTORY`], somebody else
    /// serves there, or the socket in it cannot be made.
    pub fn listen_vde(&self, directory: &Path) -> Result<VdeDoor, AttachError> {
        let segment = &self.segment;
        let directory = Directory::new(directory)?;
        let (path, tally) = (Arc::clone(directory.path()), Arc::new(Tally::default()));
        let door = NewDoor {
            directory,
            mtu: segment.mtu,
            tally: Arc::clone(&tally),
        };
        let id = segment.open(door).map_err(|source| AttachError::Refused {
            vlan: segment.id,
            port: path.display().to_string(),
            source,
        })?;
        Ok(VdeDoor {
            directory: path,
            id,
            tally,
            segment: Arc::clone(segment),
        })
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
        may_go::<VdeDoor>();
    }
}
