//! Programs that a restored machine has in memory.
//!
//! The first command of a machine is looked for in several places, and read from the disk: for an emulated
//! processor that is as much work as to run it. So that not every restored machine does that anew, it is
//! done once before the save, for all programs that are small.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is larger is run for something that takes longer than to read it.
const SMALL: u64 = 256 << 10;

/// The most that is read, and its part of the memory that is to be had.
const MOST: u64 = 24 << 20;
const PART: u64 = 8;

/// Reads the programs in the directories of `path`, and looks for each as a command is looked for.
pub(super) fn read(path: &OsStr) {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    // What cannot be read is no loss.
    read_up_to(&dirs, MOST.min(available(&memory) / PART));
}

/// The bytes of memory that are to be had, from `/proc/meminfo`.
fn available(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Reads programs until there were so many bytes. Returns their number.
fn read_up_to(dirs: &[PathBuf], most: u64) -> usize {
    let mut seen = HashSet::new();
    let (mut left, mut count) = (most, 0);
    for (at, dir) in dirs.iter().enumerate() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // What is not there is remembered, too.
            let earlier = dirs[..at].iter();
            if earlier.into_iter().any(|dir| dir.join(&name).exists()) {
                continue;
            }
            if let Ok(bytes) = read_one(&dir.join(name), left, &mut seen) {
                left -= bytes;
                count += usize::from(bytes > 0);
            }
        }
    }
    count
}

/// Reads one if it is small and was not read before. Returns how many bytes it has, or 0.
fn read_one(path: &Path, left: u64, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let found = fs::metadata(path)?;
    let fits = found.is_file() && found.len() <= SMALL.min(left);
    if !fits || !seen.insert((found.dev(), found.ino())) {
        return Ok(0);
    }
    io::copy(&mut File::open(path)?.take(found.len()), &mut io::sink())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_to_be_had() {
        let text = "MemTotal:  999 kB\nMemFree:  1 kB\nMemAvailable:     2048 kB\n";
        assert_eq!(available(text), 2 << 20);
        assert_eq!(available(""), 0);
    }

    #[test]
    fn small_programs_are_read_once() {
        let root = std::env::temp_dir().join(format!("machinist-programs-{}", std::process::id()));
        let dirs = ["a", "b", "none"].map(|name| root.join(name));
        for dir in &dirs[..2] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(dirs[0].join("one"), [0; 10]).unwrap();
        fs::write(dirs[1].join("one"), [0; 10]).unwrap();
        fs::write(dirs[1].join("two"), [0; 20]).unwrap();
        std::os::unix::fs::symlink("two", dirs[1].join("link")).unwrap();
        let large = usize::try_from(SMALL + 1).unwrap();
        fs::write(dirs[1].join("large"), vec![0; large]).unwrap();
        let counts = [1000, 29, 0].map(|most| read_up_to(&dirs, most));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(counts, [2, 1, 0]);
    }
}
