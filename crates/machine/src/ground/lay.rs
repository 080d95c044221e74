//! The hidden verb `__ground`: makes the namespaces of a session's ground, and all mounts in them.
//!
//! It says one line of JSON on the socket that is its standard input, `{"Ok":null}` or what is
//! lacking, and waits for the other end to be closed. All that is lacking is said at once.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use machinist_sys::id_map;
use machinist_sys::process::Spawn;

use super::lack::{Lack, Lacks, Need};
use super::mirror::mirror;
use crate::error::chain;
use crate::mounts::{bind, handle, keep_to_ourselves, mount};
use crate::nspawn::cgroup;
use crate::path_error::{PathContext, PathError};

/// Where cgroup2 is on every ground.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What start scripts and systemd-nspawn write below /run, and the host's own system manager, which
/// is not to be found by them.
const OURS_IN_RUN: [&str; 5] = ["netns", "nixos-nspawn", "systemd", "lock", "dbus"];

/// User and group ids that a system needs, `nobody` among them.
const IDS: u64 = 65_535;

/// Runs the verb.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments == ["first"] {
        // What runs as the first process of a namespace that is being tried.
        return ExitCode::SUCCESS;
    }
    let engine = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => return ExitCode::FAILURE,
    };
    match serve(&engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(mut engine: &UnixStream) -> io::Result<()> {
    let lacking = lay();
    let said = if lacking.is_empty() {
        Ok(())
    } else {
        Err(Lacks(lacking))
    };
    writeln!(engine, "{}", serde_json::to_string(&said)?)?;
    // The engine takes hold of our namespaces, and closes its end.
    engine.read_to_end(&mut Vec::new()).map(drop)
}

/// Lays the ground; returns what is lacking.
pub(crate) fn lay() -> Vec<Lack> {
    let user = rustix::process::geteuid();
    if !user.is_root() {
        let why = format!("this is user {}", user.as_raw());
        return vec![Lack {
            what: Need::Root,
            why,
        }];
    }
    let mut lacking = Vec::new();
    let mut need = |what: Need, done: Result<(), String>| {
        let done = done.map_err(|why| Lack { what, why });
        let has = done.is_ok();
        lacking.extend(done.err());
        has
    };
    need(Need::Ids, ids());
    if need(Need::Namespaces, namespaces()) {
        need(Need::Run, run().map_err(|error| chain(&error)));
        // Found before the new sysfs hides it.
        let mounted = cgroup::mount_point().and_then(|place| handle(place).ok());
        if need(Need::Sysfs, sysfs().map_err(|error| chain(&error))) {
            let done = cgroups(mounted.as_ref());
            need(Need::Cgroup, done.map_err(|error| chain(&error)));
        }
        need(Need::Etc, etc().map_err(|error| chain(&error)));
        need(Need::Terminals, terminals().map_err(|error| chain(&error)));
        need(Need::Processes, processes());
    }
    lacking
}

/// Whether the ids of a whole system are mapped into our user namespace, and groups can be set.
fn ids() -> Result<(), String> {
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let text = fs::read_to_string(map).map_err(|error| format!("{map}: {error}"))?;
        let mapped = id_map::count(&text);
        if mapped < IDS {
            let ids = if mapped == 1 { "id is" } else { "ids are" };
            return Err(format!("{map}: only {mapped} {ids} mapped"));
        }
    }
    // Kernels that do not know the file do not forbid it.
    match fs::read_to_string("/proc/self/setgroups") {
        Ok(word) if word.trim() == "deny" => Err("/proc/self/setgroups: deny".to_owned()),
        _ => Ok(()),
    }
}

fn namespaces() -> Result<(), String> {
    machinist_sys::isolation::leave_host().map_err(|error| error.to_string())?;
    keep_to_ourselves().map_err(|error| chain(&error))
}

/// A /run that can be written to. What the host's has is there, but for what containers' supervisors
/// write, and /var/run is the same.
fn run() -> Result<(), PathError> {
    let (run, var_run) = (Path::new("/run"), Path::new("/var/run"));
    fs::create_dir_all(run).path(run)?;
    mirror(run, &OURS_IN_RUN)?;
    for name in ["netns", "systemd", "lock"] {
        let dir = run.join(name);
        fs::create_dir(&dir).path(&dir)?;
    }
    if same(run, var_run) {
        return Ok(());
    }
    if var_run.is_dir() {
        return handle(run).and_then(|run| bind(&run, var_run));
    }
    // A root without even this is a sandbox's own, and gone with it.
    let var = Path::new("/var");
    fs::create_dir_all(var).path(var)?;
    std::os::unix::fs::symlink("/run", var_run).path(var_run)
}

fn same(one: &Path, other: &Path) -> bool {
    let (one, other) = (rustix::fs::stat(one), rustix::fs::stat(other));
    matches!((one, other), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// A sysfs that shows the interfaces of our network namespace. It also hides whatever the host has
/// mounted into its own: cgroups of the older kind above all.
fn sysfs() -> Result<(), PathError> {
    let sys = Path::new("/sys");
    fs::create_dir_all(sys).path(sys)?;
    mount("sysfs", sys, "sysfs", "")
}

/// cgroup2, and the right to make a cgroup below our own. In a user namespace only what is mounted
/// already can be had, by binding it.
fn cgroups(mounted: Option<&OwnedFd>) -> Result<(), PathError> {
    let place = Path::new(CGROUPS);
    match (mount("cgroup2", place, "cgroup2", ""), mounted) {
        (Err(_), Some(mounted)) => bind(mounted, place)?,
        (done, _) => done?,
    }
    let own = cgroup::own(place).unwrap_or_else(|| place.to_owned());
    let tried = own.join(format!("machinist-tried-{}", std::process::id()));
    fs::create_dir(&tried).path(&tried)?;
    fs::remove_dir(&tried).path(&tried)
}

/// `/etc/os-release` and `/etc/machine-id`: systemd-nspawn wants to know on what it runs.
pub(crate) fn etc() -> Result<(), PathError> {
    let etc = Path::new("/etc");
    let (release, id) = (etc.join("os-release"), etc.join("machine-id"));
    let has_id = fs::read(&id).is_ok_and(|id| !id.is_empty());
    if release.is_file() && has_id {
        return Ok(());
    }
    fs::create_dir_all(etc).path(etc)?;
    let hidden: &[&str] = if has_id { &[] } else { &["machine-id"] };
    mirror(etc, hidden)?;
    if !release.is_file() {
        // It may have been a link that leads nowhere.
        drop(fs::remove_file(&release));
        fs::write(&release, "ID=unknown\n").path(&release)?;
    }
    if !has_id {
        let random = Path::new("/proc/sys/kernel/random/uuid");
        let text = fs::read_to_string(random).path(random)?.replace('-', "");
        fs::write(&id, text).path(&id)?;
    }
    Ok(())
}

/// Terminal devices of our own, so that a host without (a build sandbox may have `/dev/ptmx`, but
/// nothing on `/dev/pts`) does as well as any other.
pub(crate) fn terminals() -> Result<(), PathError> {
    let (dev, instances, multiplexer) = (
        Path::new("/dev"),
        Path::new("/dev/pts"),
        Path::new("/dev/ptmx"),
    );
    if !instances.is_dir() || !multiplexer.exists() && fs::read_link(multiplexer).is_err() {
        mirror(dev, &["pts", "ptmx"])?;
        fs::create_dir(instances).path(instances)?;
        std::os::unix::fs::symlink("pts/ptmx", multiplexer).path(multiplexer)?;
    }
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    match mount("devpts", instances, "devpts", options) {
        // Those that are there will do.
        Err(_) if instances.join("ptmx").exists() => return Ok(()),
        mounted => mounted?,
    }
    if fs::read_link(multiplexer).is_err() {
        bind(&handle(&instances.join("ptmx"))?, multiplexer)?;
    }
    Ok(())
}

/// Whether a process-id namespace with its own /proc can be had.
fn processes() -> Result<(), String> {
    let mut spawn = Spawn::new("/proc/self/exe");
    spawn.command().args(["__ground", "first"]);
    spawn.first_process();
    let exit = spawn
        .start_here()
        .and_then(|mut child| child.wait())
        .map_err(|error| error.to_string())?;
    if exit.success() {
        return Ok(());
    }
    Err(exit.to_string())
}
