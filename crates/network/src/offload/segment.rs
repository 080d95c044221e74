//! Cutting long TCP and UDP packets.

use super::checksum::{add, complement, sum};
use super::{Note, OffloadError};
use crate::frame::{self, Head};

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FLAGS: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_PUSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// Where the headers of a frame are.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Where the IP header begins.
    ip: usize,
    version: Version,
    /// Where the TCP or UDP header begins.
    transport: usize,
    protocol: u8,
    /// Where what they carry begins.
    payload: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// How many bytes of headers every segment of a frame gets. `None` where the note does not fit.
pub(super) fn header_length(bytes: &[u8], note: &Note) -> Option<usize> {
    Layout::read(bytes, note).ok().map(|layout| layout.payload)
}

/// Cuts a frame as `note` says, and hands out the segments.
pub(super) fn cut(
    bytes: &[u8],
    note: &Note,
    scratch: &mut Vec<u8>,
    out: &mut impl FnMut(&[u8]),
) -> Result<(), OffloadError> {
    let layout = Layout::read(bytes, note)?;
    if note.gso_size == 0 {
        return Err(OffloadError::Mismatch);
    }
    let size = usize::from(note.gso_size);
    let payload = &bytes[layout.payload..];
    // A frame that carries nothing is one segment all the same.
    let count = payload.len().div_ceil(size).max(1);
    for index in 0..count {
        let start = index * size;
        let part = &payload[start..payload.len().min(start + size)];
        scratch.clear();
        scratch.extend_from_slice(&bytes[..layout.payload]);
        scratch.extend_from_slice(part);
        let place = Place {
            index,
            start,
            last: index + 1 == count,
        };
        layout.patch(scratch, place);
        out(scratch);
    }
    Ok(())
}

/// Which segment it is.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    /// How many bytes are carried by those before it.
    start: usize,
    last: bool,
}

impl Layout {
    fn read(bytes: &[u8], note: &Note) -> Result<Self, OffloadError> {
        let (protocol, version) = match note.segment_kind() {
            Note::SEGMENT_TCP4 => (TCP, Some(Version::V4)),
            Note::SEGMENT_TCP6 => (TCP, Some(Version::V6)),
            Note::SEGMENT_UDP => (UDP, None),
            _ => return Err(OffloadError::Unknown),
        };
        let head = Head::read(bytes).ok_or(OffloadError::Mismatch)?;
        let found = match head.kind {
            frame::TYPE_IPV4 => Version::V4,
            frame::TYPE_IPV6 => Version::V6,
            _ => return Err(OffloadError::Unknown),
        };
        // Without the checksum, nobody says where the TCP or UDP header is.
        if !note.needs_checksum() || version.is_some_and(|version| version != found) {
            return Err(OffloadError::Mismatch);
        }
        let ip = head.payload;
        let transport = usize::from(note.csum_start);
        let reached = match found {
            Version::V4 => end_of_ipv4(bytes, ip, protocol),
            Version::V6 => end_of_ipv6(bytes, ip, protocol),
        };
        // Elsewhere means that the note is about a packet within this packet.
        if reached != Some(transport) {
            return Err(OffloadError::Unknown);
        }
        let length = match protocol {
            TCP => bytes
                .get(transport + 12)
                .map_or(0, |byte| usize::from(byte >> 4) * 4),
            _ => UDP_HEADER,
        };
        let payload = transport + length;
        if payload > bytes.len() || (protocol == TCP && length < 20) {
            return Err(OffloadError::Mismatch);
        }
        Ok(Self {
            ip,
            version: found,
            transport,
            protocol,
            payload,
        })
    }

    /// Makes the headers of the first long packet those of one segment.
    fn patch(&self, segment: &mut [u8], place: Place) {
        let length = segment.len();
        match self.version {
            Version::V4 => {
                put(segment, self.ip + 2, half(length - self.ip));
                // Every packet has a number of its own, by which its fragments are told apart.
                let id = get(segment, self.ip + 4).wrapping_add(half(place.index));
                put(segment, self.ip + 4, id);
                let header = self.ip..self.ip + usize::from(segment[self.ip] & 0xf) * 4;
                put(segment, self.ip + 10, 0);
                let checksum = !sum(&segment[header]);
                put(segment, self.ip + 10, checksum);
            }
            Version::V6 => put(segment, self.ip + 4, half(length - self.ip - IPV6_HEADER)),
        }
        let checksum_at = match self.protocol {
            TCP => {
                self.patch_tcp(segment, place);
                self.transport + 16
            }
            _ => {
                put(segment, self.transport + 4, half(length - self.transport));
                self.transport + 6
            }
        };
        put(segment, checksum_at, 0);
        let total = add(&[self.pseudo_header(segment), sum(&segment[self.transport..])]);
        let checksum = match self.protocol {
            TCP => !total,
            _ => complement(total),
        };
        put(segment, checksum_at, checksum);
    }

    fn patch_tcp(&self, segment: &mut [u8], place: Place) {
        let sequence = &mut segment[self.transport + 4..self.transport + 8];
        let mut number = [0; 4];
        number.copy_from_slice(sequence);
        // Sequence numbers count bytes and begin again after the highest.
        let carried = u32::try_from(place.start).unwrap_or(u32::MAX);
        let number = u32::from_be_bytes(number).wrapping_add(carried);
        sequence.copy_from_slice(&number.to_be_bytes());
        let flags = &mut segment[self.transport + TCP_FLAGS];
        if !place.last {
            *flags &= !(TCP_FIN | TCP_PUSH);
        }
        // That the congestion window was reduced is said once.
        if place.index != 0 {
            *flags &= !TCP_CWR;
        }
    }

    /// The sum of addresses, protocol and length, which the checksum covers too.
    fn pseudo_header(&self, segment: &[u8]) -> u16 {
        let addresses = match self.version {
            Version::V4 => self.ip + 12..self.ip + 20,
            Version::V6 => self.ip + 8..self.ip + 40,
        };
        let length = half(segment.len() - self.transport);
        add(&[sum(&segment[addresses]), self.protocol.into(), length])
    }
}

fn end_of_ipv4(bytes: &[u8], ip: usize, protocol: u8) -> Option<usize> {
    let header = bytes.get(ip..)?.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    (header[0] >> 4 == 4 && length >= 20 && header[9] == protocol).then_some(ip + length)
}

/// Walks over the extension headers that may stand before TCP or UDP.
fn end_of_ipv6(bytes: &[u8], ip: usize, protocol: u8) -> Option<usize> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let header = bytes.get(ip..)?.first_chunk::<IPV6_HEADER>()?;
    let (mut next, mut at) = (header[6], ip + IPV6_HEADER);
    while next != protocol {
        let extension = bytes.get(at..)?.first_chunk::<2>()?;
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
            return None;
        }
        next = extension[0];
        at += (usize::from(extension[1]) + 1) * 8;
    }
    (header[0] >> 4 == 6).then_some(at)
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Lengths of packets are 16 bits wide. A longer one does not come out of a well-formed note, and
/// what becomes of it is dropped by its receiver.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
const fn half(number: usize) -> u16 {
    number as u16
}
