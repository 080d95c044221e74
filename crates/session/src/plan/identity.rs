//! Who a machine is: its addresses, its id, and whom it knows. All of it follows from the lab.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use machinist_lab::{self as lab, Lab};
use machinist_machine as machine;
use machinist_network::addresses::{self, MachineNumber, MachineNumberError};

fn number(machine: &lab::Machine) -> Result<MachineNumber, MachineNumberError> {
    MachineNumber::at(usize::from(machine.number).saturating_sub(1))
}

/// Its network interfaces: one on each of its VLANs.
pub(super) fn nics(machine: &lab::Machine) -> Result<Vec<machine::NicSpec>, MachineNumberError> {
    let number = number(machine)?;
    let nic = |(position, vlan): (usize, &lab::VlanId)| machine::NicSpec {
        vlan: vlan.get(),
        name: addresses::interface(position),
        mac: addresses::mac(vlan.get(), number).0,
        addresses: addresses::both(vlan.get(), number).to_vec(),
    };
    Ok(machine.vlans.iter().enumerate().map(nic).collect())
}

/// Everybody's names, at their addresses on their first VLAN. A machine without a network knows
/// itself by a loopback address, as on Debian.
pub(super) fn hosts(
    lab: &Lab,
    own: &lab::Machine,
) -> Result<Vec<machine::HostLine>, MachineNumberError> {
    let mut lines = Vec::new();
    for machine in &lab.machines {
        let names = vec![machine.name.as_str().to_owned()];
        let number = number(machine)?;
        if let Some(vlan) = machine.vlans.first() {
            for (address, _) in addresses::both(vlan.get(), number) {
                let names = names.clone();
                lines.push(machine::HostLine { address, names });
            }
        } else if machine.name == own.name {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));
            lines.push(machine::HostLine { address, names });
        }
    }
    Ok(lines)
}

/// 32 hexadecimal digits that no other machine has, in this session or another.
pub(super) fn machine_id(session: &str, name: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, session, name).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

#[cfg(test)]
mod tests {
    use super::super::tests::planned;
    use super::*;

    #[test]
    fn machines_get_their_addresses_by_their_place() {
        let all = planned(&[]);
        let names: Vec<&str> = all.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["app-1", "app-2", "db", "lone"]);
        assert_eq!(
            all[1].addresses(),
            [
                "192.168.2.2/24",
                "2001:db8:2::2/64",
                "192.168.1.2/24",
                "2001:db8:1::2/64"
            ]
        );
        assert_eq!(all[1].nics[0].name, "eth1");
        assert_eq!(all[1].nics[1].mac, [0x52, 0x54, 0, 0x12, 1, 2]);
        assert!(all[3].addresses().is_empty());
    }

    #[test]
    fn everybody_knows_everybody_by_the_first_vlan() {
        let all = planned(&[]);
        let hosts: Vec<String> = all[2]
            .hosts
            .iter()
            .map(|line| format!("{} {}", line.address, line.names.join(" ")))
            .collect();
        let expected = [
            "192.168.2.1 app-1",
            "2001:db8:2::1 app-1",
            "192.168.2.2 app-2",
            "2001:db8:2::2 app-2",
            "192.168.2.3 db",
            "2001:db8:2::3 db",
        ];
        assert_eq!(hosts, expected);
        let own = all[3].hosts.last().unwrap();
        assert_eq!(own.address.to_string(), "127.0.1.1");
    }

    #[test]
    fn machine_ids_are_32_digits_and_all_differ() {
        let all = planned(&[]);
        let ids: std::collections::HashSet<&str> =
            all.iter().map(|plan| plan.machine_id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        assert!(ids.iter().all(|id| id.len() == 32));
        assert_ne!(machine_id("abcdefgh", "a"), machine_id("abcdefgj", "a"));
    }
}
