//! What `__launch` is told: all that makes one container.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::devices::Link;

/// Where `__launch` puts everything, under a `/run` that only the container's supervisor sees. So
/// nothing of systemd-nspawn's own (locks, sockets, propagation directories) reaches the host's.
pub const STAGE: &str = "/run/machinist";

/// Where programs are looked for in any case. Not everybody's `PATH` has those of the system.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `search` as a container's supervisor gets it.
#[must_use]
pub fn search_path(search: &OsStr) -> OsString {
    if search.is_empty() {
        return USUAL.into();
    }
    let mut path = search.to_owned();
    path.push(":");
    path.push(USUAL);
    path
}

/// All that makes one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The machine's name, also its host name.
    pub name: String,
    /// The machine's directory on the host; holds the socket `notify`.
    pub dir: PathBuf,
    /// The root that the container's own root is laid over. It is never written to.
    pub lower: PathBuf,
    /// Absolute paths of `lower` that the container sees as empty directories.
    pub hidden: Vec<PathBuf>,
    /// What its root has been written already, as another start of it has left it: an archive.
    pub files: Option<PathBuf>,
    /// The contents of /etc/hosts.
    pub hosts: String,
    /// The contents of /etc/machine-id, 32 hexadecimal digits.
    pub machine_id: String,
    /// Directories and files of the host that the container sees.
    pub volumes: Vec<Bind>,
    /// Device nodes of the host that the container sees.
    pub devices: Vec<Bind>,
    /// Links to be made in its root.
    pub links: Vec<Link>,
    /// Folders in its root with libraries that its linker must find.
    pub library_folders: Vec<PathBuf>,
    /// Variables of its init.
    pub env: BTreeMap<String, String>,
    /// The directory of the container's own cgroup.
    pub cgroup: Option<PathBuf>,
    /// Whether a restart from inside is one. Otherwise it is the end.
    pub may_restart: bool,
    /// Where programs are looked for, as in `PATH`.
    pub search: PathBuf,
}

/// A directory or file of the host, inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether the container may write to it.
    pub writable: bool,
}

impl Plan {
    /// The command line of systemd-nspawn, the program included.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv: Vec<OsString> = [
            "systemd-nspawn",
            // No .nspawn file of the host decides about our machine.
            "--settings=no",
            // No machined, no scope: it is our child and nobody else's.
            "--register=no",
            "--keep-unit",
            "--directory=/run/machinist/root",
            "--boot",
            // The network namespace is the one that we made. nspawn believes that it is the host's
            // and would withhold what a machine of its own may do there.
            "--capability=CAP_NET_ADMIN",
            "--console=read-only",
            "--notify-ready=yes",
            // SIGTERM to nspawn is the power button.
            "--kill-signal=SIGRTMIN+4",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
        ]
        .into_iter()
        .map(OsString::from)
        .collect();
        argv.push(format!("--machine={}", self.name).into());
        for (number, volume) in self.volumes.iter().enumerate() {
            argv.push(bind_option(
                volume.writable,
                &staged_volume(number),
                &volume.target,
            ));
        }
        for device in &self.devices {
            argv.push(bind_option(device.writable, &device.source, &device.target));
        }
        for (name, value) in &self.env {
            argv.push(format!("--setenv={name}={value}").into());
        }
        argv
    }

    /// The environment of systemd-nspawn, all of it.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("PATH", search_path(self.search.as_os_str())),
            ("LANG", "C".into()),
            // Handed on to the container's init: a console log wants no colours.
            ("TERM", "dumb".into()),
            ("NOTIFY_SOCKET", format!("{STAGE}/dir/notify").into()),
            // As the first process of its namespace it would take itself for a system's init, and
            // log to the kernel.
            ("SYSTEMD_LOG_TARGET", "console".into()),
            ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1".into()),
            // As with a network of nspawn's own making: /proc/sys/net belongs to the machine.
            ("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network".into()),
        ]
    }
}

/// What `__launch` says to the engine, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It has its own mount and network namespace: the network can be hung on it.
    Isolated,
    /// systemd-nspawn runs, and this is its process id.
    Running(u32),
    /// The container restarts: another systemd-nspawn follows.
    Restarting,
    /// systemd-nspawn ended with this wait status, and all of the container is gone.
    Ended(i32),
    /// The container could not be prepared or run.
    Failed(String),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Isolated => f.write_str("isolated"),
            Self::Running(pid) => write!(f, "running {pid}"),
            Self::Restarting => f.write_str("restarting"),
            Self::Ended(status) => write!(f, "ended {status}"),
            // One line, whatever is in it.
            Self::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
        }
    }
}

impl Said {
    /// Reads a line, without its end.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "isolated" => Some(Self::Isolated),
            "running" => rest.parse().ok().map(Self::Running),
            "restarting" => Some(Self::Restarting),
            "ended" => rest.parse().ok().map(Self::Ended),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

/// What the engine says to `__launch` after the plan, one byte each.
pub mod order {
    /// The network is there: go.
    pub const GO: u8 = b'g';
    /// Press the power button.
    pub const BUTTON: u8 = b'b';
}

/// Where `__launch` binds the volume of this number before nspawn binds it on.
#[must_use]
pub fn staged_volume(number: usize) -> PathBuf {
    PathBuf::from(format!("{STAGE}/volumes/{number}"))
}

fn bind_option(writable: bool, source: &Path, target: &Path) -> OsString {
    let mut option = OsString::from(if writable { "--bind=" } else { "--bind-ro=" });
    option.push(escaped(source));
    option.push(":");
    option.push(escaped(target));
    option
}

/// `path` as nspawn reads it: colons and backslashes are its own.
fn escaped(path: &Path) -> OsString {
    let mut out = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            name: "web".into(),
            dir: "/run/user/0/machinist/s/machines/web".into(),
            lower: "/cache/root".into(),
            hidden: Vec::new(),
            files: None,
            hosts: "127.0.0.1 localhost\n".into(),
            machine_id: "0".repeat(32),
            volumes: vec![
                Bind {
                    source: "/srv/data".into(),
                    target: "/data".into(),
                    writable: true,
                },
                Bind {
                    source: "/srv/a:b".into(),
                    target: "/a:b".into(),
                    writable: false,
                },
            ],
            devices: vec![Bind {
                source: "/dev/fuse".into(),
                target: "/dev/fuse".into(),
                writable: true,
            }],
            links: Vec::new(),
            library_folders: Vec::new(),
            env: BTreeMap::from([("DEVICE".into(), "a b".into())]),
            cgroup: None,
            may_restart: true,
            search: "/usr/bin".into(),
        }
    }

    #[test]
    fn the_command_line() {
        let argv = plan().argv();
        let lines: Vec<_> = argv.iter().map(|a| a.to_string_lossy()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        systemd-nspawn
        --settings=no
        --register=no
        --keep-unit
        --directory=/run/machinist/root
        --boot
        --capability=CAP_NET_ADMIN
        --console=read-only
        --notify-ready=yes
        --kill-signal=SIGRTMIN+4
        --resolv-conf=off
        --timezone=off
        --link-journal=no
        --machine=web
        --bind=/run/machinist/volumes/0:/data
        --bind-ro=/run/machinist/volumes/1:/a\:b
        --bind=/dev/fuse:/dev/fuse
        --setenv=DEVICE=a b
        ");
    }

    #[test]
    fn the_systems_programs_are_found_in_any_case() {
        assert_eq!(search_path(OsStr::new("")), USUAL);
        let path = search_path(OsStr::new("/nix/store/systemd/bin"));
        assert!(
            path.to_string_lossy()
                .starts_with("/nix/store/systemd/bin:/usr/local/sbin:")
        );
    }

    #[test]
    fn what_is_said_is_understood() {
        for said in [
            Said::Isolated,
            Said::Running(42),
            Said::Restarting,
            Said::Ended(-1),
            Said::Failed("no such file".into()),
        ] {
            assert_eq!(Said::parse(&said.to_string()), Some(said));
        }
        assert_eq!(Said::parse("ended"), None);
        assert_eq!(Said::parse("gone"), None);
    }

    #[test]
    fn the_plan_survives_the_pipe() {
        let text = serde_json::to_string(&plan()).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan());
    }
}
