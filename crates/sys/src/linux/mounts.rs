//! Parts of one mount namespace, brought into another.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::thread;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::call::check;

/// What is at `path` (a last link is followed), as a mount of its own that is nowhere yet: read-only,
/// without set-user-id programs and devices, and without what is mounted below. It goes with the
/// descriptor, unless it is [attached](attach) before.
///
/// # Errors
/// There is nothing, `CAP_SYS_ADMIN` is missing, or the kernel is older than Linux 5.12.
pub fn read_only(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a string with its end, and the attributes are as large as is said; the kernel
    // reads both, and keeps neither.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(tree)
}

/// Puts `tree`, which [`read_only`] has made, on `target` in the caller's mount namespace.
///
/// # Errors
/// There is no such place, or it is of another kind: files go on files, directories on directories.
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, target, flags)?;
    Ok(())
}

/// Runs `f` inside a mount namespace, on a thread of its own, and waits for it. Its paths are those
/// that whoever made the namespace sees.
///
/// # Errors
/// It cannot be entered: it is none, or `CAP_SYS_ADMIN` is missing.
///
/// # Panics
/// Where `f` does.
pub fn in_mounts<R: Send>(
    namespace: BorrowedFd<'_>,
    f: impl FnOnce() -> R + Send,
) -> io::Result<R> {
    let inside = || {
        // SAFETY: what is unsafe about unsharing is `FILES`. This gives the thread, which is ours alone,
        // a root and a working directory of its own, and the kernel asks for that.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
        Ok(f())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("mounts".to_owned())
            .spawn_scoped(scope, inside)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    /// Needs root, as all that it is about.
    #[test]
    fn a_part_shows_in_another_namespace_alone_and_cannot_be_written() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = std::env::temp_dir().join(format!("machinist-mounts-{}", std::process::id()));
        let (from, to) = (place.join("from"), place.join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("file"), "there").unwrap();

        let mut inside = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", "echo ready; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let said = inside.stdout.as_mut().unwrap();
        io::Read::read_exact(said, &mut ready).unwrap();
        let namespace = File::open(format!("/proc/{}/ns/mnt", inside.id())).unwrap();

        let tree = read_only(&from).unwrap();
        let seen = in_mounts(namespace.as_fd(), || {
            attach(tree.as_fd(), &to).unwrap();
            let text = fs::read_to_string(to.join("file")).unwrap();
            (text, fs::write(to.join("file"), "changed").unwrap_err())
        });
        let (text, error) = seen.unwrap();
        assert_eq!(text, "there");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(!to.join("file").exists());

        drop(inside.stdin.take());
        inside.wait().unwrap();
        fs::remove_dir_all(&place).unwrap();
    }
}
