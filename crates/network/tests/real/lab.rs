//! Machines to attach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use machinist_network::addresses::{self, MachineNumber};
use machinist_network::{Mac, NetNs, Port, VethSpec, Vlan};
use tempfile::TempDir;

/// The number of the machine at this position, from 1.
pub fn number(number: usize) -> MachineNumber {
    MachineNumber::at(number - 1).unwrap()
}

/// A VLAN's number, where it is one that addresses are made of.
pub fn id(vlan: &Vlan) -> u8 {
    u8::try_from(vlan.id()).unwrap()
}

/// Addresses of machine `n` on VLAN `vlan`.
#[derive(Clone, Copy)]
pub struct Address {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub mac: Mac,
}

impl Address {
    pub fn of(vlan: u8, n: usize) -> Self {
        Self {
            v4: addresses::ipv4(vlan, number(n)),
            v6: addresses::ipv6(vlan, number(n)),
            mac: addresses::mac(vlan, number(n)),
        }
    }

    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A machine that is attached as containers are.
pub struct Container {
    pub netns: NetNs,
    pub port: Port,
    pub address: Address,
}

impl Container {
    pub fn new(vlan: &Vlan, n: usize) -> Self {
        Self::with_mtu(vlan, n, None)
    }

    pub fn with_mtu(vlan: &Vlan, n: usize, mtu: Option<u32>) -> Self {
        let netns = NetNs::new().unwrap();
        let port = attach(vlan, n, &netns, mtu);
        Self {
            netns,
            port,
            address: Address::of(id(vlan), n),
        }
    }
}

pub fn attach(vlan: &Vlan, n: usize, netns: &NetNs, mtu: Option<u32>) -> Port {
    let spec = spec(id(vlan), n, netns, mtu);
    vlan.attach_veth(&format!("machine{n}"), spec).unwrap()
}

pub fn spec(vlan: u8, n: usize, netns: &NetNs, mtu: Option<u32>) -> VethSpec {
    VethSpec {
        netns: netns.try_clone().unwrap(),
        ifname: addresses::interface(0),
        mac: addresses::mac(vlan, number(n)),
        addresses: addresses::both(vlan, number(n)).to_vec(),
        mtu,
    }
}

/// A directory for sockets, and the path of the socket of machine `n`.
pub struct Sockets(TempDir);

impl Sockets {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, n: usize) -> PathBuf {
        self.0.path().join(format!("machine{n}"))
    }
}
