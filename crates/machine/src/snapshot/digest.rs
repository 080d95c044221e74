//! Hashes of large files with holes, made fast, and when one need not be made again.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128;

/// What is hashed at once. Pieces of nothing but zeros are left out, so that a hole and the zeros
/// that a copy made of it are the same.
const PIECE: usize = 64 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What a file system keeps, or has a hole for.
const BLOCK: usize = 4096;

/// More threads do not read faster.
const THREADS: usize = 4;

/// XXH3 over a file's length and its pieces, as 32 hexadecimal digits. It finds damage, not malice:
/// whoever may write to the cache is the user.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn of_file(file: &File) -> io::Result<String> {
    pass(file, None)
}

/// Makes an empty file the same as another, with holes where that has zeros. Returns the hash of both.
///
/// # Errors
/// One cannot be read, or the other not be written.
pub(crate) fn copy(file: &File, to: &File) -> io::Result<String> {
    to.set_len(file.metadata()?.len())?;
    pass(file, Some(to))
}

/// Hashes a file, and writes it to another on the way.
fn pass(file: &File, copy: Option<&File>) -> io::Result<String> {
    let length = file.metadata()?.len();
    let pieces = length.div_ceil(PIECE as u64);
    let threads = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
    let share = pieces.div_ceil(threads as u64).max(1) * PIECE as u64;
    let parts: Vec<io::Result<Vec<u8>>> = thread::scope(|scope| {
        let ranges = (0..length).step_by(usize::try_from(share).unwrap_or(usize::MAX));
        let running: Vec<_> = ranges
            .map(|from| scope.spawn(move || range(file, copy, from..length.min(from + share))))
            .collect();
        let ended = running.into_iter().map(|thread| {
            let lost = |_| Err(io::Error::other("a thread was lost"));
            thread.join().unwrap_or_else(lost)
        });
        ended.collect()
    });
    let mut hash = xxhash3_128::Hasher::new();
    hash.write(&length.to_le_bytes());
    for part in parts {
        hash.write(&part?);
    }
    Ok(format!("{:032x}", hash.finish_128()))
}

/// The numbers and hashes of the pieces in `range`, one behind the other.
fn range(file: &File, copy: Option<&File>, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    let mut buffer = vec![0; PIECE];
    let mut at = range.start;
    while let Some(data) = next_data(file, at, range.end)? {
        // Pieces begin at multiples of their size, wherever data does.
        at = data - data % PIECE as u64;
        let wanted = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut buffer[..wanted];
        file.read_exact_at(piece, at)?;
        if *piece != ZEROS[..wanted] {
            found.extend_from_slice(&(at / PIECE as u64).to_le_bytes());
            found.extend_from_slice(&xxhash3_128::Hasher::oneshot(piece).to_le_bytes());
            if let Some(copy) = copy {
                write_blocks(copy, piece, at)?;
            }
        }
        at += wanted as u64;
    }
    Ok(found)
}

/// Writes what of a piece is not zeros.
fn write_blocks(to: &File, piece: &[u8], at: u64) -> io::Result<()> {
    let is_empty = |block: &[u8]| *block == ZEROS[..block.len()];
    let blocks: Vec<&[u8]> = piece.chunks(BLOCK).collect();
    let mut offset = 0;
    for run in blocks.chunk_by(|one, next| is_empty(one) == is_empty(next)) {
        let length = run.iter().map(|block| block.len()).sum::<usize>();
        if !is_empty(run[0]) {
            to.write_all_at(&piece[offset..offset + length], at + offset as u64)?;
        }
        offset += length;
    }
    Ok(())
}

/// Where there is data from `at` on, before `to`.
fn next_data(file: &File, at: u64, to: u64) -> io::Result<Option<u64>> {
    if at >= to {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok((data < to).then_some(data)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that does not know its holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(errno) => Err(errno.into()),
    }
}

/// What a file system says of a file: while it says the same, nobody has written to the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970. Nobody can set the second one.
    modified: i128,
    changed: i128,
}

impl Stamp {
    pub(crate) fn of(found: &Metadata) -> Self {
        let time =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: time(found.mtime(), found.mtime_nsec()),
            changed: time(found.ctime(), found.ctime_nsec()),
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self {
            device,
            inode,
            size,
            modified,
            changed,
        } = self;
        format!("{device}:{inode} {size} {modified} {changed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(length: u64, data: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn holes_are_zeros_and_all_else_counts() {
        let length = 10_000_001;
        let hash = |data: &[(u64, &[u8])]| of_file(&file(length, data)).unwrap();
        let one = hash(&[(3_000_000, b"data")]);
        assert_eq!(one, hash(&[(0, &[0; 500_000]), (3_000_000, b"data")]));
        assert_ne!(one, hash(&[(3_000_000, b"dat")]));
        assert_ne!(one, hash(&[(3_000_001, b"data")]));
        assert_ne!(one, hash(&[(3_000_000, b"data"), (length - 1, b"x")]));
        assert_ne!(one, hash(&[(3_000_000 + PIECE as u64, b"data")]));
        let longer = file(length + 1, &[(3_000_000, b"data")]);
        assert_ne!(one, of_file(&longer).unwrap());
        assert_ne!(
            of_file(&file(0, &[])).unwrap(),
            of_file(&file(1, &[])).unwrap()
        );
    }

    #[test]
    fn a_copy_is_the_same_and_has_the_holes() {
        let length = 10_000_001;
        let data: &[(u64, &[u8])] = &[
            (0, &[0; 500_000]),
            (1_000_000, &[7; 100_000]),
            (3 * PIECE as u64 + BLOCK as u64, b"block"),
            (length - 1, b"x"),
        ];
        let from = file(length, data);
        let to = tempfile::tempfile().unwrap();
        assert_eq!(copy(&from, &to).unwrap(), of_file(&from).unwrap());
        assert_eq!(of_file(&to).unwrap(), of_file(&from).unwrap());
        let length = usize::try_from(length).unwrap();
        let contents = [&from, &to].map(|file| {
            let mut contents = vec![0; length];
            file.read_exact_at(&mut contents, 0).unwrap();
            contents
        });
        assert!(contents[0] == contents[1]);
        // The blocks of the sevens, one of the word, one of the last byte; a file system may need some itself.
        let written = (100_000 / BLOCK as u64 + 2) + 2;
        let taken = to.metadata().unwrap().blocks() * 512;
        assert!(taken < (written + 8) * BLOCK as u64, "{taken}");
    }
}
