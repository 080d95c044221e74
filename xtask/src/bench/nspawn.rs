//! Raw systemd-nspawn: what machinist's containers are built on.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::command;

const PATIENCE: Duration = Duration::from_secs(60);

/// A container whose systemd has reported that its start is finished.
pub struct Raw {
    child: Child,
    _cgroup: Cgroup,
    /// The process id of its init, on the host.
    pub init: u32,
    /// From the start of systemd-nspawn until the report.
    pub took: Duration,
}

impl Raw {
    /// Boots the root, with an overlay in memory above it.
    pub fn boot(root: &Path, name: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).context("cannot make a socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let cgroup = Cgroup::new(name)?;
        // It is not to share a cgroup with other containers.
        let join = "echo 0 > \"$0\" && exec systemd-nspawn \"$@\"";
        let mut nspawn = command("sh", ["-c", join]);
        nspawn
            .arg(cgroup.0.join("cgroup.procs"))
            .args(["--register=no", "--keep-unit", "--quiet"])
            .args(["--volatile=overlay", "--console=read-only"])
            .arg("--notify-ready=yes")
            .arg("--directory")
            .arg(root)
            .args(["--machine", name, "--boot"])
            .env("NOTIFY_SOCKET", &path)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            // Several of one root at once.
            .env("SYSTEMD_NSPAWN_LOCK", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let begun = Instant::now();
        let child = nspawn.spawn().context("cannot run systemd-nspawn")?;
        let mut raw = Self {
            child,
            _cgroup: cgroup,
            init: 0,
            took: Duration::ZERO,
        };
        let mut memory = [0; 4096];
        loop {
            let length = socket.recv(&mut memory).context("it has not come up")?;
            let said = String::from_utf8_lossy(memory.get(..length).unwrap_or_default());
            for line in said.lines() {
                if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    raw.init = pid.parse().context("no process id")?;
                } else if line == "READY=1" {
                    raw.took = begun.elapsed();
                    return Ok(raw);
                }
            }
        }
    }

    /// The process id of its init, as the host has it.
    pub fn init(&self) -> String {
        self.init.to_string()
    }

    /// Runs a command in all of its namespaces.
    pub fn enter(&self, args: &[&str]) -> Result<()> {
        let mut nsenter = command("nsenter", ["--target", &self.init(), "--all"]);
        let status = nsenter.args(args).stdout(Stdio::null()).status();
        let status = status.context("cannot run nsenter")?;
        if !status.success() {
            bail!("nsenter: {status}");
        }
        Ok(())
    }

    /// Presses its power button and waits until it is off.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "it does not stop");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A cgroup of its own, below ours.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let mounted = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let top = mounted
            .into_iter()
            .find(|it| it.join("cgroup.procs").exists());
        let path = top
            .context("cgroup2 is not mounted")?
            .join(own.unwrap_or_default())
            .join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a cgroup and those below it; their files go with them.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // One that a last process is still leaving stays, empty.
    drop(fs::remove_dir(cgroup));
}
