//! What a network card would have done to a frame, done in software.
//!
//! A container's kernel leaves checksums and the cutting of long TCP and UDP packets to its network
//! card, and says so in a note ([`Note`]) beside the frame. Between two containers, frame and note
//! pass as they are. Toward anything that takes plain frames, [`finish`] does what the note says.

mod checksum;
mod segment;

pub use machinist_sys::packet::VnetHeader as Note;

use crate::frame;

/// The note of a frame that is complete.
pub const COMPLETE: Note = Note {
    flags: 0,
    gso_type: 0,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
};

/// Why a frame cannot be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The note does not fit the frame: it points beyond its end, or at other headers.
    #[error("the offload note does not fit the frame")]
    Mismatch,
    /// The note asks for what this code does not do: other protocols, or headers within headers.
    #[error("the offload is of a kind that is not known")]
    Unknown,
}

/// How long the longest packet that becomes of a frame is, in bytes as an MTU counts them.
#[must_use]
pub fn longest_packet(bytes: &[u8], note: &Note) -> usize {
    if note.segment_kind() == Note::SEGMENT_NONE {
        return frame::packet_length(bytes, bytes.len());
    }
    // A note that does not fit is found out when the frame is cut.
    let headers = segment::header_length(bytes, note).unwrap_or(usize::from(note.hdr_len));
    let whole = bytes
        .len()
        .min(headers.saturating_add(note.gso_size.into()));
    frame::packet_length(bytes, whole)
}

/// Does what `note` says to a frame, and hands what becomes of it to `out`: one frame or more, in
/// order. `scratch` is memory to work in; what is in it does not matter.
///
/// # Errors
/// Where that cannot be done; then `out` has got nothing.
pub fn finish(
    bytes: &[u8],
    note: &Note,
    scratch: &mut Vec<u8>,
    mut out: impl FnMut(&[u8]),
) -> Result<(), OffloadError> {
    match note.segment_kind() {
        Note::SEGMENT_NONE if note.needs_checksum() => {
            scratch.clear();
            scratch.extend_from_slice(bytes);
            checksum::complete(scratch, note)?;
            out(scratch);
            Ok(())
        }
        Note::SEGMENT_NONE => {
            out(bytes);
            Ok(())
        }
        _ => segment::cut(bytes, note, scratch, &mut out),
    }
}

#[cfg(test)]
mod tests;
