//! Programs that a restored machine has in memory.
//!
//! The first command of a machine is looked for in several places, and read from the disk: for an emulated
//! processor that is as much work as to run it. So that not every restored machine does that anew, it is
//! done once before the save, for the programs that scripts run most.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Few: whoever boots a machine for the first time waits for this, a tenth of a second where it is emulated.
const NAMES: &[&str] = &[
    "[",
    "cat",
    "cp",
    "curl",
    "cut",
    "date",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "id",
    "ip",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "sleep",
    "sort",
    "systemctl",
    "tail",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
];

/// What is larger is run for something that takes longer than to read it.
const SMALL: u64 = 2 << 20;

/// The most that is read, and its part of the memory that is to be had.
const MOST: u64 = 16 << 20;
const PART: u64 = 8;

/// Looks for programs in the directories of `path` as for a command, and reads them.
pub(super) fn read(path: &OsStr) {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    read_up_to(&dirs, NAMES, MOST.min(available(&memory) / PART));
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
fn read_up_to(dirs: &[PathBuf], names: &[&str], most: u64) -> usize {
    let mut left = most;
    let mut count = 0;
    for name in names {
        // That it is not in the first ones is remembered, too. What cannot be read is no loss.
        let mut files = dirs.iter().map(|dir| read_one(&dir.join(name), left));
        if let Some(Ok(bytes)) = files.find(Result::is_ok) {
            left = left.saturating_sub(bytes);
            count += usize::from(bytes > 0);
        }
    }
    count
}

/// Reads one if it is small. Returns how many bytes it has, or 0.
fn read_one(path: &Path, left: u64) -> io::Result<u64> {
    let found = fs::metadata(path)?;
    if !found.is_file() || found.len() > SMALL.min(left) {
        return Ok(0);
    }
    let mut file = File::open(path)?.take(found.len());
    let mut buffer = vec![0; 64 << 10];
    let mut read = 0;
    while let count @ 1.. = file.read(&mut buffer)? {
        read += u64::try_from(count).map_err(io::Error::other)?;
    }
    Ok(read)
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
    fn programs_are_found_as_commands_are() {
        let root = std::env::temp_dir().join(format!("machinist-programs-{}", std::process::id()));
        let dirs = ["none", "a", "b"].map(|name| root.join(name));
        for dir in &dirs[1..] {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("one"), [0; 10]).unwrap();
        }
        fs::write(dirs[2].join("two"), [0; 20]).unwrap();
        std::os::unix::fs::symlink("two", dirs[2].join("link")).unwrap();
        let large = usize::try_from(SMALL + 1).unwrap();
        fs::write(dirs[2].join("large"), vec![0; large]).unwrap();
        let names = ["no", "one", "two", "large", "link"];
        let counts = [large * 2, 49, 29, 0].map(|most| read_up_to(&dirs, &names, most as u64));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(counts, [3, 2, 1, 0]);
    }
}
