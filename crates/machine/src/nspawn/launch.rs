//! The hidden verb `__launch`: becomes the supervisor of one container.
//!
//! It runs in a process of its own, with one thread, and speaks with the engine over the socket that
//! is its standard input:
//!
//! 1. engine: the [`Plan`], one line of JSON
//! 2. launcher: `isolated` (it has its own mount and network namespace now)
//! 3. engine, when the network hangs on it: `go`
//! 4. launcher: end of file (it has become systemd-nspawn), or `failed: REASON`
//!
//! Every mount it makes is in its own mount namespace, and so is gone when the container is.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::plan::{Plan, STAGE, staged_volume};
use crate::path_error::{PathContext, PathError};

/// Why a container could not be prepared.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("the engine spoke nonsense")]
    Nonsense(#[source] serde_json::Error),
    #[error("the engine is gone")]
    Engine(#[source] io::Error),
    #[error("cannot leave the host's namespaces")]
    Isolate(#[source] io::Error),
    #[error("cannot prepare the container's root")]
    Prepare(#[from] PathError),
    #[error("cannot run systemd-nspawn")]
    Execute(#[source] io::Error),
}

/// Runs the verb. Returns only if the container could not be prepared.
pub fn main() -> ExitCode {
    let engine = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => return ExitCode::FAILURE,
    };
    let Err(error) = launch(&engine);
    // Nobody to tell, if this fails: the engine is gone, and so are we.
    drop(writeln!(&engine, "failed: {}", crate::error::chain(&error)));
    ExitCode::FAILURE
}

fn launch(engine: &UnixStream) -> Result<std::convert::Infallible, LaunchError> {
    let mut lines = BufReader::new(engine);
    let plan: Plan = serde_json::from_str(&line(&mut lines)?).map_err(LaunchError::Nonsense)?;
    if let Some(cgroup) = &plan.cgroup {
        super::cgroup::join(cgroup)?;
    }
    machinist_sys::isolation::leave_host().map_err(LaunchError::Isolate)?;
    let mut writer = engine;
    writeln!(writer, "isolated").map_err(LaunchError::Engine)?;
    prepare(&plan)?;
    // While we were at it, the engine has laid the network.
    if line(&mut lines)?.trim() != "go" {
        return Err(LaunchError::Engine(io::ErrorKind::UnexpectedEof.into()));
    }
    let argv = plan.argv();
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .envs(Plan::environment())
        .current_dir("/")
        .stdin(Stdio::null());
    Err(LaunchError::Execute(command.exec()))
}

fn line(reader: &mut impl BufRead) -> Result<String, LaunchError> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(0) => Err(LaunchError::Engine(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(line),
        Err(error) => Err(LaunchError::Engine(error)),
    }
}

/// Makes the mounts that the container stands on, and writes its identity.
fn prepare(plan: &Plan) -> Result<(), PathError> {
    let root = Path::new("/");
    rustix::mount::mount_change(
        root,
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .path(root)?;
    // All paths of the host are opened before /run is covered: any of them may lie in there.
    let dir = handle(&plan.dir)?;
    let lower = handle(&plan.lower)?;
    let volumes = plan
        .volumes
        .iter()
        .map(|volume| handle(&volume.source))
        .collect::<Result<Vec<_>, _>>()?;

    let run = Path::new("/run");
    make_dir(run)?;
    mount("tmpfs", run, "tmpfs", "mode=0755")?;
    let stage = Path::new(STAGE);
    for name in ["", "dir", "upper", "work", "root", "volumes"] {
        make_dir(&stage.join(name))?;
    }
    bind(&dir, &stage.join("dir"))?;
    for (number, volume) in volumes.iter().enumerate() {
        stage_volume(volume, &staged_volume(number))?;
    }
    lay_over(&lower, plan)?;
    write_identity(plan)?;
    private_terminals();
    unified_cgroups();
    Ok(())
}

/// Mounts the container's own root: the lower one, with all changes kept in memory.
fn lay_over(lower: &OwnedFd, plan: &Plan) -> Result<(), PathError> {
    let stage = Path::new(STAGE);
    let (upper, work, root) = (stage.join("upper"), stage.join("work"), stage.join("root"));
    // The merged root shows the mode of the upper one.
    let mode = rustix::fs::fstat(lower).path(&plan.lower)?.st_mode;
    rustix::fs::chmod(&upper, Mode::from_raw_mode(mode)).path(&upper)?;
    for hidden in &plan.hidden {
        hide(&upper, hidden)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        magic(lower).display(),
        upper.display(),
        work.display()
    );
    mount("overlay", &root, "overlay", &options)
}

/// Makes `path` of the lower root look like an empty directory.
fn hide(upper: &Path, path: &Path) -> Result<(), PathError> {
    let Ok(inside) = path.strip_prefix("/") else {
        return Ok(());
    };
    if inside.as_os_str().is_empty() {
        return Ok(());
    }
    let cover = upper.join(inside);
    fs::create_dir_all(&cover).path(&cover)?;
    rustix::fs::setxattr(&cover, "trusted.overlay.opaque", b"y", XattrFlags::empty()).path(&cover)
}

/// Writes who the machine is. An image may have links in these places that lead anywhere: nothing
/// is followed out of the container's root, and the last link is replaced, not followed.
fn write_identity(plan: &Plan) -> Result<(), PathError> {
    let root = handle(&Path::new(STAGE).join("root"))?;
    let etc_path = Path::new("/etc");
    let etc = match rustix::fs::openat2(
        &root,
        "etc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    ) {
        // An image may be all but empty; it is given an /etc.
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(&root, "etc", Mode::from_raw_mode(0o755)).path(etc_path)?;
            rustix::fs::openat(
                &root,
                "etc",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        }
        other => other,
    }
    .path(etc_path)?;
    for (name, contents) in [
        ("hostname", format!("{}\n", plan.name)),
        ("hosts", plan.hosts.clone()),
        ("machine-id", format!("{}\n", plan.machine_id)),
    ] {
        let path = etc_path.join(name);
        match rustix::fs::unlinkat(&etc, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).path(&path),
        }
        let file = rustix::fs::openat(
            &etc,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .path(&path)?;
        fs::File::from(file)
            .write_all(contents.as_bytes())
            .path(&path)?;
    }
    Ok(())
}

/// A terminal device of our own for the container's console, so that a host without one (a build
/// sandbox has `/dev/ptmx`, but nothing on `/dev/pts`) does as well as any other. Where this cannot
/// be had, nspawn tries the host's and says what it misses.
fn private_terminals() {
    let (instances, multiplexer) = (Path::new("/dev/pts"), Path::new("/dev/ptmx"));
    drop(fs::create_dir_all(instances));
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    if mount("devpts", instances, "devpts", options).is_err() {
        return;
    }
    if !multiplexer.exists() {
        drop(std::os::unix::fs::symlink("pts/ptmx", multiplexer));
    } else if let Ok(own) = handle(&instances.join("ptmx")) {
        drop(bind(&own, multiplexer));
    }
}

/// nspawn looks for cgroup2 at its usual place; a host with the older layout has it elsewhere.
fn unified_cgroups() {
    let place = Path::new("/sys/fs/cgroup");
    if !super::cgroup::is_unified(place) {
        drop(mount("cgroup2", place, "cgroup2", ""));
    }
}

fn stage_volume(source: &OwnedFd, place: &Path) -> Result<(), PathError> {
    let kind = rustix::fs::fstat(source).path(place)?.st_mode;
    if rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Directory {
        make_dir(place)?;
    } else {
        drop(fs::File::create(place).path(place)?);
    }
    bind(source, place)
}

fn handle(path: &Path) -> Result<OwnedFd, PathError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).path(path)
}

/// The name by which the kernel finds what `fd` is, whatever covers its path now.
fn magic(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn bind(source: &OwnedFd, target: &Path) -> Result<(), PathError> {
    rustix::mount::mount_bind_recursive(magic(source), target).path(target)
}

fn mount(source: &str, target: &Path, kind: &str, options: &str) -> Result<(), PathError> {
    let options = std::ffi::CString::new(options)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        .path(target)?;
    rustix::mount::mount(
        source,
        target,
        kind,
        MountFlags::empty(),
        options.as_c_str(),
    )
    .path(target)
}

fn make_dir(path: &Path) -> Result<(), PathError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).path(path),
        _ => Ok(()),
    }
}
