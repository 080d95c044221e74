//! Files and trees, as records on a lane.
//!
//! A record is its length (u32, little endian), an [`Entry`], and for [`Entry::Data`] the bytes of
//! the file. Paths are relative to the root of the tree, `/` between components; the root itself
//! is the empty path. A directory comes before what is in it; the last record is [`Entry::End`].

use serde::{Deserialize, Serialize};

use crate::message::{decode, encode};
use crate::{Blob, ProtocolError};

/// The most bytes in one [`Entry::Data`].
pub const MAX_CHUNK: u32 = 64 * 1024;

/// The most bytes in an entry: two paths of the kernel's own limit, and a little.
const MAX_ENTRY: u32 = 2 * 4096 + 128;

/// What is known of a file beside its contents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the contents: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nanos: u32,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Where.
        path: Blob,
        /// Its attributes.
        meta: Meta,
    },
    /// A file. [`Entry::Data`] records follow; what they leave out is a hole.
    File {
        /// Where.
        path: Blob,
        /// Its attributes.
        meta: Meta,
        /// Its length in bytes.
        size: u64,
    },
    /// Bytes of the file before.
    Data {
        /// Where in the file.
        offset: u64,
        /// How many bytes follow, at most [`MAX_CHUNK`].
        length: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: Blob,
        /// Its attributes; the mode means nothing.
        meta: Meta,
        /// What it says.
        target: Blob,
    },
    /// Another name of a file that came before.
    HardLink {
        /// Where.
        path: Blob,
        /// The earlier name.
        original: Blob,
    },
    /// Something that does not travel: a socket, a pipe, a device.
    Special {
        /// Where.
        path: Blob,
        /// What it is, as one word.
        kind: String,
    },
    /// The tree is complete.
    End,
}

/// A record as bytes; for [`Entry::Data`] the contents come after it.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let body = encode(entry);
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// One thing that came out of a [`Decoder`].
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Entry(Entry),
    /// Some bytes of the [`Entry::Data`] before, in order.
    Contents(Vec<u8>),
}

/// Cuts the bytes of a lane into records.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of contents that are still to come.
    contents: usize,
}

impl Decoder {
    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing, if it has arrived.
    ///
    /// # Errors
    /// The bytes are not a tree.
    pub fn next_item(&mut self) -> Result<Option<Item>, ProtocolError> {
        let rest = &self.buffer[self.start..];
        if self.contents > 0 {
            let count = rest.len().min(self.contents);
            if count == 0 {
                return Ok(None);
            }
            let bytes = rest[..count].to_vec();
            self.contents -= count;
            self.start += count;
            return Ok(Some(Item::Contents(bytes)));
        }
        let Some(length) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        if length > MAX_ENTRY {
            let limit = MAX_ENTRY;
            return Err(ProtocolError::Oversized { length, limit });
        }
        let end = 4 + length as usize;
        let Some(body) = rest.get(4..end) else {
            return Ok(None);
        };
        let entry: Entry = decode(body, "tree entry")?;
        if let Entry::Data { length, .. } = &entry {
            let (length, limit) = (*length, MAX_CHUNK);
            if length > limit {
                return Err(ProtocolError::Oversized { length, limit });
            }
            self.contents = length as usize;
        }
        self.start += end;
        Ok(Some(Item::Entry(entry)))
    }
}
