//! The files that are a VM's disks.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use machinist_sys::process::Spawn;

use super::argv::{Drive, Format};
use crate::error::LaunchError;
use crate::path_error::PathContext;
use crate::snapshot::disk_name;
use crate::spec::{Disk, DiskAccess};

/// Makes the files that `disks` need in `dir`, and says how QEMU is to open them. What is there
/// from an earlier start of the same machine is kept: a disk survives a power cut.
pub(crate) fn prepare(dir: &Path, disks: &[Disk]) -> Result<Vec<Drive>, LaunchError> {
    let mut drives = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let serial = format!("disk{number}");
        drives.push(match disk {
            Disk::Scratch { size } => Drive {
                path: scratch(&dir.join(format!("{serial}.img")), *size)?,
                format: Format::Raw,
                read_only: false,
                keep: false,
                serial,
            },
            Disk::File { path, access } => {
                let format = format_of(path)?;
                match access {
                    DiskAccess::Discard => Drive {
                        path: overlay(&dir.join(format!("{serial}.qcow2")), path, format)?,
                        format: Format::Qcow2,
                        read_only: false,
                        keep: false,
                        serial,
                    },
                    DiskAccess::ReadOnly | DiskAccess::Write | DiskAccess::WriteLater => Drive {
                        path: path.clone(),
                        format,
                        read_only: *access == DiskAccess::ReadOnly,
                        keep: true,
                        serial,
                    },
                }
            }
        });
    }
    Ok(drives)
}

/// Makes the disks of a machine that boots to be saved in `dir`: what it writes to them is part of
/// what is saved. What stands in for disks that it is to leave alone goes to `run`.
pub(crate) fn golden(dir: &Path, run: &Path, disks: &[Disk]) -> Result<Vec<Drive>, LaunchError> {
    let mut writable = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        if let Some(file) = later(disk) {
            writable.push(Drive {
                path: scratch(&stand_in(run, number), size_of(file)?)?,
                format: Format::Raw,
                read_only: false,
                keep: true,
                serial: format!("disk{number}"),
            });
            continue;
        }
        let path = dir.join(disk_name(number));
        let path = match disk {
            Disk::Scratch { size } => create(&path, None, &[&size.to_string()])?,
            Disk::File {
                path: base,
                access: DiskAccess::Discard,
            } => overlay(&path, base, format_of(base)?)?,
            Disk::File { .. } => continue,
        };
        writable.push(Drive {
            path,
            format: Format::Qcow2,
            read_only: false,
            keep: false,
            serial: format!("disk{number}"),
        });
    }
    with(disks, &writable)
}

/// The drives of `disks`, of which those that the machine may write to and throw away are `fresh`.
pub(crate) fn with(disks: &[Disk], fresh: &[Drive]) -> Result<Vec<Drive>, LaunchError> {
    let mut drives = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let serial = format!("disk{number}");
        let given = fresh.iter().find(|drive| drive.serial == serial);
        drives.push(match (disk, given) {
            (_, Some(drive)) => drive.clone(),
            (
                Disk::File {
                    path,
                    access:
                        access @ (DiskAccess::ReadOnly | DiskAccess::Write | DiskAccess::WriteLater),
                },
                None,
            ) => Drive {
                path: path.clone(),
                format: format_of(path)?,
                read_only: *access == DiskAccess::ReadOnly,
                keep: true,
                serial,
            },
            (_, None) => {
                return Err(LaunchError::Unable(format!(
                    "what was saved has no {serial}"
                )));
            }
        });
    }
    Ok(drives)
}

/// Which of the disks a machine that was to be saved has written to and should have left alone: its
/// number.
pub(crate) fn too_early(run: &Path, disks: &[Disk]) -> Result<Option<usize>, LaunchError> {
    for (number, _) in disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| later(disk).is_some())
    {
        let path = stand_in(run, number);
        let file = File::open(&path).path(&path)?;
        match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)) {
            Err(rustix::io::Errno::NXIO) => {}
            // A file system that does not know its holes cannot tell.
            Err(errno) => return Err(std::io::Error::from(errno)).path(&path)?,
            Ok(_) => return Ok(Some(number)),
        }
    }
    Ok(None)
}

/// The file of a disk that is left alone until the machine is ready.
fn later(disk: &Disk) -> Option<&Path> {
    match disk {
        Disk::File {
            path,
            access: DiskAccess::WriteLater,
        } => Some(path),
        _ => None,
    }
}

fn stand_in(run: &Path, number: usize) -> PathBuf {
    run.join(format!("disk{number}.img"))
}

fn size_of(path: &Path) -> Result<u64, LaunchError> {
    Ok(std::fs::metadata(path).path(path)?.len())
}

/// A sparse file of `size` bytes.
fn scratch(path: &Path, size: u64) -> Result<PathBuf, LaunchError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .path(path)?;
    file.set_len(size).path(path)?;
    Ok(path.to_owned())
}

/// By the file's name. Its contents do not decide: what a guest wrote to a raw disk may look like a
/// qcow2 that stands on any file of the host, and would be read as one at the next start.
fn format_of(path: &Path) -> Result<Format, LaunchError> {
    let mut magic = Vec::new();
    let file = File::open(path).path(path)?;
    file.take(4).read_to_end(&mut magic).path(path)?;
    let named = path
        .extension()
        .is_some_and(|extension| extension == "qcow2");
    match (named, magic == b"QFI\xfb") {
        (true, true) => Ok(Format::Qcow2),
        (false, false) => Ok(Format::Raw),
        (false, true) => Err(LaunchError::Unable(format!(
            "the disk {} begins like a qcow2 image; if it is one, its name must end in .qcow2",
            path.display()
        ))),
        (true, false) => Err(LaunchError::Unable(format!(
            "the disk {} is called .qcow2, and is none",
            path.display()
        ))),
    }
}

/// A qcow2 file above `base` that takes the writes.
pub(crate) fn overlay(path: &Path, base: &Path, format: Format) -> Result<PathBuf, LaunchError> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    create(path, Some((base, format)), &[])
}

/// Makes a qcow2 file.
fn create(
    path: &Path,
    base: Option<(&Path, Format)>,
    size: &[&str],
) -> Result<PathBuf, LaunchError> {
    let failed = |source| LaunchError::Spawn {
        program: "qemu-img".into(),
        source,
    };
    let mut spawn = Spawn::new("qemu-img");
    let command = spawn.command();
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some((base, format)) = base {
        command.args(["-F", format.name(), "-b"]).arg(base);
    }
    command.arg(path).args(size).stderr(Stdio::piped());
    let mut child = spawn.start().map_err(failed)?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut said).map_err(failed)?;
    }
    if child.wait().map_err(failed)?.success() {
        return Ok(path.to_owned());
    }
    Err(LaunchError::Unable(format!(
        "qemu-img cannot make {}: {}",
        path.display(),
        String::from_utf8_lossy(&said).trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_disk_is_sparse_and_keeps_what_it_has() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let disks = [Disk::Scratch { size: 1 << 30 }];
        let drives = prepare(dir.path(), &disks).unwrap();
        let path = &drives[0].path;
        let found = std::fs::metadata(path).unwrap();
        assert_eq!((found.len(), found.blocks()), (1 << 30, 0));
        std::fs::write(dir.path().join("disk0.img"), "data").unwrap();
        assert_eq!(prepare(dir.path(), &disks).unwrap(), drives);
        assert_eq!(&std::fs::read(path).unwrap()[..4], b"data");
    }

    #[test]
    fn what_is_written_too_early_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.img");
        scratch(&path, 1 << 30).unwrap();
        std::fs::write(dir.path().join("data"), "data").unwrap();
        let access = DiskAccess::WriteLater;
        let disks = [
            Disk::Scratch { size: 1 << 20 },
            Disk::File {
                path: path.clone(),
                access,
            },
        ];
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let stand_in = &golden(dir.path(), &run, &disks[1..]).unwrap()[0];
        assert_eq!(stand_in.path.parent(), Some(run.as_path()));
        // The guest sees no difference to the disk that it gets later.
        let real = &with(&disks[1..], &[]).unwrap()[0];
        let seen = |drive: &Drive| (drive.format, drive.read_only, drive.serial.clone());
        assert_eq!(seen(stand_in), seen(real));
        assert_eq!((real.path.clone(), real.keep), (path, stand_in.keep));
        assert_eq!(std::fs::metadata(&stand_in.path).unwrap().len(), 1 << 30);
        assert_eq!(too_early(&run, &disks[1..]).unwrap(), None);
        let file = File::options().write(true).open(&stand_in.path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 500_000_000).unwrap();
        assert_eq!(too_early(&run, &disks[1..]).unwrap(), Some(0));
    }

    #[test]
    fn formats_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            format_of(&path).ok()
        };
        let qcow2 = b"QFI\xfb\0\0\0\x03";
        assert_eq!(file("a.qcow2", qcow2), Some(Format::Qcow2));
        assert_eq!(file("b", b"QF"), Some(Format::Raw));
        assert_eq!(file("c.img", b""), Some(Format::Raw));
        // Perhaps a guest wrote it.
        assert_eq!(file("d.img", qcow2), None);
        assert_eq!(file("e.qcow2", b"QF"), None);
    }
}
