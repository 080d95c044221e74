//! Mending the sender of systemd's messages.
//!
//! On its private socket systemd signs its messages with its well-known name. The D-Bus
//! specification wants a unique name there, and zbus refuses anything else. So the first letter of
//! the name is made a colon on the way, which gives a unique name of the same length.

/// The header field 7 (sender), a string of 24 bytes. Little endian, as all systems have it that
/// run as guests here.
const FIELD: &[u8] = b"\x07\x01s\0\x18\0\0\0org.freedesktop.systemd1\0";
/// Where in the field the name begins.
const NAME: usize = 8;

/// Type, flags and lengths: the part of a message that is always there.
const FIXED: usize = 16;

/// systemd's own messages are far smaller.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A message is longer than any that systemd sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The stream that comes from systemd.
#[derive(Debug, Default)]
pub(super) struct Mender {
    buffer: Vec<u8>,
    /// The lines of the authentication are over.
    messages: bool,
}

impl Mender {
    /// Takes bytes that came; gives those that may go on: lines, and whole messages, mended.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TooLong> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(length) = self.next_length()? {
            let mut message: Vec<u8> = self.buffer.drain(..length).collect();
            if self.messages {
                mend(&mut message);
            }
            out.append(&mut message);
        }
        Ok(out)
    }

    /// Length of the line or message that the buffer begins with, once all of it is there.
    fn next_length(&mut self) -> Result<Option<usize>, TooLong> {
        // The server's lines begin with a word in capitals; a message in little endian does not.
        self.messages |= self.buffer.first() == Some(&b'l');
        if !self.messages {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            return Ok(end.map(|end| end + 1));
        }
        let Some(fixed) = self.buffer.first_chunk::<FIXED>() else {
            return Ok(None);
        };
        let total = FIXED
            .saturating_add(fields(fixed).next_multiple_of(8))
            .saturating_add(number(fixed, 4));
        if total > MAX_MESSAGE {
            return Err(TooLong);
        }
        Ok((self.buffer.len() >= total).then_some(total))
    }
}

fn number(fixed: &[u8; FIXED], at: usize) -> usize {
    let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
    u32::from_le_bytes(bytes) as usize
}

/// Length of the header's fields.
fn fields(fixed: &[u8; FIXED]) -> usize {
    number(fixed, 12)
}

fn mend(message: &mut [u8]) {
    let Some(length) = message.first_chunk::<FIXED>().map(fields) else {
        return;
    };
    let Some(header) = message.get_mut(FIXED..FIXED + length) else {
        return;
    };
    let at = header
        .windows(FIELD.len())
        .position(|window| window == FIELD);
    if let Some(at) = at {
        header[at + NAME] = b':';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let mut message = b"l\x04\x01\x01".to_vec();
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(1_u32.to_le_bytes());
        message.extend((FIELD.len() as u32).to_le_bytes());
        message.extend(FIELD);
        message.resize(FIXED + FIELD.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn names_become_unique_wherever_the_stream_is_cut() {
        let stream = [
            b"DATA\r\nOK 0123\r\n".to_vec(),
            message(b"org.freedesktop.systemd1"),
            message(b""),
        ]
        .concat();
        let whole = Mender::default().push(&stream).unwrap();
        assert_eq!(whole.len(), stream.len());
        let text = String::from_utf8_lossy(&whole);
        assert_eq!(text.matches(":rg.freedesktop.systemd1").count(), 2);
        assert_eq!(text.matches("org.freedesktop.systemd1").count(), 1);
        for size in 1..stream.len() {
            let mut mender = Mender::default();
            let pieces = stream.chunks(size).map(|piece| mender.push(piece).unwrap());
            assert_eq!(pieces.collect::<Vec<_>>().concat(), whole);
        }
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut long = message(b"");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Mender::default().push(&long), Err(TooLong));
    }
}
