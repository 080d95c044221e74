//! The Mac's own NAT, for guests of other builders that need it: its DHCP server, its firewall, and its
//! subnet. VMs of machinist's are reached through a channel, and need none of it.

use std::net::Ipv4Addr;

use super::ask;
use super::launchd::Service;
use super::services::NAT_BUILDER;
use crate::finding::Finding;
use crate::host::Host;

const ID: &str = "mac.net";
const DHCP: &str = "/usr/libexec/bootpd";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    if Service::of(host, &format!("system/{NAT_BUILDER}")).is_none() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = [dhcp(host), firewall(host), subnet(host)]
        .into_iter()
        .flatten()
        .collect();
    if findings.is_empty() {
        findings.push(Finding::fine(
            ID,
            "DHCP, firewall and subnets",
            "nothing is in its way",
        ));
    }
    findings
}

fn dhcp(host: &Host) -> Option<Finding> {
    const TARGET: &str = "system/com.apple.bootpd";
    let how = Service::of(host, TARGET)?.failure()?;
    Some(
        Finding::warning(
            ID,
            &format!("launchctl print {TARGET}"),
            format!("the DHCP server {how}"),
        )
        .why("a guest behind NAT gets no address, and its builder is not found")
        .mend("sudo killall bootpd: it starts again with the next request"),
    )
}

/// Whether a state is said to be on: `Firewall is enabled. (State = 1)`.
fn is_on(said: &str) -> bool {
    said.contains("(State = 1)") || said.contains("(State = 2)")
}

fn firewall(host: &Host) -> Option<Finding> {
    let said = ask(host, "socketfilterfw", &["--getglobalstate"])?;
    if !is_on(&said) {
        return None;
    }
    let app = ask(host, "socketfilterfw", &["--getappblocked", DHCP])?;
    if !app.contains("blocked") {
        return None;
    }
    let managed = ask(host, "profiles", &["status", "-type", "enrollment"]);
    let managed = managed.is_some_and(|it| it.contains("MDM enrollment: Yes"));
    let finding = Finding::warning(
        ID,
        &format!("socketfilterfw --getappblocked {DHCP}"),
        app.trim(),
    )
    .why("the firewall keeps guests behind NAT from getting an address");
    Some(match managed {
        true => finding.mend("this Mac is managed: ask who manages it to let bootpd through; or use a builder of machinist's, which needs no address"),
        false => finding.mend(format!("sudo /usr/libexec/ApplicationFirewall/socketfilterfw --unblock {DHCP}")),
    })
}

/// The IPv4 networks of `ifconfig`: interface, address, mask.
fn networks(text: &str) -> Vec<(&str, Ipv4Addr, u32)> {
    let mut interface = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if !line.starts_with([' ', '\t']) {
            interface = line.split(':').next().unwrap_or_default();
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["inet", address, "netmask", mask, ..] = words[..] {
            let address = address.parse();
            let mask = u32::from_str_radix(mask.trim_start_matches("0x"), 16);
            if let (Ok(address), Ok(mask)) = (address, mask) {
                found.push((interface, address, mask));
            }
        }
    }
    found
}

/// Two interfaces, one of them the NAT's, that are in each other's network.
fn clash(text: &str) -> Option<String> {
    let all = networks(text);
    let (nat, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(name, ..)| name.starts_with("bridge"));
    let overlap = |(_, a, mask): &(&str, Ipv4Addr, u32), (_, b, other): &(&str, Ipv4Addr, u32)| {
        let mask = mask & other;
        a.to_bits() & mask == b.to_bits() & mask
    };
    let pairs = nat
        .iter()
        .flat_map(|it| others.iter().map(move |other| (it, other)));
    let (bridge, other) = pairs.into_iter().find(|(a, b)| overlap(a, b))?;
    Some(format!(
        "{} has {}, and {} has {}, of the same network",
        bridge.0, bridge.1, other.0, other.1
    ))
}

fn subnet(host: &Host) -> Option<Finding> {
    let found = clash(&ask(host, "ifconfig", &[])?)?;
    Some(
        Finding::warning(ID, "ifconfig", found)
            .why("macOS 26 gives guests 192.168.2.0/24 and nothing else: answers go to the wrong side")
            .mend("give the router another network; or use a builder of machinist's, which needs no address"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const IFCONFIG: &str = "lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n\tinet6 ::1 prefixlen 128\nen0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500\n\tether 3c:06:30:00:00:01\n\tinet 192.168.2.17 netmask 0xffffff00 broadcast 192.168.2.255\n\tmedia: autoselect\nbridge100: flags=8a63<UP,BROADCAST,SMART,RUNNING,ALLMULTI,SIMPLEX,MULTICAST> mtu 1500\n\tinet 192.168.2.1 netmask 0xffffff00 broadcast 192.168.2.255\n";

    #[test]
    fn networks_that_clash() {
        assert_eq!(
            clash(IFCONFIG).unwrap(),
            "bridge100 has 192.168.2.1, and en0 has 192.168.2.17, of the same network"
        );
        let apart = IFCONFIG.replace("192.168.2.17", "192.168.178.17");
        assert_eq!(networks(&apart).len(), 3);
        assert_eq!(clash(&apart), None);
    }

    #[test]
    fn the_state_of_the_firewall() {
        assert!(is_on("Firewall is enabled. (State = 1)\n"));
        assert!(!is_on("Firewall is disabled. (State = 0)\n"));
    }
}
