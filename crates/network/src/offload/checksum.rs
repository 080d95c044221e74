//! The checksum of the Internet protocols.

use super::{Note, OffloadError};
use crate::frame::Head;

/// Number of SCTP, whose checksum is another.
const SCTP: u8 = 132;
/// Where in its header UDP has its checksum.
const UDP_OFFSET: u16 = 6;

/// Adds up `bytes` as 16 bit numbers, the higher byte first, carries added back in. A last odd byte
/// counts as the higher one.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    // One's complement addition does not mind the byte order, so the machine's own is used and
    // swapped at the end; nor the width, so more is added at a time.
    let mut total = 0_u64;
    let chunks = bytes.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        total += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// Adds several sums up.
pub(super) fn add(sums: &[u16]) -> u16 {
    fold(sums.iter().map(|sum| u64::from(*sum)).sum())
}

/// The UDP checksum for bytes with this sum: never 0, which means that there is none.
pub(super) const fn complement(sum: u16) -> u16 {
    match !sum {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "nothing is left above 16 bits"
)]
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Fills in the one checksum that `note` says is missing. The sum of the pseudo header is where the
/// checksum is to be, so adding up everything from `csum_start` on gives the right one.
pub(super) fn complete(frame: &mut [u8], note: &Note) -> Result<(), OffloadError> {
    let start = usize::from(note.csum_start);
    let at = start + usize::from(note.csum_offset);
    if at + 2 > frame.len() {
        return Err(OffloadError::Mismatch);
    }
    if carries_sctp(frame) {
        return Err(OffloadError::Unknown);
    }
    let total = sum(&frame[start..]);
    let checksum = match note.csum_offset {
        UDP_OFFSET => complement(total),
        _ => !total,
    };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

fn carries_sctp(bytes: &[u8]) -> bool {
    let Some(head) = Head::read(bytes) else {
        return false;
    };
    let protocol = match head.kind {
        crate::frame::TYPE_IPV4 => head.payload + 9,
        crate::frame::TYPE_IPV6 => head.payload + 6,
        _ => return false,
    };
    bytes.get(protocol) == Some(&SCTP)
}
