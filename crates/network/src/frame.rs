//! The head of an Ethernet frame.

use machinist_sys::netlink::Mac;

/// Bytes of an Ethernet header without a tag.
pub const HEADER: usize = 14;
/// Bytes of an 802.1Q tag.
pub const TAG: usize = 4;

/// Ethernet type of an 802.1Q tag.
pub const TYPE_TAG: u16 = 0x8100;
/// Ethernet type of a provider's tag (802.1ad).
pub const TYPE_PROVIDER_TAG: u16 = 0x88a8;
/// Ethernet type of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// What the first bytes of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// The number in the outermost 802.1Q tag; 0 for none, and for a tag that sets a priority only.
    pub tag: u16,
    /// The Ethernet type behind all tags.
    pub kind: u16,
    /// Where what the frame carries begins, in bytes.
    pub payload: usize,
}

impl Head {
    /// Reads the head of `frame`, which begins with the destination. `None` where it is cut.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let half = |at: usize| -> Option<u16> {
            let bytes = frame.get(at..)?.first_chunk::<2>()?;
            Some(u16::from_be_bytes(*bytes))
        };
        let destination = Mac(*frame.first_chunk()?);
        let source = Mac(*frame.get(6..)?.first_chunk()?);
        let (mut at, mut kind, mut tag) = (HEADER - 2, half(HEADER - 2)?, None);
        while matches!(kind, TYPE_TAG | TYPE_PROVIDER_TAG) {
            tag = tag.or(Some(half(at + 2)? & 0xfff));
            at += TAG;
            kind = half(at)?;
        }
        Some(Self {
            destination,
            source,
            tag: tag.unwrap_or(0),
            kind,
            payload: at + 2,
        })
    }
}

/// How long a frame with this many bytes counts against an MTU: without its Ethernet header, and
/// without one tag, which every Ethernet carries on top.
#[must_use]
pub fn packet_length(frame: &[u8], length: usize) -> usize {
    let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
    length.saturating_sub(HEADER + if tagged { TAG } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"\x01\x00\x5e\x00\x00\x01\x52\x54\x00\x12\x01\x02\x08\x00payload";

    #[test]
    fn plain_and_tagged() {
        let head = Head::read(PLAIN).unwrap();
        assert!(head.destination.is_group());
        assert_eq!((head.tag, head.kind, head.payload), (0, TYPE_IPV4, 14));
        let mut tagged = PLAIN[..12].to_vec();
        tagged.extend([0x88, 0xa8, 0x20, 0x07, 0x81, 0x00, 0, 9, 0x86, 0xdd]);
        let head = Head::read(&tagged).unwrap();
        assert_eq!((head.tag, head.kind, head.payload), (7, TYPE_IPV6, 22));
    }

    #[test]
    fn cut_heads_are_none() {
        for length in 0..14 {
            assert_eq!(Head::read(&PLAIN[..length]), None);
        }
        let mut tagged = PLAIN[..12].to_vec();
        tagged.extend([0x81, 0x00, 0, 9]);
        assert_eq!(Head::read(&tagged), None);
    }

    #[test]
    fn a_tag_counts_not_against_the_mtu() {
        assert_eq!(packet_length(PLAIN, 1514), 1500);
        let mut tagged = PLAIN[..12].to_vec();
        tagged.extend([0x81, 0x00, 0, 9]);
        assert_eq!(packet_length(&tagged, 1518), 1500);
        assert_eq!(packet_length(&[], 3), 0);
    }
}
