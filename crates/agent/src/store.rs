//! `store SERIAL FOLDER MARK FOUND`: brings a disk that a restored machine uses from now on, without another
//! program: each that starts takes an emulated machine 30 to 100 ms, and somebody waits.
//!
//! The disk with this serial number is mounted, and the file FOUND is written to standard output. This is
//! for a disk that is as it was left: its file MARK says how large it was, and its file system has seen no
//! errors. With any other nothing is done, and the exit status is 1: others look after it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Runs the verb.
pub(crate) fn run() -> ExitCode {
    match bring() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::from(1),
    }
}

fn bring() -> io::Result<bool> {
    let words: Vec<_> = std::env::args_os().skip(2).collect();
    let [serial, folder, mark, found] = words.as_slice() else {
        return Ok(false);
    };
    let (folder, mark) = (Path::new(folder), Path::new(mark));
    let found = fs::read(found)?;
    // It has been brought.
    if mark.exists() {
        return Ok(false);
    }
    let Some(disk) = with_serial(serial.as_encoded_bytes())? else {
        return Ok(false);
    };
    let device = Path::new("/dev").join(&disk);
    // What the kernel has read of it was before the disk was there.
    machinist_sys::device::forget_contents(&File::open(&device)?)?;
    mount(
        &device,
        folder,
        "ext4",
        MountFlags::NOATIME,
        Some(c"discard"),
    )?;
    if !as_it_was_left(&disk, mark).unwrap_or(false) {
        unmount(folder, UnmountFlags::empty())?;
        return Ok(false);
    }
    io::stdout().write_all(&found)?;
    Ok(true)
}

/// The name of the disk with this serial number.
fn with_serial(wanted: &[u8]) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block")? {
        let name = PathBuf::from(entry?.file_name());
        let serial = fs::read(Path::new("/sys/block").join(&name).join("serial"));
        if serial.is_ok_and(|serial| serial.trim_ascii() == wanted) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether it has the size that it had, and its file system is whole.
fn as_it_was_left(disk: &Path, mark: &Path) -> io::Result<bool> {
    let number = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let size = number(&Path::new("/sys/block").join(disk).join("size"))?;
    let errors = number(&Path::new("/sys/fs/ext4").join(disk).join("errors_count"))?;
    Ok(number(mark)? == size && errors == "0")
}
