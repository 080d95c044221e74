//! `cargo xtask setup`: from a fresh Debian 12 with Rust to one that runs labs.
//!
//! It asks nothing, and when everything is there it does nothing but look.

mod backports;
mod packages;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{self, command};
use packages::Missing;

/// What apt and dpkg are told, so that neither asks a question.
const QUIET: [(&str, &str); 2] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("NEEDRESTART_MODE", "a"),
];

/// Installs what is missing; with `bench` also what only the benchmarks need.
pub fn run(bench: bool) -> Result<()> {
    let missing = packages::missing(bench)?;
    if missing.is_empty() {
        println!("setup: all system packages are there");
        return Ok(());
    }
    let release = Release::read()?;
    if !release.is_debian_like() {
        bail!(
            "cannot install packages on {}; please install: {}",
            release.name,
            missing.names().join(" ")
        );
    }
    let rights = Rights::find();
    install(&missing, &release, rights)
}

/// Installs with apt, from backports where the release's own QEMU is too old.
fn install(missing: &Missing, release: &Release, rights: Rights) -> Result<()> {
    println!("setup: installing {}", missing.names().join(" "));
    let mut plan = Plan::default();
    let mut from_backports = false;
    if missing.qemu && packages::needs_backports(&release.codename) {
        from_backports = true;
        if let Some(source) = backports::missing_source(Path::new("/etc/apt"), &release.codename)? {
            plan.file = Some((source.path, source.text));
        }
    }
    plan.commands
        .push(words(["apt-get", "update", "--quiet=2"]));
    let get = [
        "apt-get",
        "install",
        "--yes",
        "--quiet=2",
        "--no-install-recommends",
    ];
    if !missing.plain.is_empty() {
        let mut install = words(get);
        install.extend(missing.plain.iter().map(|name| (*name).to_owned()));
        plan.commands.push(install);
    }
    if missing.qemu {
        let mut install = words(get);
        if from_backports {
            install.push(format!("--target-release={}-backports", release.codename));
        }
        install.push(packages::QEMU.to_owned());
        plan.commands.push(install);
    }
    plan.carry_out(rights)?;
    let left = packages::missing(false)?;
    if !left.is_empty() {
        bail!(
            "still missing after the installation: {}",
            left.names().join(" ")
        );
    }
    Ok(())
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// How we may change the system.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    Root,
    Sudo,
    None,
}

impl Rights {
    fn find() -> Self {
        let root = command::stdout(&mut command("id", ["-u"])).is_ok_and(|id| id.trim() == "0");
        if root {
            Self::Root
        } else if command::output(&mut command("sudo", ["-n", "true"]))
            .is_ok_and(|output| output.status.success())
        {
            Self::Sudo
        } else {
            Self::None
        }
    }
}

/// What is to be done as root, in order: the file first.
#[derive(Default)]
struct Plan {
    file: Option<(String, String)>,
    commands: Vec<Vec<String>>,
}

impl Plan {
    fn carry_out(&self, rights: Rights) -> Result<()> {
        if rights == Rights::None {
            bail!(
                "root is needed once, and sudo asks for a password; please run:\n{}",
                self.script()
            );
        }
        // One shell run: `sudo` may have to be asked for each command otherwise.
        let script = format!("set -e\n{}", self.script());
        let mut shell = match rights {
            Rights::Sudo => command("sudo", ["-n", "sh", "-c", &script]),
            _ => command("sh", ["-c", &script]),
        };
        command::run(shell.stdout(std::io::stderr())).context("the installation failed")
    }

    /// The plan as lines for a shell.
    fn script(&self) -> String {
        let mut lines = Vec::new();
        if let Some((path, text)) = &self.file {
            let print = command("printf", ["%s", text.as_str()]);
            lines.push(format!("{} > {path}", command::shown(&print)));
        }
        for (name, value) in QUIET {
            lines.push(format!("export {name}={value}"));
        }
        for words in &self.commands {
            if let Some((program, args)) = words.split_first() {
                lines.push(command::shown(&command(program, args)));
            }
        }
        lines.join("\n")
    }
}

/// Which system this is.
struct Release {
    name: String,
    codename: String,
    like: String,
}

impl Release {
    fn read() -> Result<Self> {
        let path = "/etc/os-release";
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        Ok(Self {
            name: value("PRETTY_NAME"),
            codename: value("VERSION_CODENAME"),
            like: format!("{} {}", value("ID"), value("ID_LIKE")),
        })
    }

    fn is_debian_like(&self) -> bool {
        self.like.split_whitespace().any(|id| id == "debian")
    }
}
