//! From bytes to hellos and frames.

use crate::ProtocolError;
use crate::frame::{HEADER, Header};
use crate::hello::{FIXED, Hello, MAGIC};

/// One thing that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Hello(Hello),
    Frame(Header, Vec<u8>),
}

/// Cuts a byte stream. Until [`Link::synchronised`] is called it looks for a hello and skips
/// everything else (the noise of a console); from then on it reads frames, and a hello where a
/// frame should begin means that the other end has started anew.
#[derive(Debug, Default)]
pub(crate) struct Link {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    start: usize,
    framed: bool,
    limit: u32,
}

impl Link {
    /// `limit`: the longest payload that the other end may send.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(crate) fn synchronised(&mut self, framed: bool) {
        self.framed = framed;
    }

    /// Takes bytes that arrived. Call [`Link::next`] until it has nothing more before the next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole unit, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Unit>, ProtocolError> {
        if !self.framed {
            return Ok(self.next_hello());
        }
        let rest = &self.buffer[self.start..];
        let prefix = rest.len().min(4);
        if prefix == 4 && rest[..prefix] == MAGIC[..prefix] {
            return self.next_restart();
        }
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::decode(*header, self.limit)?;
        let end = HEADER + header.length as usize;
        let Some(frame) = rest.get(..end) else {
            return Ok(None);
        };
        let payload = frame[HEADER..].to_vec();
        self.start += end;
        Ok(Some(Unit::Frame(header, payload)))
    }

    /// A hello in the midst of frames: it must be a whole one.
    fn next_restart(&mut self) -> Result<Option<Unit>, ProtocolError> {
        let malformed = ProtocolError::Malformed { what: "hello" };
        let rest = &self.buffer[self.start..];
        let known = rest.len().min(MAGIC.len());
        if rest[..known] != MAGIC[..known] {
            return Err(malformed);
        }
        let Some(fixed) = rest.first_chunk::<FIXED>() else {
            return Ok(None);
        };
        let length = Hello::length(fixed).ok_or(malformed)?;
        Ok(self.take_hello(length))
    }

    /// Skips to the next magic.
    fn next_hello(&mut self) -> Option<Unit> {
        loop {
            let rest = &self.buffer[self.start..];
            let skip = rest
                .iter()
                .enumerate()
                .position(|(at, byte)| {
                    let known = (rest.len() - at).min(MAGIC.len());
                    *byte == MAGIC[0] && rest[at..at + known] == MAGIC[..known]
                })
                .unwrap_or(rest.len());
            self.start += skip;
            let fixed = self.buffer[self.start..].first_chunk::<FIXED>()?;
            match Hello::length(fixed) {
                Some(length) => return self.take_hello(length),
                None => self.start += 1,
            }
        }
    }

    fn take_hello(&mut self, length: usize) -> Option<Unit> {
        let bytes = self.buffer[self.start..].get(..length)?;
        let hello = Hello::decode(bytes)?;
        self.start += length;
        Some(Unit::Hello(hello))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_before_a_hello_is_skipped() {
        let hello = Hello {
            version: 1,
            nonce: 7,
            info: None,
        };
        let mut link = Link::new(100);
        // The noise ends in the beginning of a magic, as an unlucky console may.
        let noise = [b"[  0.1] boot\r\n\xff\xffmachi".as_slice(), &hello.encode()].concat();
        for byte in noise {
            link.push(&[byte]);
        }
        assert_eq!(link.next(), Ok(Some(Unit::Hello(hello))));
        assert_eq!(link.next(), Ok(None));
    }

    #[test]
    fn noise_does_not_pile_up() {
        let mut link = Link::new(100);
        for _ in 0..100 {
            link.push(&[b'x'; 1000]);
            assert_eq!(link.next(), Ok(None));
        }
        assert!(link.buffer.len() <= 1000);
    }
}
