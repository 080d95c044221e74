//! Messages of FUSE, by which Linux asks another process for a file system, as far as reading needs them.
//! The numbers are the kernel's; all are little-endian, as on every machine that we run.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What is asked.
pub(super) mod operation {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const ACCESS: u32 = 34;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
}

/// The bytes before what is asked, its length left out.
const HEADER: usize = 36;
/// The version that we speak: 7.31, of Linux 5.4.
const VERSION: [u32; 2] = [7, 31];
/// Pages of 4 KiB that one answer may have.
const PAGES: u16 = 32;
/// The largest answer with contents, in bytes.
pub(super) const LARGEST: u32 = PAGES as u32 * 4096;
/// How long the kernel need not ask again, in seconds: a valid path never changes.
const LONG: u64 = 1 << 30;

/// What the kernel may do: ask for several things at once, ask for many pages, keep what links say, and leave
/// out that it opens files and directories.
const ABILITIES: u32 = 1 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24;

/// A question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) operation: u32,
    pub(super) unique: u64,
    /// The number of the file that it is about.
    pub(super) node: u64,
    pub(super) body: &'a [u8],
}

impl<'a> Asked<'a> {
    /// From a message without its length.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let (header, body) = message.split_at_checked(HEADER)?;
        Some(Self {
            operation: word(header, 0)?,
            unique: long(header, 4)?,
            node: long(header, 12)?,
            body,
        })
    }

    /// A number of eight bytes in its body.
    pub(super) fn long(&self, at: usize) -> Option<u64> {
        long(self.body, at)
    }

    /// A number of four bytes in its body.
    pub(super) fn word(&self, at: usize) -> Option<u32> {
        word(self.body, at)
    }

    /// The name in its body.
    pub(super) fn name(&self) -> Option<&'a [u8]> {
        let (last, name) = self.body.split_last()?;
        (*last == 0).then_some(name)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// An answer's body.
#[derive(Debug, Default)]
pub(super) struct Answer(pub(super) Vec<u8>);

impl Answer {
    pub(super) fn word(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn long(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// What we can, to a kernel that says what it can.
    pub(super) fn init(asked: &Asked<'_>) -> Option<Self> {
        let [major, minor] = VERSION;
        let read_ahead = asked.word(8)?.min(LARGEST);
        let abilities = asked.word(12)? & ABILITIES;
        let begun = Self::default().word(major).word(minor);
        let begun = begun.word(read_ahead).word(abilities);
        // Questions at once, and so many that the kernel slows down; the largest write; the grain of times.
        let begun = begun
            .bytes(&32_u16.to_le_bytes())
            .bytes(&24_u16.to_le_bytes());
        let begun = begun.word(4096).word(1);
        let begun = begun.bytes(&PAGES.to_le_bytes()).bytes(&[0; 2]);
        Some(begun.bytes(&[0; 32]))
    }

    /// A file that was found, by its number.
    pub(super) fn entry(node: u64, metadata: &Metadata) -> Self {
        let times = Self::default().long(node).long(0).long(LONG).long(LONG);
        times.word(0).word(0).attributes(Some(metadata))
    }

    /// What a file is; `None`: the top.
    pub(super) fn about(metadata: Option<&Metadata>) -> Self {
        let times = Self::default().long(LONG).word(0).word(0);
        times.attributes(metadata)
    }

    /// Everything is root's, whoever the store's owner is on the host.
    fn attributes(self, metadata: Option<&Metadata>) -> Self {
        const DIRECTORY: u32 = 0o040_555;
        let (inode, mode, links) =
            metadata.map_or((1, DIRECTORY, 2), |it| (it.ino(), it.mode(), it.nlink()));
        let (size, blocks, time) =
            metadata.map_or((0, 0, 0), |it| (it.size(), it.blocks(), it.mtime()));
        let time = u64::try_from(time).unwrap_or_default();
        let links = u32::try_from(links).unwrap_or(u32::MAX);
        let numbers = self.long(inode).long(size).long(blocks);
        let times = numbers.long(time).long(time).long(time);
        let times = times.word(0).word(0).word(0);
        // Its owner, its group, its device, the size of its blocks, and flags.
        times
            .word(mode)
            .word(links)
            .word(0)
            .word(0)
            .word(0)
            .word(4096)
            .word(0)
    }

    /// All of it, as it is sent.
    pub(super) fn done(self, unique: u64) -> Vec<u8> {
        message(unique, 0, &self.0)
    }
}

/// An answer that is an error.
pub(super) fn failed(unique: u64, errno: rustix::io::Errno) -> Vec<u8> {
    message(unique, -errno.raw_os_error(), &[])
}

fn message(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let begun = Answer::default().word(length);
    begun.bytes(&error.to_le_bytes()).long(unique).bytes(body).0
}
