//! A file system that the host answers for: `fuse PLACE` mounts it there, and carries the kernel's
//! requests to standard output and their answers from standard input, until either ends.
//!
//! Every message begins with its length. The kernel gives one at a time, and takes one at a time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// Larger than any request of one that only reads. What the kernel forgets comes in pieces that fit; the host
/// takes as much (`LONGEST` there).
const LARGEST: usize = 256 << 10;

pub(crate) fn run() -> ExitCode {
    let Some(place) = std::env::args_os().nth(2) else {
        return ExitCode::from(2);
    };
    match serve(Path::new(&place)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(place: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = File::from(rustix::fs::open("/dev/fuse", flags, Mode::empty())?);
    // Nobody but root is to find it there.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(place)?;
    let number = device.as_raw_fd();
    let options = format!(
        "fd={number},rootmode=40555,user_id=0,group_id=0,allow_other,default_permissions\0"
    );
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap_or_default();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount("host", place, "fuse", flags, options)?;
    // From here on whoever has asked for it may use it.
    writeln!(io::stderr(), "mounted")?;
    carry(&device)
}

fn carry(device: &File) -> io::Result<()> {
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let mut answers = Vec::new();
    let mut bytes = vec![0; LARGEST];
    loop {
        let mut polled = [
            PollFd::new(device, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [asked, answered] = polled.map(|polled| !polled.revents().is_empty());
        if asked {
            let mut device = device;
            match device.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    stdout.write_all(&bytes[..length])?;
                    stdout.flush()?;
                }
                // It was taken back before we came to it.
                Err(error) if is_passing(&error) => {}
                // It is mounted nowhere any more.
                Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if answered {
            match rustix::io::read(&stdin, &mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => answers.extend_from_slice(&bytes[..length]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut rest = answers.as_slice();
            while let Some((answer, later)) = first(rest) {
                let mut device = device;
                match device.write(answer) {
                    Err(error) if !is_passing(&error) => return Err(error),
                    _ => rest = later,
                }
            }
            answers = rest.to_vec();
        }
    }
}

/// The first message, where all of it is there, and what follows.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?);
    bytes.split_at_checked(length as usize)
}

/// Nobody waits for that request any more.
fn is_passing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::INTR | Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole() {
        let two = [5, 0, 0, 0, 1, 6, 0, 0, 0, 2];
        let (one, rest) = first(&two).unwrap();
        assert_eq!(one, [5, 0, 0, 0, 1]);
        assert_eq!(first(rest), None);
        assert_eq!(first(&[1, 0]), None);
    }
}
