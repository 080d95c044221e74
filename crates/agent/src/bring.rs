//! The verb `bring NONCE PORT SUM`, which the host types into a root shell.
//!
//! It starts the agent on the virtio-serial port called PORT and prints one line on its standard
//! output: `NONCE up`, or `NONCE no` and the reason. SUM is the sum of this program ([`sum`]), so
//! that one that was garbled on its way does not start. The agent runs from a copy in memory: where
//! it came from can go, be unmounted, or be full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;

/// How long an agent that came before may take to let go of the port.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the verb.
pub(crate) fn run() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let [nonce, port, sum] = words.as_slice() else {
        return ExitCode::from(2);
    };
    let said = match bring(port, sum) {
        Ok(()) => format!("{nonce} up\n"),
        Err(error) => format!("{nonce} no {error}\n"),
    };
    match io::stdout().write_all(said.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn bring(port: &str, expected: &str) -> io::Result<()> {
    let program = fs::read("/proc/self/exe")?;
    if format!("{:016x}", sum(&program)) != expected {
        return Err(io::Error::other("the agent was garbled on its way"));
    }
    let port = open(port)?;
    let (path, _copy) = match copy(&program) {
        Ok(copy) => (format!("/proc/self/fd/{}", copy.as_raw_fd()), Some(copy)),
        Err(_) => ("/proc/self/exe".to_owned(), None),
    };
    // By this sign systemd spares a process when it ends all others at a shutdown.
    let mut command = Command::new(path);
    command.arg0("@machinist-agent").arg("serve");
    command.stdin(Stdio::from(port)).current_dir("/");
    // The shell's standard output is the way to the host, and not the agent's to hold.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop)
}

/// The agent in memory.
fn copy(program: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC;
    let fd = match rustix::fs::memfd_create("machinist-agent", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 nobody had to ask for that.
        Err(Errno::INVAL) => rustix::fs::memfd_create("machinist-agent", flags),
        made => made,
    }?;
    let mut file = File::from(fd);
    file.write_all(program)?;
    Ok(file.into())
}

/// Opens a port, which one process can have at a time.
fn open(name: &str) -> io::Result<OwnedFd> {
    let missing = || io::Error::other(format!("there is no port {name}"));
    let path = find(name).ok_or_else(missing)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match File::options().read(true).write(true).open(&path) {
            Err(error)
                if error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
                    && Instant::now() < deadline =>
            {
                // Nothing tells when the other lets go.
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.map(OwnedFd::from),
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports")
        .into_iter()
        .flatten();
    let known = ports.flatten().find_map(|port| {
        let named = fs::read_to_string(port.path().join("name")).ok()?;
        (named.trim_end() == name).then(|| Path::new("/dev").join(port.file_name()))
    });
    // Where there is no /sys, udev may have left its links.
    known.or_else(|| {
        let link = Path::new("/dev/virtio-ports").join(name);
        link.exists().then_some(link)
    })
}

/// The sum of a program: FNV-1a with 64 bits. The host has the same function.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
