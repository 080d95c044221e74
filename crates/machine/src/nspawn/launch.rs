//! The hidden verb `__launch`: makes a container, and watches over its systemd-nspawn.
//!
//! It runs in a process of its own, with one thread, and speaks with the engine over the socket that
//! is its standard input:
//!
//! 1. engine: the [`Plan`], one line of JSON
//! 2. launcher: [`Said::Isolated`]: it has its own mount and network namespace now
//! 3. engine, when the network hangs on it: [`order::GO`]
//! 4. launcher: [`Said::Running`], perhaps [`Said::Restarting`] and again, at last [`Said::Ended`];
//!    engine: [`order::BUTTON`] to switch the machine off
//!
//! systemd-nspawn is the first process of a process-id namespace: when it dies, or we do, or the
//! engine does, the kernel kills all that it started. (Without that the container's init survives
//! an nspawn that is killed.) Every mount is in our own mount namespace, so a container's root
//! survives its restarts, and nothing survives us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use machinist_sys::process::Spawn;
use rustix::fs::{Mode, XattrFlags};

use super::files;
use super::inside::Inside;
use super::plan::{Plan, STAGE, Said, order, staged_volume};
use super::watch::{self, WatchError, say};
use crate::ground::lay;
use crate::mounts::{bind, handle, keep_to_ourselves, magic, make_dir, mount};
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
    #[error("cannot put back its files")]
    Files(#[source] io::Error),
    #[error("cannot use the volume")]
    Volume(#[source] PathError),
    #[error("cannot run systemd-nspawn")]
    Execute(#[source] io::Error),
}

/// Runs before anything that might use the libraries.
const LIBRARIES: &str = "machinist-libraries.service";
const LIBRARIES_UNIT: &str = "[Unit]
Description=Libraries of the host's devices
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ldconfig
";

/// Runs the verb.
pub fn main() -> ExitCode {
    watch::verb(launch)
}

fn launch(engine: &UnixStream) -> Result<ExitStatus, LaunchError> {
    let mut lines = BufReader::new(engine);
    let plan: Plan = serde_json::from_str(&line(&mut lines)?).map_err(LaunchError::Nonsense)?;
    machinist_sys::isolation::leave_host().map_err(LaunchError::Isolate)?;
    say(engine, &Said::Isolated).map_err(LaunchError::Engine)?;
    // The cgroup is found before its file system is mounted over.
    let cgroup = plan.cgroup.as_deref().map(handle).transpose()?;
    prepare(&plan)?;
    // While we were at it, the engine has laid the network.
    let mut order = [0];
    lines.read_exact(&mut order).map_err(LaunchError::Engine)?;
    if order != [order::GO] {
        return Err(LaunchError::Engine(io::ErrorKind::InvalidData.into()));
    }
    let ended = watch::watch(engine, cgroup.as_ref(), plan.may_restart, || nspawn(&plan));
    ended.map_err(LaunchError::from)
}

/// One systemd-nspawn.
fn nspawn(plan: &Plan) -> Spawn {
    let argv = plan.argv();
    let mut spawn = Spawn::new(&argv[0]);
    spawn
        .command()
        .args(&argv[1..])
        .env_clear()
        .envs(plan.environment())
        .current_dir("/");
    spawn
}

impl From<WatchError> for LaunchError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Engine(error) => Self::Engine(error),
            WatchError::Execute(error) => Self::Execute(error),
            WatchError::Cgroup(error) => Self::Prepare(error),
        }
    }
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
fn prepare(plan: &Plan) -> Result<(), LaunchError> {
    keep_to_ourselves()?;
    // All paths of the host are opened before /run is covered: any of them may lie in there.
    let dir = handle(&plan.dir)?;
    let lower = handle(&plan.lower)?;
    let volumes = plan
        .volumes
        .iter()
        .map(|volume| handle(&volume.source))
        .collect::<Result<Vec<_>, _>>()
        .map_err(LaunchError::Volume)?;

    let earlier = plan
        .files
        .as_deref()
        .map(|files| Earlier::find(files, plan));
    let earlier = earlier.transpose().map_err(LaunchError::Files)?;

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
    let marks = begin_upper(&lower, plan)?;
    match earlier {
        Some(earlier) => {
            earlier.put_back()?;
            lay_over(&lower, marks)?;
        }
        None => {
            hide(plan, marks)?;
            lay_over(&lower, marks)?;
            write_into_root(plan)?;
        }
    }
    // Where these cannot be had, nspawn tries what the host has, and says what it misses.
    drop(lay::terminals());
    drop(lay::etc());
    unified_cgroups();
    Ok(())
}

/// What another start of the container has written.
struct Earlier {
    archive: File,
    tar: PathBuf,
}

impl Earlier {
    /// Finds all that is needed, while all of the host is in sight.
    fn find(files: &Path, plan: &Plan) -> io::Result<Self> {
        let tar = files::tar(plan.search.as_os_str())?;
        Ok(Self {
            archive: File::open(files)?,
            // What links below /run lead to is found now, not later.
            tar: fs::canonicalize(tar)?,
        })
    }

    fn put_back(self) -> Result<(), LaunchError> {
        let upper = handle(&Path::new(STAGE).join("upper"))?;
        files::unpack(&self.tar, self.archive, &upper).map_err(LaunchError::Files)
    }
}

/// Makes the layer that takes all changes, in memory.
fn begin_upper(lower: &OwnedFd, plan: &Plan) -> Result<Marks, PathError> {
    let upper = Path::new(STAGE).join("upper");
    // The merged root shows the mode of the upper one.
    let mode = rustix::fs::fstat(lower).path(&plan.lower)?.st_mode;
    rustix::fs::chmod(&upper, Mode::from_raw_mode(mode)).path(&upper)?;
    Ok(Marks::of(&upper))
}

/// Mounts the container's own root: the lower one, and over it what has been changed.
fn lay_over(lower: &OwnedFd, marks: Marks) -> Result<(), PathError> {
    let stage = Path::new(STAGE);
    let (upper, work, root) = (stage.join("upper"), stage.join("work"), stage.join("root"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{}",
        magic(lower).display(),
        upper.display(),
        work.display(),
        marks.option()
    );
    mount("overlay", &root, "overlay", &options)
}

/// The extended attributes by which overlayfs notes that a directory has nothing of the lower one.
/// Without them a directory that is removed and made again is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// Those of the host's root.
    Trusted,
    /// Those that root of a user namespace may set. (In memory only since Linux 6.6.)
    User,
}

impl Marks {
    /// Which of them may be set on `dir`.
    fn of(dir: &Path) -> Self {
        let name = "trusted.machinist";
        match rustix::fs::setxattr(dir, name, b"", XattrFlags::empty()) {
            Ok(()) => {
                // It was ours.
                _ = rustix::fs::removexattr(dir, name);
                Self::Trusted
            }
            Err(_) => Self::User,
        }
    }

    fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Trusted => "",
            Self::User => ",userxattr",
        }
    }
}

/// Hides what the container is not to see of the lower root.
fn hide(plan: &Plan, marks: Marks) -> Result<(), PathError> {
    let upper = Path::new(STAGE).join("upper");
    let mut hidden = plan.hidden.iter();
    hidden.try_for_each(|path| hide_one(&upper, path, marks))
}

/// Makes `path` of the lower root look like an empty directory.
fn hide_one(upper: &Path, path: &Path, marks: Marks) -> Result<(), PathError> {
    let Ok(inside) = path.strip_prefix("/") else {
        return Ok(());
    };
    if inside.as_os_str().is_empty() {
        return Ok(());
    }
    let cover = upper.join(inside);
    fs::create_dir_all(&cover).path(&cover)?;
    rustix::fs::setxattr(&cover, marks.opaque(), b"y", XattrFlags::empty()).path(&cover)
}

/// Writes who the machine is, and what its devices need.
fn write_into_root(plan: &Plan) -> Result<(), PathError> {
    let inside = Inside::open(&Path::new(STAGE).join("root"))?;
    for (path, contents) in [
        ("/etc/hostname", format!("{}\n", plan.name)),
        ("/etc/hosts", plan.hosts.clone()),
        ("/etc/machine-id", format!("{}\n", plan.machine_id)),
    ] {
        inside.write(Path::new(path), &contents)?;
    }
    for link in &plan.links {
        inside.link(&link.path, &link.target)?;
    }
    if plan.library_folders.is_empty() {
        return Ok(());
    }
    let folders: String = plan
        .library_folders
        .iter()
        .map(|folder| format!("{}\n", folder.display()))
        .collect();
    let units = Path::new("/etc/systemd/system");
    let wanted = units.join("sysinit.target.wants").join(LIBRARIES);
    inside.write(Path::new("/etc/ld.so.conf.d/machinist.conf"), &folders)?;
    inside.write(&units.join(LIBRARIES), LIBRARIES_UNIT)?;
    inside.link(&wanted, &Path::new("..").join(LIBRARIES))
}

/// nspawn looks for cgroup2 at its usual place; a host with the older layout has it elsewhere. In a
/// user namespace only what is mounted already can be had, by binding it.
fn unified_cgroups() {
    let place = Path::new("/sys/fs/cgroup");
    if super::cgroup::is_unified(place) || mount("cgroup2", place, "cgroup2", "").is_ok() {
        return;
    }
    if let Some(mounted) = super::cgroup::mount_point() {
        drop(handle(mounted).and_then(|mounted| bind(&mounted, place)));
    }
}

fn stage_volume(source: &OwnedFd, place: &Path) -> Result<(), PathError> {
    let kind = rustix::fs::fstat(source).path(place)?.st_mode;
    if rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Directory {
        make_dir(place)?;
    } else {
        drop(File::create(place).path(place)?);
    }
    bind(source, place)
}
