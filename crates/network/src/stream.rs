//! Frames in a byte stream, as QEMU's `stream` network backend has them: four bytes of length, the
//! highest first, then the frame.

use std::ops::Range;

/// The longest frame that QEMU sends or takes, in bytes.
pub const LONGEST_FRAME: usize = 4096 + 65536;

const LENGTH: usize = 4;

/// A peer that does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a frame of {length} bytes is announced (at most {LONGEST_FRAME} are allowed): this is no network backend of QEMU"
)]
pub struct StreamError {
    length: u32,
}

/// Takes bytes as they come and finds the frames in them.
#[derive(Debug)]
pub struct FrameReader {
    memory: Vec<u8>,
    filled: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self {
            // Room for the longest frame, and for much more than one of the usual length.
            memory: vec![0; 4 * LONGEST_FRAME],
            filled: 0,
        }
    }
}

impl FrameReader {
    /// The room for bytes to come. It is never empty after [`FrameReader::consume`].
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// Says that `count` bytes have been put into [`FrameReader::room`].
    pub fn fill(&mut self, count: usize) {
        self.filled = self.memory.len().min(self.filled + count);
    }

    /// Where the next whole frame after the place `at` is, if it is here. Places count from what was
    /// last consumed; the place after a frame is its end.
    ///
    /// # Errors
    /// Where a frame is announced that is longer than any.
    pub fn next(&self, at: usize) -> Result<Option<Range<usize>>, StreamError> {
        let here = self.memory[..self.filled].get(at..).unwrap_or_default();
        let Some(length) = here.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > LONGEST_FRAME {
            return Err(StreamError { length });
        }
        let start = at + LENGTH;
        Ok((here.len() >= LENGTH + bytes).then_some(start..start + bytes))
    }

    /// The bytes of a frame that [`FrameReader::next`] found.
    #[must_use]
    pub fn frame(&self, place: Range<usize>) -> &[u8] {
        self.memory[..self.filled].get(place).unwrap_or_default()
    }

    /// Lets go of everything before `at`.
    pub fn consume(&mut self, at: usize) {
        let at = at.min(self.filled);
        self.memory.copy_within(at..self.filled, 0);
        self.filled -= at;
    }

    /// Lets go of everything: a new peer begins.
    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

/// Frames that wait for a peer, up to a bound. What has been written of a frame is always followed
/// by the rest of it.
#[derive(Debug)]
pub struct FrameQueue {
    /// Begins with a frame's length.
    bytes: Vec<u8>,
    /// Where the first frame begins that is not wholly written.
    first: usize,
    /// How much of `bytes` is written.
    written: usize,
    bound: usize,
}

impl FrameQueue {
    /// An empty one for at most `bound` bytes.
    #[must_use]
    pub const fn new(bound: usize) -> Self {
        Self {
            bytes: Vec::new(),
            first: 0,
            written: 0,
            bound,
        }
    }

    /// Puts `frame` at the end, or returns false where there is no room for it or it is too long for
    /// any peer.
    #[must_use]
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(length) = u32::try_from(frame.len()) else {
            return false;
        };
        let waiting = self.bytes.len() - self.written;
        if frame.len() > LONGEST_FRAME || waiting + LENGTH + frame.len() > self.bound {
            return false;
        }
        // Moving is cheap where much has been written and little waits.
        if self.first > waiting {
            self.bytes.drain(..self.first);
            self.written -= self.first;
            self.first = 0;
        }
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(frame);
        true
    }

    /// What is to be written next; empty if nothing is.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The frames that the peer does not have, or not wholly.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let end = self.end_of(at)?;
            let frame = self.bytes.get(at + LENGTH..end)?;
            at = end;
            Some(frame)
        })
    }

    /// Says that the first `count` bytes of [`FrameQueue::pending`] have been written.
    pub fn advance(&mut self, count: usize) {
        self.written = self.bytes.len().min(self.written + count);
        if self.written == self.bytes.len() {
            self.clear();
        }
        while let Some(end) = self.end_of(self.first)
            && end <= self.written
        {
            self.first = end;
        }
    }

    /// Lets go of everything: the peer is gone.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.first = 0;
        self.written = 0;
    }

    /// Where the frame ends whose length is at `at`.
    fn end_of(&self, at: usize) -> Option<usize> {
        let length = self.bytes.get(at..)?.first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some(at + LENGTH + length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(reader: &mut FrameReader, got: &mut Vec<Vec<u8>>) -> Result<(), StreamError> {
        let mut at = 0;
        while let Some(place) = reader.next(at)? {
            at = place.end;
            got.push(reader.frame(place).to_vec());
        }
        reader.consume(at);
        assert!(!reader.room().is_empty());
        Ok(())
    }

    proptest! {
        /// However the stream is cut in writing and reading, the frames that were taken come out,
        /// whole and in order, and no others.
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in prop::collection::vec((0..3000_usize, any::<u8>()), 0..40),
            cuts in prop::collection::vec((1..5000_usize, 1..5000_usize), 1..20),
            bound in 3000..20_000_usize,
        ) {
            let (mut queue, mut reader) = (FrameQueue::new(bound), FrameReader::default());
            let (mut want, mut got) = (Vec::new(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            let mut wire = Vec::new();
            let mut carry = |queue: &mut FrameQueue, got: &mut Vec<Vec<u8>>| {
                let (write, read) = cuts.next().unwrap();
                let count = queue.pending().len().min(*write);
                wire.extend_from_slice(&queue.pending()[..count]);
                queue.advance(count);
                let count = wire.len().min(*read).min(reader.room().len());
                reader.room()[..count].copy_from_slice(&wire[..count]);
                reader.fill(count);
                wire.drain(..count);
                read_all(&mut reader, got).unwrap();
                wire.is_empty() && queue.pending().is_empty()
            };
            for (length, byte) in frames {
                let frame = vec![byte; length];
                let room = queue.pending().len() + LENGTH + length <= bound;
                prop_assert_eq!(queue.push(&frame), room);
                if room {
                    want.push(frame);
                }
                carry(&mut queue, &mut got);
            }
            while !carry(&mut queue, &mut got) {}
            prop_assert_eq!(got, want);
        }

        /// Wherever the writing stops, each frame is either with the peer, whole, or among those that
        /// are told to wait.
        #[test]
        fn no_frame_is_lost_between_peer_and_queue(
            frames in prop::collection::vec((0..300_usize, any::<u8>()), 0..40),
            cuts in prop::collection::vec(0..700_usize, 1..40),
        ) {
            let (mut queue, mut reader) = (FrameQueue::new(1 << 20), FrameReader::default());
            let (mut want, mut got) = (Vec::new(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            for (length, byte) in frames {
                want.push(vec![byte; length]);
                prop_assert!(queue.push(&want[want.len() - 1]));
                let count = queue.pending().len().min(*cuts.next().unwrap());
                reader.room()[..count].copy_from_slice(&queue.pending()[..count]);
                reader.fill(count);
                queue.advance(count);
                read_all(&mut reader, &mut got).unwrap();
                let mut all = got.clone();
                all.extend(queue.frames().map(<[u8]>::to_vec));
                prop_assert_eq!(&all, &want);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = FrameReader::default();
            reader.room()[..bytes.len()].copy_from_slice(&bytes);
            reader.fill(bytes.len());
            let _ = read_all(&mut reader, &mut Vec::new());
        }
    }

    #[test]
    fn the_longest_frame_fits_and_a_longer_one_is_an_error() {
        let mut queue = FrameQueue::new(1 << 20);
        assert!(queue.push(&vec![1; LONGEST_FRAME]));
        assert!(!queue.push(&vec![1; LONGEST_FRAME + 1]));
        let mut reader = FrameReader::default();
        let longest = queue.pending();
        reader.room()[..longest.len()].copy_from_slice(longest);
        reader.fill(longest.len());
        assert_eq!(reader.next(0), Ok(Some(4..4 + LONGEST_FRAME)));
        reader.consume(4 + LONGEST_FRAME);
        reader.room()[..4].copy_from_slice(b"GET ");
        reader.fill(4);
        assert!(reader.next(0).is_err());
    }
}
