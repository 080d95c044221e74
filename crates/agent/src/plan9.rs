//! Directories of the host by 9p, which a machine leaves before it is saved: QEMU cannot save a
//! conversation with a file system of its host, and does not refuse to.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use machinist_wire::message::Failure;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mount that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    tag: OsString,
    target: PathBuf,
    flags: MountFlags,
    options: String,
}

/// Unmounts all of them. Where one is in use none is, and the failure names it.
pub(crate) fn leave() -> Result<Vec<Mount>, Failure> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| Failure {
        text: format!("cannot read /proc/self/mountinfo: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    })?;
    let mounts = find(&text)?;
    // What was mounted last may be on top.
    for (at, one) in mounts.iter().enumerate().rev() {
        if let Err(errno) = unmount(&one.target, UnmountFlags::empty()) {
            let failure = Failure {
                text: format!("9p is mounted on {} and in use", one.target.display()),
                errno: errno.raw_os_error(),
            };
            // Whoever cannot be saved goes on as it was.
            back(&mounts[at + 1..])?;
            return Err(failure);
        }
    }
    Ok(mounts)
}

/// Mounts them again, in the order in which they were.
pub(crate) fn back(mounts: &[Mount]) -> Result<(), Failure> {
    for one in mounts {
        let options = CString::new(one.options.as_bytes()).unwrap_or_default();
        mount(&one.tag, &one.target, "9p", one.flags, options.as_c_str()).map_err(|errno| {
            Failure {
                text: format!("cannot mount 9p on {} again", one.target.display()),
                errno: errno.raw_os_error(),
            }
        })?;
    }
    Ok(())
}

/// The mounts of 9p in a `mountinfo`.
fn find(text: &[u8]) -> Result<Vec<Mount>, Failure> {
    let mut found = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let Some(dash) = words.iter().position(|word| *word == b"-") else {
            continue;
        };
        let (Some([_, _, _, root, target, own, ..]), Some([_, kind, source, options, ..])) =
            (words.get(..dash), words.get(dash..))
        else {
            continue;
        };
        if *kind != b"9p" {
            continue;
        }
        let target = PathBuf::from(OsString::from_vec(plain(target)));
        if *root != b"/" {
            return Err(Failure {
                text: format!("a part of a 9p mount is bound to {}", target.display()),
                errno: 0,
            });
        }
        found.push(read(plain(source), &target, own, options));
    }
    Ok(found)
}

/// A mount, from its two lists of options: its own, and those of the file system.
fn read(source: Vec<u8>, target: &Path, own: &[u8], options: &[u8]) -> Mount {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    let lists = [own, options].map(String::from_utf8_lossy);
    for (number, list) in lists.iter().enumerate() {
        for word in list.split(',') {
            match flag(word) {
                Some(flag) => flags |= flag,
                // Words of the first list are the kernel's own, and are all known.
                None if number == 1 => rest.push(word),
                None => {}
            }
        }
    }
    if !rest.iter().any(|word| word.starts_with("trans=")) {
        rest.push("trans=virtio");
    }
    Mount {
        tag: OsString::from_vec(source),
        target: target.to_owned(),
        flags,
        options: rest.join(","),
    }
}

/// What is a flag, and no matter of the file system.
fn flag(word: &str) -> Option<MountFlags> {
    Some(match word {
        "rw" => MountFlags::empty(),
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "sync" => MountFlags::SYNCHRONOUS,
        "dirsync" => MountFlags::DIRSYNC,
        "lazytime" => MountFlags::LAZYTIME,
        _ => return None,
    })
}

/// A field without its escapes: blanks and the like are written in octal.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_tells_them() {
        let text = b"22 29 0:20 / /proc rw,nosuid - proc proc rw\n\
            42 29 0:34 / /tmp/shared rw,relatime shared:17 - 9p shared rw,sync,dirsync,access=client,msize=16384,trans=virtio\n\
            43 29 0:35 / /a\\040b ro,nosuid - 9p data ro,access=client\n";
        let found = find(text).unwrap();
        let flags = MountFlags::RELATIME | MountFlags::SYNCHRONOUS | MountFlags::DIRSYNC;
        assert_eq!(
            found,
            [
                Mount {
                    tag: "shared".into(),
                    target: "/tmp/shared".into(),
                    flags,
                    options: "access=client,msize=16384,trans=virtio".into(),
                },
                Mount {
                    tag: "data".into(),
                    target: "/a b".into(),
                    flags: MountFlags::RDONLY | MountFlags::NOSUID,
                    options: "access=client,trans=virtio".into(),
                },
            ]
        );
    }

    #[test]
    fn what_is_bound_elsewhere_cannot_come_back() {
        let text = b"42 29 0:34 /sub /here rw - 9p shared rw\n";
        assert!(find(text).unwrap_err().text.contains("/here"));
    }
}
