//! Addresses of hosts, without a name service.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a name: itself, the loopback, or what `/etc/hosts` says.
pub(crate) fn resolve(name: &str) -> Vec<IpAddr> {
    if let Ok(address) = name.parse() {
        return vec![address];
    }
    if name == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    in_hosts(name, &fs::read_to_string("/etc/hosts").unwrap_or_default())
}

fn in_hosts(name: &str, hosts: &str) -> Vec<IpAddr> {
    hosts
        .lines()
        .filter_map(|line| {
            let line = line.split('#').next()?;
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_is_read_as_the_c_library_does() {
        let hosts = "# all\n192.168.1.1 db db.lab # db\n2001:db8:1::1\tdb\nbad line\n";
        let addresses = in_hosts("DB", hosts);
        assert_eq!(addresses.len(), 2);
        assert_eq!(in_hosts("lab", hosts), Vec::<IpAddr>::new());
    }
}
