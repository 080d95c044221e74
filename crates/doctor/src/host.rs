//! The host that is examined, and the programs that are asked about it.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use machinist_builder::registration::{NixHost, find_nix};

/// How long a question may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long a build on a machine may take, which may have to start first.
pub(crate) const BUILD: Duration = Duration::from_secs(300);

/// What is known already to whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Why containers cannot run here, and what helps; none where they can.
    pub no_containers: Option<(String, Vec<String>)>,
    /// Why KVM does not work here though it is there, as a VM has found out; and the file that
    /// remembers it.
    pub kvm_condemned: Option<(String, PathBuf)>,
    /// The directories of machinist's builders.
    pub builders: Vec<PathBuf>,
}

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its Nix.
    pub nix: NixHost,
    /// Where programs are looked for, as in `PATH`.
    pub search: OsString,
    /// A directory for files that are needed for a moment.
    pub scratch: PathBuf,
    /// What is known already.
    pub known: Known,
}

/// What a program said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Its last words that are no empty line.
    pub(crate) fn last_line(&self) -> &str {
        let lines = self.stderr.lines().chain(self.stdout.lines());
        let mut errors = lines.clone().filter(|line| line.contains("error"));
        let last = errors.next_back();
        last.or_else(|| self.stderr.lines().rfind(|line| !line.trim().is_empty()))
            .unwrap_or("it said nothing")
            .trim()
    }
}

/// Why a program said nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    #[error("{0} is not installed")]
    Missing(String),
    #[error("{0} takes longer than {1} s")]
    Slow(String, u64),
    #[error("cannot run {0}: {1}")]
    Io(String, std::io::Error),
}

impl Host {
    /// The host's root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.nix.files.find(Path::new(path))
    }

    /// What a file of the host has.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.at(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A program, where a shell would find it, or Nix's profiles have it.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let usual = [
            "/usr/sbin",
            "/sbin",
            "/usr/bin",
            "/bin",
            // Of macOS.
            "/usr/libexec/ApplicationFirewall",
        ];
        let usual = usual.map(PathBuf::from);
        find_nix(&self.search, name).or_else(|| {
            let mut places = usual.iter().map(|place| place.join(name));
            places.find(|path| path.is_file())
        })
    }

    /// Asks a program. It gets nothing to read, and is killed when it takes too long.
    pub(crate) fn ask<S: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Result<Said, Silence> {
        let program = self
            .program(name)
            .ok_or_else(|| Silence::Missing(name.to_owned()))?;
        let io = |error| Silence::Io(name.to_owned(), error);
        let mut stdout = tempfile(&self.scratch).map_err(io)?;
        let mut stderr = tempfile(&self.scratch).map_err(io)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(io)?)
            .stderr(stderr.try_clone().map_err(io)?);
        if name.starts_with("nix") && self.has_daemon() {
            // Root's Nix would go past the daemon, and see another truth than users do.
            command.env("NIX_REMOTE", "daemon");
        }
        let mut child = machinist_sys::process::spawn(command).map_err(io)?;
        let Some(status) = child.wait_timeout(limit).map_err(io)? else {
            // Killed when it is dropped.
            return Err(Silence::Slow(name.to_owned(), limit.as_secs()));
        };
        Ok(Said {
            success: status.success(),
            stdout: all(&mut stdout).map_err(io)?,
            stderr: all(&mut stderr).map_err(io)?,
        })
    }

    /// Whether there is a Nix that builds could be asked of.
    #[must_use]
    pub fn has_nix(&self) -> bool {
        self.program("nix").is_some() || self.at("/nix/store").is_dir()
    }

    /// Whether a Nix daemon listens.
    pub(crate) fn has_daemon(&self) -> bool {
        self.at(DAEMON).exists()
    }
}

/// Where Nix's daemon listens.
pub(crate) const DAEMON: &str = "/nix/var/nix/daemon-socket/socket";

/// A file without a name.
fn tempfile(directory: &Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
    }
    let name = directory.join(format!("machinist-doctor-{}", std::process::id()));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(&name, flags, Mode::RUSR | Mode::WUSR)?;
    std::fs::remove_file(&name)?;
    Ok(file.into())
}

fn all(file: &mut std::fs::File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
