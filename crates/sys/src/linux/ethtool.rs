//! What a network interface leaves to its card: the part of `ethtool -K` that the switch needs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const SET_FEATURES: u32 = 0x3b;
/// The string set of the features' names, in the order of their bits.
const FEATURES: u32 = 4;
const NAME: usize = 32;
/// No kernel has nearly so many features.
const MOST_FEATURES: u32 = 1024;

/// Turns `features` off on the interface `name` of the calling thread's network namespace. Features
/// are named as `ethtool -k` shows them in its source, like `tx-udp_tnl-segmentation`; those that
/// this kernel does not know are off already.
///
/// # Errors
/// Without `CAP_NET_ADMIN`, or where there is no such interface.
pub fn turn_off(name: &str, features: &[&str]) -> io::Result<()> {
    let interface = Interface::open(name)?;
    let names = interface.feature_names()?;
    let mut blocks = vec![(0_u32, 0_u32); names.len().div_ceil(32)];
    for (bit, name) in names.iter().enumerate() {
        if features.contains(&name.as_str()) {
            // Valid: this bit is to be changed. Requested stays 0: to off.
            blocks[bit / 32].0 |= 1 << (bit % 32);
        }
    }
    let count = u32::try_from(blocks.len()).unwrap_or(0);
    let mut request = vec![SET_FEATURES, count];
    request.extend(
        blocks
            .iter()
            .flat_map(|(valid, requested)| [valid, requested]),
    );
    interface.ask(&mut request)
}

struct Interface {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Interface {
    fn open(name: &str) -> io::Result<Self> {
        let mut field = [0; libc::IFNAMSIZ];
        // The last byte stays 0.
        if name.is_empty() || name.len() >= field.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self {
            socket,
            name: field,
        })
    }

    fn feature_names(&self) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then a count per set.
        let mut info = [GET_SET_INFO, 0, 0, 0, 0];
        let mask = (1_u64 << FEATURES).to_ne_bytes();
        let (low, high) = mask.split_at(4);
        for (word, bytes) in info[2..4].iter_mut().zip([low, high]) {
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        self.ask(&mut info)?;
        let count = info[4].min(MOST_FEATURES);
        // struct ethtool_gstrings: command, set, count, then the names, 32 bytes each.
        let mut strings = vec![0; 3 + count as usize * NAME / 4];
        strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, count]);
        self.ask(&mut strings)?;
        let bytes: Vec<u8> = strings[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let name = |field: &[u8]| {
            let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        Ok(bytes.chunks_exact(NAME).map(name).collect())
    }

    /// Performs the ethtool command that `request` begins with; the reply replaces it.
    fn ask(&self, request: &mut [u32]) -> io::Result<()> {
        let mut ifreq = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: request.as_mut_ptr().cast(),
            },
        };
        // SAFETY: `ifreq` and `request` live through the call. The kernel writes into `request` no
        // more than what the counts in it say, and the callers have made it that long.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                SIOCETHTOOL as _,
                std::ptr::from_mut(&mut ifreq),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::NetNs;

    #[test]
    fn names_are_read_and_features_turned_off() {
        let Ok(netns) = NetNs::new() else {
            eprintln!("skipped: this needs CAP_SYS_ADMIN");
            return;
        };
        let names = netns
            .run(|| Interface::open("lo")?.feature_names())
            .unwrap()
            .unwrap();
        assert!(
            names.iter().any(|name| name == "tx-udp_tnl-segmentation"),
            "{names:?}"
        );
        let off = ["tx-udp-segmentation", "no-such-feature"];
        netns.run(|| turn_off("lo", &off)).unwrap().unwrap();
        assert!(netns.run(|| turn_off("nosuch", &off)).unwrap().is_err());
    }

    #[test]
    fn unusable_names_are_refused() {
        assert!(turn_off("", &[]).is_err());
        assert!(turn_off("a-name-that-is-too-long", &[]).is_err());
    }
}
