//! The disk of a VM whose system is the user's. What is in that system nobody knows, so the file system is
//! made, mended and enlarged here, while the machine is off.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// Where an ext4's superblock is, and what is in it: the number of blocks, low and high, a block's size
/// as a power of 2 (less 10), the magic, and the features.
const SUPERBLOCK: u64 = 1024;
const BLOCKS: usize = 0x04;
const BLOCKS_HIGH: usize = 0x150;
const BLOCK_SIZE: usize = 0x18;
const MAGIC: usize = 0x38;
const INCOMPATIBLE: usize = 0x60;
const SIXTY_FOUR_BITS: u32 = 0x80;

/// The disk cannot be made ready.
#[derive(Debug, Error)]
pub(crate) enum DiskError {
    /// A program is missing.
    #[error(
        "the disk of a VM with --system is made by {0}, which this host does not have (e2fsprogs)"
    )]
    NoTool(&'static str),
    /// A program failed.
    #[error("{tool} on {}: {said}", disk.display())]
    Tool {
        /// The program.
        tool: &'static str,
        /// The disk.
        disk: PathBuf,
        /// What it said.
        said: String,
    },
    /// It was used, and is empty.
    #[error("{} has no file system any more", .0.display())]
    Gone(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", disk.display())]
    Read {
        /// The disk.
        disk: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Checks that the programs are there.
pub(super) fn tools(search: &Path) -> Result<(), DiskError> {
    let mut names = ["mkfs.ext4", "e2fsck", "resize2fs"].into_iter();
    names.try_for_each(|name| find(search, name).map(drop))
}

/// Sees to it that a disk has a sound file system as large as it is. Only one that is `new` is ever given
/// one.
pub(super) fn ready(search: &Path, disk: &Path, new: bool) -> Result<(), DiskError> {
    let read = |source| DiskError::Read {
        disk: disk.to_owned(),
        source,
    };
    let found = File::open(disk).and_then(|file| Ok((size(&file)?, file.metadata()?.len())));
    let (made, length) = found.map_err(read)?;
    let Some(made) = made else {
        if !new {
            return Err(DiskError::Gone(disk.to_owned()));
        }
        let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let words = ["-q", "-b", "4096", "-m", "0", "-E", lazy, "-L", "nix"];
        return run(search, "mkfs.ext4", &words, disk, 0);
    };
    // 1 and 2: there was something to mend, and it is.
    run(search, "e2fsck", &["-p"], disk, 2)?;
    if made < length {
        // While it is off, it has to have been looked at as a whole before.
        run(search, "e2fsck", &["-f", "-p"], disk, 2)?;
        run(search, "resize2fs", &[], disk, 0)?;
    }
    Ok(())
}

/// How many bytes the ext4 on a disk has; `None` where there is none.
fn size(disk: &File) -> io::Result<Option<u64>> {
    let mut block = [0; 1024];
    match disk.read_exact_at(&mut block, SUPERBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let word = |at: usize| {
        block[at..]
            .first_chunk()
            .map_or(0, |it| u32::from_le_bytes(*it))
    };
    if block[MAGIC..MAGIC + 2] != [0x53, 0xef] {
        return Ok(None);
    }
    let high = match word(INCOMPATIBLE) & SIXTY_FOUR_BITS {
        0 => 0,
        _ => word(BLOCKS_HIGH),
    };
    let blocks = u64::from(high) << 32 | u64::from(word(BLOCKS));
    Ok(Some(blocks << (10 + word(BLOCK_SIZE).min(6))))
}

fn find(search: &Path, name: &'static str) -> Result<PathBuf, DiskError> {
    super::program(search, name).ok_or(DiskError::NoTool(name))
}

/// Runs a program; a status up to `fine` is none of failure.
fn run(
    search: &Path,
    tool: &'static str,
    words: &[&str],
    disk: &Path,
    fine: i32,
) -> Result<(), DiskError> {
    let failed = |said: String| DiskError::Tool {
        tool,
        disk: disk.to_owned(),
        said,
    };
    let mut command = Command::new(find(search, tool)?);
    let output = command.args(words).arg(disk).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.code().is_some_and(|code| code <= fine) {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(failed(said.trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_made_once_and_grows() {
        let search = Path::new("");
        if tools(search).is_err() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let disk = place.path().join("store.img");
        let file = File::create(&disk).unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(matches!(
            ready(search, &disk, false),
            Err(DiskError::Gone(_))
        ));
        ready(search, &disk, true).unwrap();
        let bytes = |disk: &Path| size(&File::open(disk).unwrap()).unwrap();
        assert_eq!(bytes(&disk), Some(64 << 20));
        file.set_len(128 << 20).unwrap();
        ready(search, &disk, false).unwrap();
        assert_eq!(bytes(&disk), Some(128 << 20));
    }
}
