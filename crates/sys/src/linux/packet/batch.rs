//! Room for frames that arrive.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::socket::check;
use super::{FRAMES_AT_ONCE, Headers, VnetHeader};

/// Bytes that a slot keeps free before the frame, for the tag that the kernel took out.
const TAG: usize = 4;
/// The longest frame: 64 KiB of packet, its Ethernet header, and a tag.
const LONGEST: usize = 64 * 1024 + 14 + TAG;
/// Bytes per slot, so that slots begin at cache lines.
const SLOT: usize = (TAG + LONGEST).next_multiple_of(64);
/// Bytes of ancillary data per frame: a header and `struct tpacket_auxdata`.
const CONTROL: usize = 64;

const STATUS_CHECKSUM_MISSING: u32 = 1 << 3;
const STATUS_TAG: u32 = 1 << 4;
const STATUS_TAG_TYPE: u32 = 1 << 6;

/// Room for [`FRAMES_AT_ONCE`] frames, used again and again. It is 4 MiB of address space, of which
/// only what frames have touched is memory.
#[derive(Debug)]
pub struct Batch {
    memory: Vec<u8>,
    slots: Vec<Slot>,
    filled: usize,
}

/// What is known of the frame in a slot, beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    header: VnetHeader,
    start: usize,
    end: usize,
    truncated: bool,
    checksum_missing: bool,
}

/// A frame that has arrived.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// What is still to be done to it; all zero for sockets without offload notes.
    pub header: &'a VnetHeader,
    /// The frame from its destination address on, its 802.1Q tag in place.
    pub bytes: &'a [u8],
    /// It was longer than there is room for, and what is here is not all of it.
    pub truncated: bool,
    /// The kernel left the checksum to the network card. With offload notes, the note says which.
    pub checksum_missing: bool,
}

/// `struct tpacket_auxdata`, after the header of ancillary data, at the alignment of both.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    /// Empty room.
    #[must_use]
    pub fn new() -> Self {
        Self {
            memory: vec![0; SLOT * FRAMES_AT_ONCE],
            slots: vec![Slot::default(); FRAMES_AT_ONCE],
            filled: 0,
        }
    }

    /// How many frames are in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether no frame is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The frame number `index`, counted from 0.
    ///
    /// # Panics
    /// Where `index` is not below [`Batch::len`].
    #[must_use]
    pub fn frame(&self, index: usize) -> Received<'_> {
        assert!(index < self.filled, "frame {index} of {}", self.filled);
        let slot = &self.slots[index];
        let memory = &self.memory[index * SLOT..][..SLOT];
        Received {
            header: &slot.header,
            bytes: &memory[slot.start..slot.end],
            truncated: slot.truncated,
            checksum_missing: slot.checksum_missing,
        }
    }

    /// Receives the datagrams that wait at the socket `fd` into it, replacing what was in it; an
    /// empty datagram is an empty frame. Returns how many there are, which is not 0. Descriptors
    /// that came with them are closed by the kernel.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there, and what the socket has to say.
    pub fn receive_datagrams(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive_with(fd, Headers::None, 0)
    }

    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, headers: Headers) -> io::Result<usize> {
        self.receive_with(fd, headers, CONTROL)
    }

    /// `auxiliary` is how many bytes of ancillary data are taken per frame, at most [`CONTROL`].
    fn receive_with(
        &mut self,
        fd: BorrowedFd<'_>,
        headers: Headers,
        auxiliary: usize,
    ) -> io::Result<usize> {
        self.filled = 0;
        let auxiliary = auxiliary.min(CONTROL);
        // SAFETY: all three are plain structures of the kernel's interface; all zero is valid.
        let mut parts: [[libc::iovec; 2]; FRAMES_AT_ONCE] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; FRAMES_AT_ONCE] = unsafe { mem::zeroed() };
        let mut controls = [const { Control([0; CONTROL]) }; FRAMES_AT_ONCE];
        let memory = self.memory.chunks_exact_mut(SLOT);
        let rooms = memory.zip(&mut self.slots).zip(&mut controls);
        for (((memory, slot), control), (parts, message)) in
            rooms.zip(parts.iter_mut().zip(&mut messages))
        {
            slot.header = VnetHeader::default();
            parts[0].iov_base = std::ptr::from_mut(&mut slot.header).cast();
            parts[0].iov_len = size_of::<VnetHeader>();
            let room = &mut memory[TAG..];
            parts[1].iov_base = room.as_mut_ptr().cast();
            parts[1].iov_len = room.len();
            let parts = match headers {
                Headers::Offload => &mut parts[..],
                Headers::None => &mut parts[1..],
            };
            let header = &mut message.msg_hdr;
            header.msg_iov = parts.as_mut_ptr();
            header.msg_iovlen = parts.len();
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = auxiliary;
        }
        // SAFETY: every message points to a header, a slot and a control buffer of its own, with
        // their true lengths; all of them live, and are touched by nobody else, until the call is
        // over. A VnetHeader may have any bytes. No timeout is given.
        let count = check(unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                FRAMES_AT_ONCE as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })?;
        let count = usize::try_from(count).unwrap_or(0).min(FRAMES_AT_ONCE);
        for (index, message) in messages.iter().enumerate().take(count) {
            let length = usize::try_from(message.msg_len).unwrap_or(0);
            let noted = match headers {
                Headers::Offload => size_of::<VnetHeader>(),
                Headers::None => 0,
            };
            let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let length = length.saturating_sub(noted).min(SLOT - TAG);
            let control = &controls[index].0[..message.msg_hdr.msg_controllen.min(auxiliary)];
            self.settle(index, length, truncated, Auxiliary::read(control));
        }
        self.filled = count;
        Ok(count)
    }

    /// Notes what has come into a slot, and puts the tag back where it was.
    fn settle(&mut self, index: usize, length: usize, truncated: bool, auxiliary: Auxiliary) {
        let slot = &mut self.slots[index];
        slot.start = TAG;
        slot.end = TAG + length;
        slot.truncated = truncated;
        slot.checksum_missing = auxiliary.checksum_missing;
        let Some(tag) = auxiliary.tag.filter(|_| length >= 12) else {
            return;
        };
        let memory = &mut self.memory[index * SLOT..][..SLOT];
        // The two addresses move forward, the tag comes between them and the type.
        memory.copy_within(TAG..TAG + 12, 0);
        memory[12..16].copy_from_slice(&tag);
        slot.start = 0;
        // The note counts bytes of the frame as it was without the tag.
        let header = &mut slot.header;
        if header.needs_checksum() {
            header.csum_start = header.csum_start.saturating_add(TAG as u16);
        }
        if header.hdr_len != 0 {
            header.hdr_len = header.hdr_len.saturating_add(TAG as u16);
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// What the kernel says about a frame beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Auxiliary {
    checksum_missing: bool,
    tag: Option<[u8; 4]>,
}

impl Auxiliary {
    /// Reads one item of ancillary data: `struct cmsghdr`, then `struct tpacket_auxdata`. Nothing
    /// else was asked for, so nothing else can be first.
    fn read(control: &[u8]) -> Self {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let word = |at: usize| -> Option<u32> {
            let bytes = control.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let half = |at: usize| -> Option<u16> {
            let bytes = control.get(at..)?.first_chunk::<2>()?;
            Some(u16::from_ne_bytes(*bytes))
        };
        let level = HEADER - 8;
        if word(level) != Some(libc::SOL_PACKET as u32)
            || word(level + 4) != Some(libc::PACKET_AUXDATA as u32)
        {
            return Self::default();
        }
        // status, len, snaplen (u32 each), mac, net, vlan_tci, vlan_tpid (u16 each).
        let status = word(HEADER).unwrap_or(0);
        let tag = (status & STATUS_TAG != 0).then(|| {
            let control = half(HEADER + 16).unwrap_or(0).to_be_bytes();
            let kind = match status & STATUS_TAG_TYPE {
                0 => 0x8100,
                _ => half(HEADER + 18).unwrap_or(0x8100),
            };
            let kind = kind.to_be_bytes();
            [kind[0], kind[1], control[0], control[1]]
        });
        Self {
            checksum_missing: status & STATUS_CHECKSUM_MISSING != 0,
            tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_back_and_the_note_follows() {
        let mut batch = Batch::new();
        let frame: Vec<u8> = (0..60).collect();
        batch.memory[TAG..TAG + 60].copy_from_slice(&frame);
        batch.slots[0].header = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            hdr_len: 54,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::default()
        };
        let tag = Some([0x81, 0, 0, 5]);
        batch.settle(
            0,
            60,
            false,
            Auxiliary {
                checksum_missing: true,
                tag,
            },
        );
        batch.filled = 1;
        let received = batch.frame(0);
        assert_eq!(received.bytes.len(), 64);
        assert_eq!(received.bytes[..12], frame[..12]);
        assert_eq!(received.bytes[12..16], [0x81, 0, 0, 5]);
        assert_eq!(received.bytes[16..], frame[12..]);
        assert_eq!(received.header.csum_start, 38);
        assert_eq!(received.header.hdr_len, 58);
    }

    #[test]
    fn datagrams_are_received_and_descriptors_with_them_are_not() {
        use std::io::{IoSlice, Write};
        use std::os::fd::AsFd;
        use std::os::unix::net::UnixDatagram;

        let (here, there) = UnixDatagram::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut space = [mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut passed = rustix::net::SendAncillaryBuffer::new(&mut space);
        let fds = [reader.as_fd()];
        assert!(passed.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&there, &[IoSlice::new(b"first")], &mut passed, flags).unwrap();
        there.send(b"").unwrap();
        there.send(&[7; SLOT]).unwrap();
        drop(reader);
        let mut batch = Batch::new();
        assert_eq!(batch.receive_datagrams(here.as_fd()).unwrap(), 3);
        assert_eq!(batch.frame(0).bytes, b"first");
        assert_eq!(batch.frame(1).bytes, b"");
        assert!(!batch.frame(0).truncated && batch.frame(2).truncated);
        let gone = writer.write(b"nobody reads").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
        let empty = batch.receive_datagrams(here.as_fd()).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn foreign_or_cut_ancillary_data_is_ignored() {
        for length in 0..CONTROL {
            assert_eq!(Auxiliary::read(&vec![0; length]), Auxiliary::default());
        }
    }
}
