//! The offload note of a frame.

/// `struct virtio_net_hdr`: what is still to be done to a frame. In the machine's byte order, as
/// `AF_PACKET` has it. All zero says that the frame is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CHECKSUM`] and others that may be ignored.
    pub flags: u8,
    /// One of the `SEGMENT_*` kinds, perhaps with [`VnetHeader::ECN`].
    pub gso_type: u8,
    /// A hint: how many bytes of headers the frame begins with.
    pub hdr_len: u16,
    /// Payload bytes that each segment gets, where the frame is to be cut.
    pub gso_size: u16,
    /// From which byte of the frame the checksum is to be computed.
    pub csum_start: u16,
    /// At which byte after `csum_start` the checksum is to be put.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// In `flags`: `csum_start` and `csum_offset` count, and the pseudo header's sum is in place.
    pub const NEEDS_CHECKSUM: u8 = 1;
    /// In `gso_type`: nothing to cut.
    pub const SEGMENT_NONE: u8 = 0;
    /// In `gso_type`: TCP over IPv4.
    pub const SEGMENT_TCP4: u8 = 1;
    /// In `gso_type`: TCP over IPv6.
    pub const SEGMENT_TCP6: u8 = 4;
    /// In `gso_type`: UDP, each piece a datagram of its own.
    pub const SEGMENT_UDP: u8 = 5;
    /// In `gso_type`, beside a kind: the congestion window was reduced, said in the first segment only.
    pub const ECN: u8 = 0x80;

    /// The kind of `gso_type`, without [`VnetHeader::ECN`].
    #[must_use]
    pub const fn segment_kind(&self) -> u8 {
        self.gso_type & !Self::ECN
    }

    /// Whether the frame lacks a checksum.
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }
}
