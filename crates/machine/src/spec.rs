//! What a machine is to be.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use machinist_image::Image;

use crate::devices::Devices;
use crate::snapshot::Warm;
use crate::verdict::Accel;

/// What a machine is to be. Nothing in it changes while the machine lives.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Its name: a DNS label, unique in its session.
    pub name: String,
    /// What it boots.
    pub image: Image,
    /// What runs it.
    pub kind: Kind,
    /// Who starts in it.
    pub boot: Boot,
    /// Bytes of memory. A VM has so much; a container no more, where the host can limit it.
    pub memory: u64,
    /// Virtual processors. A container's limit, where the host can limit it.
    pub cpus: u16,
    /// Its network interfaces, in order.
    pub nics: Vec<NicSpec>,
    /// Whether a VM has an uplink beside them: an interface ([`UPLINK_MAC`]) from which it reaches
    /// what the host reaches, as 10.0.2.15/24, through QEMU's user-mode network (10.0.2.2, names at
    /// 10.0.2.3). Nothing sets it up inside, and nobody reaches the VM by it. While a VM boots to be
    /// saved, it leads nowhere.
    pub uplink: bool,
    /// The addresses and names that it knows beside its own loopback.
    pub hosts: Vec<HostLine>,
    /// 32 hexadecimal digits.
    pub machine_id: String,
    /// Directories (for containers also files) of the host that it sees.
    pub volumes: Vec<Volume>,
    /// Ports of the host that lead into it.
    pub publish: Vec<Publish>,
    /// How long its agent may take to answer after a start or a restart.
    pub start_within: Duration,
    /// Whether it may be restored instead of booting. For VMs.
    pub warm: Warm,
}

/// The address of an uplink on its Ethernet, which it has for itself.
pub const UPLINK_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0, 1];

/// What runs a machine.
#[derive(Debug, Clone)]
pub enum Kind {
    /// QEMU.
    Vm {
        /// How.
        accel: Accel,
        /// Disks beside the one that it boots from: `/dev/vdb` and so on. Where the guest has udev,
        /// they are `/dev/disk/by-id/virtio-disk<n>` as well, from 0.
        disks: Vec<Disk>,
    },
    /// systemd-nspawn.
    Container {
        /// Devices of the host that it may use.
        devices: Devices,
    },
}

/// Who starts in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The image's own init. It goes on to be ready.
    System,
    /// The agent alone, as fast as can be. For VMs.
    Agent,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// The VLAN that it hangs on.
    pub vlan: u8,
    /// Its name inside, such as `eth1`.
    pub name: String,
    /// Its address on the Ethernet.
    pub mac: [u8; 6],
    /// Its IP addresses, with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// One line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// The address.
    pub address: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// An empty one of so many bytes, gone with the machine's directory.
    Scratch {
        /// Its size.
        size: u64,
    },
    /// A file of the host, raw or qcow2.
    File {
        /// The file.
        path: PathBuf,
        /// What the machine may do to it.
        access: DiskAccess,
    },
}

/// What a machine may do to a file that is its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAccess {
    /// Read it.
    ReadOnly,
    /// Read it, and write to a copy that is gone with the machine's directory.
    Discard,
    /// Read and write it.
    Write,
    /// The same, but the machine's own system leaves it alone until the machine is ready. A machine
    /// that is saved is saved with an empty disk of the same size in its place; whoever uses the disk
    /// then first has the kernel forget what it read of that (`blockdev --flushbufs`).
    WriteLater,
}

/// A directory of the host in the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the machine.
    pub target: PathBuf,
    /// Whether the machine may write to it.
    pub writable: bool,
}

/// A port of the host that leads into a machine, through its agent: no network is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens. Port 0 is any free one.
    pub host: SocketAddr,
    /// The port inside, on its loopback.
    pub guest: u16,
}

impl MachineSpec {
    /// The text of /etc/hosts.
    pub(crate) fn hosts_file(&self) -> String {
        use std::fmt::Write;
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for line in &self.hosts {
            // Writing to a string cannot fail.
            _ = writeln!(text, "{} {}", line.address, line.names.join(" "));
        }
        text
    }
}
