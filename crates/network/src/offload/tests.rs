//! Against etherparse, which computes lengths and checksums in its own way.

use etherparse::{PacketBuilder, PacketHeaders, SlicedPacket, TransportHeader};
use proptest::prelude::*;

use super::checksum::sum;
use super::*;

#[derive(Debug, Clone)]
struct Case {
    v6: bool,
    udp: bool,
    tag: Option<u16>,
    options: bool,
    sequence: u32,
    id: u16,
    fin: bool,
    push: bool,
    cwr: bool,
    payload: Vec<u8>,
    size: u16,
}

fn case() -> impl Strategy<Value = Case> {
    let kinds = (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(1..4095_u16),
        any::<bool>(),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (any::<u32>(), any::<u16>(), 1..3000_u16);
    let payload = prop::collection::vec(any::<u8>(), 1..9000);
    (kinds, flags, numbers, payload).prop_map(|(kinds, flags, numbers, payload)| Case {
        v6: kinds.0,
        udp: kinds.1,
        tag: kinds.2,
        options: kinds.3,
        sequence: numbers.0,
        id: numbers.1,
        fin: flags.0,
        push: flags.1,
        cwr: flags.2,
        payload,
        size: numbers.2,
    })
}

impl Case {
    /// A complete frame that carries `payload`, by etherparse.
    fn frame(&self, payload: &[u8], index: usize, first: bool, last: bool) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let hops = 64;
        let mut out = Vec::new();
        let (source, destination) = ([0x20; 16], [0x21; 16]);
        let builder = match (self.tag, self.v6) {
            (None, true) => link.ipv6(source, destination, hops),
            (Some(tag), true) => {
                link.single_vlan(tag.try_into().unwrap())
                    .ipv6(source, destination, hops)
            }
            (None, false) => link.ip(self.ipv4(index)),
            (Some(tag), false) => link
                .single_vlan(tag.try_into().unwrap())
                .ip(self.ipv4(index)),
        };
        if self.udp {
            builder.udp(5000, 6000).write(&mut out, payload).unwrap();
            return out;
        }
        let carried = u32::try_from(index * usize::from(self.size)).unwrap();
        let mut tcp =
            etherparse::TcpHeader::new(80, 40000, self.sequence.wrapping_add(carried), 512);
        tcp.ack = true;
        tcp.acknowledgment_number = 77;
        tcp.fin = self.fin && last;
        tcp.psh = self.push && last;
        tcp.cwr = self.cwr && first;
        if self.options {
            let option = etherparse::TcpOptionElement::Timestamp(1, 2);
            tcp.set_options(&[option]).unwrap();
        }
        builder.tcp_header(tcp).write(&mut out, payload).unwrap();
        out
    }

    fn ipv4(&self, index: usize) -> etherparse::IpHeaders {
        let protocol = etherparse::IpNumber(if self.udp { 17 } else { 6 });
        let (source, destination) = ([192, 168, 1, 1], [192, 168, 1, 2]);
        let mut header = etherparse::Ipv4Header::new(0, 64, protocol, source, destination).unwrap();
        header.identification = self.id.wrapping_add(u16::try_from(index).unwrap());
        if self.options {
            header.options = [1, 1, 1, 0].into();
        }
        etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
    }

    /// The long frame as a kernel would hand it over, and its note.
    fn long(&self) -> (Vec<u8>, Note) {
        let mut frame = self.frame(&self.payload, 0, true, true);
        let headers = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let transport = match headers.transport.unwrap() {
            TransportHeader::Tcp(tcp) => tcp.header_len(),
            _ => 8,
        };
        let start = frame.len() - self.payload.len() - transport;
        let offset = if self.udp { 6 } else { 16 };
        // What is there is the pseudo header's sum only; that it is so is nothing `finish` needs
        // when it cuts, so a wrong one must do no harm.
        frame[start + offset..start + offset + 2].copy_from_slice(&[0xab, 0xcd]);
        let kind = match (self.udp, self.v6) {
            (true, _) => Note::SEGMENT_UDP,
            (false, false) => Note::SEGMENT_TCP4,
            (false, true) => Note::SEGMENT_TCP6,
        };
        let note = Note {
            flags: Note::NEEDS_CHECKSUM,
            gso_type: kind | if self.cwr { Note::ECN } else { 0 },
            hdr_len: u16::try_from(start + transport).unwrap(),
            gso_size: self.size,
            csum_start: u16::try_from(start).unwrap(),
            csum_offset: offset.try_into().unwrap(),
        };
        (frame, note)
    }
}

fn collect(frame: &[u8], note: &Note) -> Result<Vec<Vec<u8>>, OffloadError> {
    let mut frames = Vec::new();
    finish(frame, note, &mut Vec::new(), |frame| {
        frames.push(frame.to_vec())
    })?;
    Ok(frames)
}

proptest! {
    /// Every segment is, byte for byte, the packet that etherparse builds for its part.
    #[test]
    fn segments_are_as_built_one_by_one(case in case()) {
        let (frame, note) = case.long();
        let segments = collect(&frame, &note).unwrap();
        let parts: Vec<&[u8]> = case.payload.chunks(case.size.into()).collect();
        prop_assert_eq!(segments.len(), parts.len());
        for (index, (segment, part)) in segments.iter().zip(&parts).enumerate() {
            let want = case.frame(part, index, index == 0, index + 1 == parts.len());
            prop_assert_eq!(segment, &want, "segment {}", index);
            prop_assert!(SlicedPacket::from_ethernet(segment).is_ok());
        }
        let longest = segments.iter().map(|frame| longest_packet(frame, &COMPLETE)).max();
        prop_assert_eq!(Some(longest_packet(&frame, &note)), longest);
    }

    /// A checksum is completed from the pseudo header's sum, as kernels leave it.
    #[test]
    fn checksums_are_completed(case in case()) {
        let want = case.frame(&case.payload, 0, true, true);
        let (mut frame, mut note) = case.long();
        note.gso_type = Note::SEGMENT_NONE;
        note.gso_size = 0;
        let at = usize::from(note.csum_start + note.csum_offset);
        let start = usize::from(note.csum_start);
        // Straight from the definition, byte pair by byte pair.
        let ip = if case.tag.is_some() { 18 } else { 14 };
        let addresses = if case.v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let length = u32::try_from(frame.len() - start).unwrap();
        let mut total = length + if case.udp { 17 } else { 6 };
        for pair in frame[addresses].chunks(2) {
            total += u32::from(pair[0]) * 256 + u32::from(pair[1]);
        }
        while total > 0xffff {
            total = total % 0x10000 + total / 0x10000;
        }
        frame[at..at + 2].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
        let frames = collect(&frame, &note).unwrap();
        prop_assert_eq!(frames, vec![want]);
    }

    /// Whatever a container's root sends: an error or frames, never a panic, never endless.
    #[test]
    fn any_note_does_no_harm(
        case in case(),
        numbers in (any::<u8>(), any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>()),
        kind in prop::sample::select(vec![0_u8, 1, 3, 4, 5, 0x81, 0x84, 77]),
        cut in 0..200_usize,
        flip in (0..60_usize, any::<u8>()),
    ) {
        let (mut frame, good) = case.long();
        frame[flip.0 % 40] ^= flip.1;
        frame.truncate(frame.len().min(cut));
        let bad = Note {
            flags: numbers.0,
            gso_type: kind,
            hdr_len: numbers.1,
            gso_size: numbers.2,
            csum_start: numbers.3,
            csum_offset: numbers.4,
        };
        for note in [good, bad, Note { gso_type: kind, ..good }] {
            let _ = longest_packet(&frame, &note);
            if let Ok(frames) = collect(&frame, &note) {
                prop_assert!(frames.len() <= frame.len() + 1);
            }
        }
    }

    #[test]
    fn sums_are_as_defined(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut total = 0_u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = total % 0x10000 + total / 0x10000;
        }
        prop_assert_eq!(u32::from(sum(&bytes)), total);
    }
}

#[test]
fn complete_frames_pass_as_they_are() {
    let frame = [7; 60];
    assert_eq!(collect(&frame, &COMPLETE), Ok(vec![frame.to_vec()]));
}

#[test]
fn what_is_not_known_is_an_error() {
    let sctp = {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 132;
        frame
    };
    let note = Note {
        flags: Note::NEEDS_CHECKSUM,
        csum_start: 34,
        csum_offset: 8,
        ..COMPLETE
    };
    assert_eq!(collect(&sctp, &note), Err(OffloadError::Unknown));
    let beyond = Note {
        csum_start: 59,
        ..note
    };
    assert_eq!(collect(&sctp, &beyond), Err(OffloadError::Mismatch));
}
