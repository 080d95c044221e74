//! Who is called what on which VLAN: the plan that NixOS tests have too.
//!
//! Machines are numbered from 1 in the order of their names. Machine *n* has on VLAN *v* the
//! addresses `192.168.v.n/24` and `2001:db8:v::n/64` and the MAC address `52:54:00:12:vv:nn`. Its
//! first VLAN is `eth1`, its second `eth2`, and so on; `eth0` is left to what connects a machine
//! with the world. In the IPv6 address `v` and `n` are written as decimal digits, as NixOS does:
//! VLAN 12 is `2001:db8:12::`, which reads better than `2001:db8:c::`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use machinist_sys::netlink::Mac;

/// The highest number of a VLAN and of a machine: each is one byte of an IPv4 address, in which 0
/// is the network and 255 the broadcast.
pub const HIGHEST: u8 = 254;

/// Prefix length of the IPv4 addresses, in bits.
pub const PREFIX_V4: u8 = 24;
/// Prefix length of the IPv6 addresses, in bits.
pub const PREFIX_V6: u8 = 64;

/// A machine's place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineNumber(u8);

/// A machine too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "machine number {number} is out of range: a lab has at most {HIGHEST} machines, numbered from 1"
)]
pub struct MachineNumberError {
    number: usize,
}

impl MachineNumber {
    /// The machine at `position` among the lab's machines sorted by name, counted from 0.
    ///
    /// # Errors
    /// From position 254 on.
    pub fn at(position: usize) -> Result<Self, MachineNumberError> {
        let number = position.saturating_add(1);
        match u8::try_from(number) {
            Ok(small) if small <= HIGHEST => Ok(Self(small)),
            _ => Err(MachineNumberError { number }),
        }
    }

    /// The number, 1 to 254.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A machine's IPv4 address on a VLAN.
#[must_use]
pub const fn ipv4(vlan: u8, machine: MachineNumber) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, vlan, machine.0)
}

/// A machine's IPv6 address on a VLAN.
#[must_use]
pub const fn ipv6(vlan: u8, machine: MachineNumber) -> Ipv6Addr {
    let (vlan, machine) = (digits(vlan), digits(machine.0));
    Ipv6Addr::new(0x2001, 0xdb8, vlan, 0, 0, 0, 0, machine)
}

/// Both of a machine's addresses on a VLAN with their prefix lengths, IPv4 first.
#[must_use]
pub const fn both(vlan: u8, machine: MachineNumber) -> [(IpAddr, u8); 2] {
    [
        (IpAddr::V4(ipv4(vlan, machine)), PREFIX_V4),
        (IpAddr::V6(ipv6(vlan, machine)), PREFIX_V6),
    ]
}

/// The MAC address of a machine's interface on a VLAN.
#[must_use]
pub const fn mac(vlan: u8, machine: MachineNumber) -> Mac {
    Mac([0x52, 0x54, 0x00, 0x12, vlan, machine.0])
}

/// The name of a machine's interface on the VLAN at `position` in its list of VLANs, from 0.
#[must_use]
pub fn interface(position: usize) -> String {
    format!("eth{}", position.saturating_add(1))
}

/// The 16 bits that are written in hexadecimal as `number` is in decimal.
const fn digits(number: u8) -> u16 {
    let number = number as u16;
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn as_in_nixos_tests() {
        let third = MachineNumber::at(2).unwrap();
        assert_eq!(ipv4(1, third).to_string(), "192.168.1.3");
        assert_eq!(ipv6(1, third).to_string(), "2001:db8:1::3");
        assert_eq!(mac(1, third).to_string(), "52:54:00:12:01:03");
        assert_eq!(interface(0), "eth1");
        let far = MachineNumber::at(119).unwrap();
        assert_eq!(ipv6(254, far).to_string(), "2001:db8:254::120");
        assert_eq!(mac(254, far).to_string(), "52:54:00:12:fe:78");
        assert_eq!(both(7, far)[1], (ipv6(7, far).into(), 64));
    }

    #[test]
    fn at_most_254_machines_and_all_differ() {
        let mut seen = HashSet::new();
        for position in 0..254 {
            let machine = MachineNumber::at(position).unwrap();
            assert!(seen.insert((ipv4(1, machine), ipv6(1, machine), mac(1, machine))));
        }
        for position in [254, usize::MAX] {
            assert!(MachineNumber::at(position).is_err());
        }
    }
}
