//! Which TCP ports somebody listens on.
//!
//! The kernel is asked for listeners alone. Its tables in `/proc` have all connections as well, and
//! to read one it walks through a table that is sized for a busy server: milliseconds, each time.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

// The kernel's numbers, from linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const TCP: u8 = 6;
const LISTEN: u8 = 10;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// The kernel has no such interface. It looks for a module each time that it is asked, which is not
/// to happen a hundred times a second.
static LACKING: AtomicBool = AtomicBool::new(false);

/// The addresses and ports that somebody listens on.
pub(crate) fn listeners() -> Vec<(IpAddr, u16)> {
    if !LACKING.load(Ordering::Relaxed) {
        match asked() {
            Ok(found) => return found,
            Err(_) => LACKING.store(true, Ordering::Relaxed),
        }
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| of_table(table)).collect()
}

fn asked() -> Result<Vec<(IpAddr, u16)>, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        rustix::net::send(&socket, &request(family), SendFlags::empty())?;
        loop {
            let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
            if read(&buffer[..length], &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// A dump of all listeners of a family.
fn request(family: AddressFamily) -> [u8; HEADER + REQUEST] {
    let mut request = [0; HEADER + REQUEST];
    // struct nlmsghdr: length (u32), type (u16), flags (u16), sequence number, port.
    request[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    // struct inet_diag_req_v2: family, protocol, two bytes, states (u32), a socket.
    request[HEADER] = family.as_raw() as u8;
    request[HEADER + 1] = TCP;
    request[HEADER + 4..HEADER + 8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    request
}

/// Reads the messages of a packet; says whether the last one was among them.
fn read(mut packet: &[u8], found: &mut Vec<(IpAddr, u16)>) -> Result<bool, Errno> {
    while let (Some(length), Some(kind)) = (word(packet, 0), half(packet, 4)) {
        let length = length as usize;
        let Some(body) = packet.get(HEADER..length) else {
            return Err(Errno::BADMSG);
        };
        match kind {
            // With the error number that the dump ended with, or 0 (as `NLMSG_ERROR` has one).
            NLMSG_DONE if word(body, 0).unwrap_or(0) == 0 => return Ok(true),
            NLMSG_DONE | NLMSG_ERROR => return Err(Errno::NOTSUP),
            _ => found.extend(listener(body)),
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Of `struct inet_diag_msg`: family, state, two bytes, local port (big endian), remote port, local
/// address (16 bytes, of which IPv4 uses the first four).
fn listener(message: &[u8]) -> Option<(IpAddr, u16)> {
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let address = message.get(8..)?;
    let address = if u16::from(*message.first()?) == AddressFamily::INET.as_raw() {
        IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(*address.first_chunk::<16>()?))
    };
    (message.get(1) == Some(&LISTEN)).then_some((address, port))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The sockets of a table in `/proc` that listen.
fn of_table(table: &str) -> impl Iterator<Item = (IpAddr, u16)> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTEN).then_some((parse_address(address)?, port))
    })
}

/// Words of 32 bits, each printed as the number that its bytes in memory are.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
        1: 0100007F:1F91 00000000:0000 01 00000000:00000000\n";
    const TABLE6: &str = "  sl  local_address remote_address st\n\
        0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0\n";

    #[test]
    fn the_kernel_tables_tell_listeners() {
        let found: Vec<_> = of_table(TABLE).collect();
        assert_eq!(found, [(Ipv4Addr::LOCALHOST.into(), 8080)]);
        let found: Vec<_> = of_table(TABLE6).collect();
        assert_eq!(found, [(Ipv6Addr::LOCALHOST.into(), 80)]);
    }

    #[test]
    fn the_kernel_tells_its_listeners() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let ours = std::net::TcpListener::bind(address).unwrap();
            let address = ours.local_addr().unwrap();
            let address = (address.ip(), address.port());
            assert!(asked().unwrap().contains(&address), "{address:?}");
            // One that is connected is no listener.
            let client = std::net::TcpStream::connect(address).unwrap();
            let client = client.local_addr().unwrap();
            let is_ours = |it: &(IpAddr, u16)| *it == (client.ip(), client.port());
            assert!(!asked().unwrap().iter().any(is_ours));
            drop(ours);
            assert!(!asked().unwrap().contains(&address), "{address:?}");
        }
    }

    #[test]
    fn nonsense_is_no_listener() {
        let mut found = Vec::new();
        assert_eq!(read(&[0; 5], &mut found), Ok(false));
        assert_eq!(read(&[0; 16], &mut found), Err(Errno::BADMSG));
        assert_eq!(read(&[255; 64], &mut found), Err(Errno::BADMSG));
        let mut failed = [0; 20];
        failed[0..4].copy_from_slice(&20_u32.to_ne_bytes());
        failed[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        assert_eq!(read(&failed, &mut found), Ok(true));
        failed[16..].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(read(&failed, &mut found), Err(Errno::NOTSUP));
        assert_eq!(found, []);
    }
}
