//! Tests as NixOS' users write them: machinist as `nixos-test-driver` against a model of that
//! program, on the same guests, by the same start scripts, with the same test scripts.

mod commands;
mod whole;

pub use commands::Commands;
pub use whole::Whole;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use machinist_tests::images;
use machinist_tests::start_script::{ContainerScript, VmScript};
use serde_json::Value;
use tempfile::TempDir;

use super::apart;
use super::images::IMAGE;
use super::program::Program;
use crate::command::{self, command};

/// What the other side is, in a table.
const PEER: &str = "a model of today's driver";

const PACKAGES: [&str; 4] = ["curl", "netcat-openbsd", "nginx-light", "python3"];
const MODEL: &str = include_str!("../scripts/todays_driver.py");
const VLAN: u32 = 1;

/// The other side has a host for itself: its interfaces, and all that it leaves running.
const APART: [&str; 9] = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation=private",
    "sh",
    "-c",
];

/// There, `/sys` is to show these interfaces, and yet all control groups. `/run` is its own as it is
/// in Nix' sandbox: what the scripts that it does not wait for leave there goes with it.
const ENTER: &str = r#"set -e
mount -t tmpfs -o mode=0755 run /run
mount --rbind /sys/fs/cgroup /mnt
mount -t sysfs sys /sys
mount --rbind /mnt /sys/fs/cgroup
umount -l /mnt
exec python3 -c "$@"
"#;

/// The system's own programs: a version manager's `python3` can take longer than a container's start.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vm,
    Container,
}

/// Machines of one VLAN, by their start scripts.
struct Guests {
    program: Program,
    vms: Vec<(String, PathBuf)>,
    containers: Vec<(String, PathBuf)>,
    place: TempDir,
}

impl Guests {
    /// Writes the start scripts, and whatever they boot.
    fn prepare(program: &Program, machines: &[(&str, Kind)]) -> Result<Self> {
        let mut guests = Self {
            program: program.clone(),
            vms: Vec::new(),
            containers: Vec::new(),
            place: tempfile::tempdir().context("cannot make a directory")?,
        };
        let numbered = || machines.iter().zip(1_u8..);
        let hosts = |own: &str| {
            numbered()
                .filter(|((name, _), _)| *name != own)
                .map(|((name, _), number)| format!("192.168.{VLAN}.{number} {name}"))
                .collect()
        };
        for (&(name, kind), number) in numbered() {
            let path = guests.place.path();
            match kind {
                Kind::Vm => {
                    let system = images::system(IMAGE, &PACKAGES)?;
                    let mut script = VmScript::new(name, &system).on(number, &[VLAN]);
                    script.hosts = hosts(name);
                    let script = script.write(path)?;
                    guests.vms.push((name.to_owned(), script));
                }
                Kind::Container => {
                    let root = images::root(IMAGE, &PACKAGES)?;
                    let mut script = ContainerScript::new(name, &root).on(number, &[VLAN]);
                    script.hosts = hosts(name);
                    let script = script.write(path)?;
                    guests.containers.push((name.to_owned(), script));
                }
            }
        }
        Ok(guests)
    }

    /// Runs a test by machinist.
    fn ours(&self, script: &str) -> Result<Ran> {
        use std::os::unix::process::CommandExt;
        let mut driver = self.program.command(&[]);
        driver.arg0("nixos-test-driver");
        self.run(driver, script)
    }

    /// Runs a test by machinist, which restores its VMs from snapshots once it has made them.
    fn ours_warm(&self, script: &str) -> Result<Ran> {
        use std::os::unix::process::CommandExt;
        let mut driver = self.program.command(&["--warm"]);
        driver.arg0("nixos-test-driver");
        driver.env("MACHINIST_CACHE", self.place.path().join("cache"));
        self.run(driver, script)
    }

    /// Runs it by the model.
    fn theirs(&self, script: &str) -> Result<Ran> {
        let mut driver = command("unshare", APART);
        driver.args([ENTER, "sh", MODEL]);
        driver.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        self.run(driver, script)
    }

    fn run(&self, mut driver: Command, script: &str) -> Result<Ran> {
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let folder = |name: &str| {
            let path = place.path().join(name);
            let made = std::fs::create_dir(&path);
            made.with_context(|| format!("cannot make {}", path.display()))?;
            anyhow::Ok(path)
        };
        let (out, state) = (folder("out")?, apart::in_memory()?);
        let path = place.path().join("test.py");
        std::fs::write(&path, script).context("cannot write a script")?;
        for (kind, machines) in [("vm", &self.vms), ("container", &self.containers)] {
            if !machines.is_empty() {
                driver.arg(format!("--{kind}-names"));
                driver.args(machines.iter().map(|(name, _)| name));
                driver.arg(format!("--{kind}-start-scripts"));
                driver.args(machines.iter().map(|(_, script)| script));
            }
        }
        driver.args(["--vlans", &VLAN.to_string(), "-o"]);
        driver.arg(&out).arg(&path).current_dir(&out);
        driver
            .env("XDG_RUNTIME_DIR", state.path())
            .env("PATH", PATH);
        let begun = Instant::now();
        command::stdout(&mut driver)?;
        let seconds = begun.elapsed().as_secs_f64();
        let reported = reported(&out)?;
        Ok(Ran { seconds, reported })
    }
}

/// A test that passed.
struct Ran {
    /// How long all of it took.
    seconds: f64,
    /// What its script put into `result.json`.
    reported: Value,
}

fn reported(out: &Path) -> Result<Value> {
    let Ok(text) = std::fs::read_to_string(out.join("result.json")) else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).context("the script reported no JSON")
}
