//! What a build of Nix's is allowed to do: this program as the builder of a derivation.
//!
//! Each thing is tried by doing it. One line for each, `NAME ok` or `NAME no: WHY`, on standard output,
//! which is the build's log, and in the output `$out`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use machinist_sys::device;
use machinist_sys::id_map;
use machinist_sys::namespace::NetNs;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::pty::OpenptFlags;

/// So many ids has a build with `uid-range`.
const IDS: u64 = 65_536;

/// Something that is tried: its name, and how.
type Trial = (&'static str, fn() -> io::Result<()>);

/// All that is tried, in the order of `docs/doctor.md`.
const TRIALS: [Trial; 13] = [
    ("sandbox", sandbox),
    ("ids", ids),
    ("chown", chown),
    ("pty", pty),
    ("shm", shm),
    ("mount-tmpfs", || try_mount("tmpfs")),
    ("mount-proc", || try_mount("proc")),
    ("mount-cgroup2", || try_mount("cgroup2")),
    ("cgroup", cgroup),
    ("netns", || NetNs::new().map(drop)),
    ("loopback", loopback),
    ("kvm", || device::try_kvm(Path::new("/dev/kvm"))),
    ("tun", || device::try_tun(Path::new("/dev/net/tun"))),
];

/// Tries all, and says so.
pub(crate) fn run() -> ExitCode {
    let mut said = String::new();
    for (name, trial) in TRIALS {
        let line = match trial() {
            Ok(()) => format!("{name} ok\n"),
            Err(error) => format!("{name} no: {error}\n"),
        };
        said += &line;
    }
    // More than one output, so that more than one has to come back.
    let mut outputs = ["out", "second"].into_iter().filter_map(std::env::var_os);
    let written = outputs.try_for_each(|output| fs::write(output, &said));
    match io::stdout().write_all(said.as_bytes()).and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn no(why: impl Into<String>) -> io::Result<()> {
    Err(io::Error::other(why.into()))
}

/// The directory of a build is where Nix's sandbox puts it, and the host's files are not to be seen.
fn sandbox() -> io::Result<()> {
    let here = std::env::current_dir()?;
    if here != Path::new("/build") {
        return no(format!("the build's directory is {}", here.display()));
    }
    if Path::new("/nix/var/nix/db").exists() || Path::new("/root/.bashrc").exists() {
        return no("the host's files are to be seen");
    }
    Ok(())
}

fn ids() -> io::Result<()> {
    let user = rustix::process::getuid();
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let count = id_map::count(&map);
    if !user.is_root() || count < IDS {
        return no(format!("user {} of {count} ids", user.as_raw()));
    }
    Ok(())
}

/// A file of our own, in the build's directory.
fn scratch(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_dir()?.join(format!("probe-{name}")))
}

fn chown() -> io::Result<()> {
    let file = scratch("chown")?;
    File::create(&file)?;
    std::os::unix::fs::chown(&file, Some(65_534), Some(65_534))
}

fn pty() -> io::Result<()> {
    let leader = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::pty::grantpt(&leader)?;
    rustix::pty::unlockpt(&leader)?;
    let name = rustix::pty::ptsname(&leader, Vec::new())?;
    // Where there is no devpts, the number is given and the device is not there.
    rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    Ok(())
}

fn shm() -> io::Result<()> {
    let file = "/dev/shm/machinist-probe";
    fs::write(file, "x")?;
    fs::remove_file(file)
}

fn try_mount(kind: &str) -> io::Result<()> {
    let place = scratch(kind)?;
    fs::create_dir(&place)?;
    mount(kind, &place, kind, MountFlags::empty(), None)?;
    Ok(())
}

fn cgroup() -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(own) = own else {
        return no("there is no cgroup2");
    };
    // A sandbox shows none: the one that was mounted before this.
    let place = scratch("cgroup2")?.join(own).join("machinist-probe");
    fs::create_dir(&place)?;
    fs::remove_dir(&place)
}

/// A connection to ourselves.
fn loopback() -> io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut sender = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    sender.write_all(b"x")?;
    receiver.read_exact(&mut [0])
}
