//! The memory of a guest, copied out of the QEMU that it lives in.
//!
//! QEMU can save a guest's memory by itself (`migrate`), but takes 150 to 200 ms for a small guest
//! while that stands still, and writes a format that cannot be mapped. We copy the pages that are
//! the process's own (which nobody shares: the guest has written to them) to their places in a
//! sparse file: 50 ms for the 130 MiB of a Debian that has booted, a few where it was restored and
//! little has changed since. That file is mapped by any number of restores.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde_json::{Value, json};

use crate::qemu::qmp::{Qmp, QmpError};

/// Of x86, in bytes.
const PAGE: u64 = 4096;
/// Entries of the page map that are read at once.
const ENTRIES: usize = 64 * 1024;
/// Bytes that are copied at once: more do not fit into the processor's cache.
const PIECE: usize = 256 * 1024;

/// Where a guest's memory is in its QEMU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuestMemory {
    pid: u32,
    /// Where it begins there.
    address: u64,
    /// In bytes.
    size: u64,
}

/// Why a guest's memory is not found.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FindError {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("QEMU does not say where the guest's memory is: {0}")]
    Unclear(String),
}

impl GuestMemory {
    /// Asks the QEMU `pid` where the `size` bytes of its guest's memory are.
    pub(crate) async fn find(qmp: &Qmp, pid: u32, size: u64) -> Result<Self, FindError> {
        let ask = json!({"command-line": "gpa2hva 0"});
        let said = qmp.execute("human-monitor-command", &ask).await?;
        let said = said.as_str().unwrap_or_default().trim();
        let address = address(said).ok_or_else(|| FindError::Unclear(said.to_owned()))?;
        Ok(Self { pid, address, size })
    }

    /// Writes the pages that are the guest's own to their places in `file`, and says how many bytes
    /// these are. Where the guest does not stand still, they are of different moments. Blocks.
    pub(crate) fn copy_to(&self, file: &File) -> io::Result<u64> {
        let map = File::open(format!("/proc/{}/pagemap", self.pid))?;
        let memory = File::open(format!("/proc/{}/mem", self.pid))?;
        let mut entries = vec![0; ENTRIES * 8];
        let mut piece = vec![0; PIECE];
        let mut copied = 0;
        let pages = self.size / PAGE;
        let mut first = 0;
        while first < pages {
            let count = usize::try_from(pages - first).map_or(ENTRIES, |left| left.min(ENTRIES));
            let entries = &mut entries[..count * 8];
            map.read_exact_at(entries, (self.address / PAGE + first) * 8)?;
            for run in own_pages(entries) {
                let (mut at, end) = ((first + run.start) * PAGE, (first + run.end) * PAGE);
                while at < end {
                    let want = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
                    memory.read_exact_at(&mut piece[..want], self.address + at)?;
                    file.write_all_at(&piece[..want], at)?;
                    at += want as u64;
                    copied += want as u64;
                }
            }
            first += count as u64;
        }
        Ok(copied)
    }
}

/// The address in what the monitor says: `Host virtual address for 0x0 (pc.ram) is 0x7f0000000000`.
fn address(said: &str) -> Option<u64> {
    let (_, hexadecimal) = said.rsplit_once(" is 0x")?;
    let address = u64::from_str_radix(hexadecimal, 16).ok()?;
    address.is_multiple_of(PAGE).then_some(address)
}

/// The runs of pages that are their process's own, among `entries` of its page map.
fn own_pages(entries: &[u8]) -> Vec<Range<u64>> {
    /// In memory, swapped out; of a file or shared.
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (page, entry) in (0..).zip(entries.chunks_exact(8)) {
        let entry = entry.try_into().map_or(0, u64::from_ne_bytes);
        if entry & (PRESENT | SWAPPED) == 0 || entry & OF_FILE != 0 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
    runs
}

/// Why the memory of the process `pid` cannot be read, as half a sentence; nothing where it can be, or
/// the process is gone. It is a child of ours, which most hosts let us read.
pub(crate) fn unreadable(pid: u32) -> Option<String> {
    let opened = ["pagemap", "mem"].map(|name| File::open(format!("/proc/{pid}/{name}")));
    let error = opened.into_iter().find_map(Result::err)?;
    if error.kind() == io::ErrorKind::NotFound {
        return None;
    }
    let mut why = format!("this host does not let us read its QEMU's memory ({error})");
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope = scope.ok().and_then(|text| text.trim().parse().ok());
    if let Some(scope @ 2_u8..) = scope {
        // 1 is for one's own children.
        why += &format!(": kernel.yama.ptrace_scope is {scope}, and may be 1 at most");
    }
    Some(why)
}

/// Makes the file that a guest's memory is copied to: as it is in `base`, where the guest's memory
/// began as that, else empty. Blocks.
pub(crate) fn make_file(
    path: &std::path::Path,
    base: Option<&File>,
    size: u64,
) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Some(base) = base {
        copy_data(base, &file)?;
    }
    file.set_len(size)?;
    Ok(file)
}

/// Copies a sparse file's data, and leaves its holes.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let end = from.metadata()?.len();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < end {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let hole = seek(from, SeekFrom::Hole(data))?;
        at = data;
        while at < hole {
            let want = usize::try_from(hole - at).map_or(PIECE, |left| left.min(PIECE));
            from.read_exact_at(&mut piece[..want], at)?;
            to.write_all_at(&piece[..want], at)?;
            at += want as u64;
        }
    }
    Ok(())
}

/// `arguments` of QMP's `xen-save-devices-state`: the one command that writes the state of all
/// devices without the memory, at once, and whatever kind of memory there is. (Xen has nothing to
/// do with it but that it was the first to want this.)
pub(crate) fn save_devices(path: &std::path::Path) -> (&'static str, Value) {
    // Not `live`: the disks stay in this QEMU's hands.
    let arguments = json!({"filename": path, "live": false});
    ("xen-save-devices-state", arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_can_be_read_and_one_that_is_gone_says_nothing() {
        assert_eq!(unreadable(std::process::id()), None);
        assert_eq!(unreadable(u32::MAX), None);
    }

    #[test]
    fn addresses_are_read() {
        let said = "Host virtual address for 0x0 (pc.ram) is 0x7f31c3e00000";
        assert_eq!(address(said), Some(0x7f31_c3e0_0000));
        assert_eq!(address("No memory is mapped at address 0x0"), None);
        assert_eq!(
            address("Host virtual address for 0x0 (x) is 0x7f31c3e00001"),
            None
        );
    }

    #[test]
    fn pages_of_files_and_pages_that_are_nowhere_are_left_out() {
        let entries: Vec<u8> = [0, 1 << 63, 1 << 62, (1 << 63) | (1 << 61), 1 << 55, 1 << 63]
            .into_iter()
            .flat_map(u64::to_ne_bytes)
            .collect();
        assert_eq!(own_pages(&entries), [1..3, 5..6]);
    }

    #[test]
    fn a_processs_own_pages_are_copied_over_the_base() {
        let dir = tempfile::tempdir().unwrap();
        let size = 1 << 20;
        let base = dir.path().join("base");
        let file = File::create(&base).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(b"base", 64 * PAGE).unwrap();
        file.write_all_at(b"base", 3 * PAGE).unwrap();
        // Nobody but this test has the pages of this vector.
        let mut memory = vec![0_u8; usize::try_from(size + PAGE).unwrap()];
        let address = (memory.as_ptr().addr() as u64).next_multiple_of(PAGE);
        let offset = usize::try_from(address - memory.as_ptr().addr() as u64).unwrap();
        let page = |number: u64| offset + usize::try_from(number * PAGE).unwrap();
        memory[page(3)..page(3) + 4].copy_from_slice(b"mine");
        let guest = GuestMemory {
            pid: std::process::id(),
            address,
            size,
        };
        let saved = dir.path().join("memory");
        let file = make_file(&saved, Some(&File::open(&base).unwrap()), size).unwrap();
        // Whatever the allocator left unmapped is not copied: at least the page that was written is.
        assert!(guest.copy_to(&file).unwrap() >= PAGE);
        let mut found = [0; 4];
        file.read_exact_at(&mut found, 3 * PAGE).unwrap();
        assert_eq!(&found, b"mine");
        assert_eq!(file.metadata().unwrap().len(), size);
        assert!(make_file(&saved, None, size).is_err(), "it was there");
    }
}
