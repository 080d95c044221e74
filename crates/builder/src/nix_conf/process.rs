//! What decides over Nix's settings beside `nix.conf`: the environment and the arguments of a process.
//!
//! What comes later replaces what came before: `NIX_REMOTE_SYSTEMS`, `nix.conf`, the user's files,
//! `NIX_CONFIG`, arguments. The daemon is a process as any other, so root's files and its unit's
//! environment count, where hardly anybody looks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machinist_sys::stat::Stat;

use super::{Assignment, NixConf, NixConfError, parse};
use crate::machines_file::{HostFiles, Place};

/// The variables that count.
pub const VARIABLES: [&str; 8] = [
    "HOME",
    "NIX_CONF_DIR",
    "NIX_CONFIG",
    "NIX_REMOTE_SYSTEMS",
    "NIX_SSHOPTS",
    "NIX_USER_CONF_FILES",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
];

/// Where the daemon's user is at home.
const ROOTS_HOME: &str = if cfg!(target_os = "macos") {
    "/var/root"
} else {
    "/root"
};

/// A process of Nix's, or one that would call it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// What it is called in messages, such as `the daemon`.
    pub name: String,
    /// Those of [`VARIABLES`] that are set.
    pub environment: BTreeMap<String, String>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// It is somebody else's, so its environment could not be seen.
    pub hidden: bool,
}

/// A daemon that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// Its number.
    pub pid: u32,
    /// When it started, to the second.
    pub started: SystemTime,
}

impl Daemon {
    /// The oldest process of that name that is in no container: builders have daemons, too. None on hosts
    /// without `/proc`.
    #[must_use]
    pub fn find(files: &HostFiles) -> Option<Self> {
        let boot = text(files, "/proc/stat")?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot = UNIX_EPOCH + Duration::from_secs(boot.trim().parse().ok()?);
        let entries = fs::read_dir(files.find(Path::new("/proc"))).ok()?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let own = namespaces(files, "self");
        let pids = pids.filter(|pid| namespaces(files, &pid.to_string()) <= own);
        let daemons = pids.filter_map(|pid| {
            let stat = Stat::read(&text(files, &format!("/proc/{pid}/stat"))?)?;
            // The kernel counts in hundredths of a second for all that it tells users.
            let started = boot + Duration::from_millis(stat.started()? * 10);
            (stat.name() == "nix-daemon").then_some(Self { pid, started })
        });
        daemons.min_by_key(|daemon| daemon.started)
    }

    /// What it was started with.
    #[must_use]
    pub fn process(self, files: &HostFiles) -> Process {
        let list = |name: &str| {
            let text = text(files, &format!("/proc/{}/{name}", self.pid))?;
            let words = text.split('\0').filter(|word| !word.is_empty());
            Some(words.map(str::to_owned).collect::<Vec<String>>())
        };
        let environment = list("environ");
        let hidden = environment.is_none();
        let home = (!hidden).then(|| ("HOME".to_owned(), ROOTS_HOME.to_owned()));
        let set = environment.into_iter().flatten().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            let counts = VARIABLES.contains(&name);
            counts.then(|| (name.to_owned(), value.to_owned()))
        });
        Process {
            name: "the daemon".into(),
            // Where it has no home, Nix asks who it is.
            environment: home.into_iter().chain(set).collect(),
            arguments: list("cmdline").unwrap_or_default(),
            hidden,
        }
    }
}

fn text(files: &HostFiles, path: &str) -> Option<String> {
    let bytes = fs::read(files.find(Path::new(path))).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many namespaces number this process, from ours on.
fn namespaces(files: &HostFiles, process: &str) -> usize {
    let status = text(files, &format!("/proc/{process}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.map_or(0, |numbers| numbers.split_whitespace().count())
}

impl Process {
    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.environment.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Where its `nix.conf` is, if not in the usual place.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        self.variable("NIX_CONF_DIR").map(PathBuf::from)
    }

    fn place(&self, what: &str) -> Place {
        Place {
            origin: format!("{what} of {}", self.name),
            line: 0,
        }
    }

    /// What any file replaces.
    pub(super) fn before_files(&self) -> Vec<Assignment> {
        const NAME: &str = "NIX_REMOTE_SYSTEMS";
        let files = self.environment.get(NAME).into_iter();
        let assigned = files.map(|files| {
            let files = files.split(':').filter(|file| !file.is_empty());
            let entries: Vec<String> = files.map(|file| format!("@{file}")).collect();
            Assignment {
                name: "builders".into(),
                value: entries.join(" ; "),
                place: self.place(NAME),
            }
        });
        assigned.collect()
    }

    /// The user's files, those that count most last.
    fn files(&self) -> Vec<PathBuf> {
        let split = |text: &str| -> Vec<PathBuf> {
            let parts = text.split(':').filter(|part| !part.is_empty());
            parts.map(PathBuf::from).collect()
        };
        let mut files = match self.environment.get("NIX_USER_CONF_FILES") {
            Some(named) => split(named),
            None => {
                let home = self.variable("HOME").map(|home| format!("{home}/.config"));
                let own = self.variable("XDG_CONFIG_HOME").map(str::to_owned).or(home);
                let shared = self.variable("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg");
                let own = own.into_iter().map(PathBuf::from);
                own.chain(split(shared))
                    .map(|directory| directory.join("nix/nix.conf"))
                    .collect()
            }
        };
        files.reverse();
        files
    }

    /// Adds what replaces `nix.conf`.
    ///
    /// # Errors
    /// What would keep Nix from starting.
    pub fn read(&self, files: &HostFiles) -> Result<NixConf, NixConfError> {
        let mut conf = NixConf::default();
        for file in self.files() {
            parse::file(&file, files, 0, &mut conf)?;
        }
        if let Some(text) = self.environment.get("NIX_CONFIG") {
            let origin = self.place("NIX_CONFIG").origin;
            let before = conf.assignments.len();
            parse::text(text, &origin, Path::new("/"), files, 0, &mut conf)?;
            if !text.contains('\n') {
                // It has no lines to tell apart.
                let own = conf.assignments[before..].iter_mut();
                own.filter(|own| own.place.origin == origin)
                    .for_each(|own| own.place.line = 0);
            }
        }
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            let name = match word.as_str() {
                "--option" => words.next().cloned(),
                "--builders" => Some("builders".to_owned()),
                _ => None,
            };
            if let (Some(name), Some(value)) = (name, words.as_slice().first()) {
                conf.assignments.push(Assignment {
                    name,
                    value: value.clone(),
                    place: self.place("the command line"),
                });
                words.next();
            }
        }
        Ok(conf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with a daemon, which has this environment and these arguments.
    fn daemon(environment: &str, arguments: &str) -> (tempfile::TempDir, HostFiles) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/stat", "cpu 1\nbtime 1000\n");
        let stat = "7 (nix-daemon) S 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 4500 1 2 3";
        write("proc/7/stat", stat);
        // A builder's, which began before.
        let inside = "6 (nix-daemon) S 1 6 6 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 300 1 2 3";
        write("proc/6/stat", inside);
        write("proc/6/status", "Name:\tnix-daemon\nNSpid:\t6\t3\n");
        for ours in ["7", "self"] {
            let status = "Name:\tnix-daemon\nNSpid:\t7\n";
            write(&format!("proc/{ours}/status"), status);
        }
        write("proc/7/environ", environment);
        write("proc/7/cmdline", arguments);
        write("root/.config/nix/nix.conf", "builders = root's\n");
        write("etc/xdg/nix/nix.conf", "builders = shared\n");
        let files = HostFiles::below(root.path());
        (root, files)
    }

    fn said(environment: &str, arguments: &str) -> Vec<String> {
        let (_root, files) = daemon(environment, arguments);
        let found = Daemon::find(&files).unwrap();
        assert_eq!(found.started, UNIX_EPOCH + Duration::from_secs(1045));
        let process = found.process(&files);
        let mut all = process.before_files();
        all.extend(process.read(&files).unwrap().assignments().to_vec());
        let shown = all.iter().map(|it| format!("{} at {}", it.value, it.place));
        shown.collect()
    }

    #[test]
    fn who_sets_builders_beside_the_file() {
        assert_eq!(
            said(
                "PATH=/x\0NIX_REMOTE_SYSTEMS=/a:/b\0HOME=/root\0NIX_CONFIG=# x\nbuilders = \0",
                "nix-daemon\0--option\0builders\0@/c\0--daemon\0"
            ),
            [
                "@/a ; @/b at NIX_REMOTE_SYSTEMS of the daemon",
                "shared at /etc/xdg/nix/nix.conf:1",
                "root's at /root/.config/nix/nix.conf:1",
                " at NIX_CONFIG of the daemon:2",
                "@/c at the command line of the daemon",
            ]
        );
        assert_eq!(
            said(
                "NIX_USER_CONF_FILES=/etc/xdg/nix/nix.conf\0HOME=/root\0",
                "nix-daemon\0--builders\0\0"
            ),
            ["shared at /etc/xdg/nix/nix.conf:1"]
        );
        // Without a home it has root's.
        assert_eq!(
            said("XDG_CONFIG_DIRS=/none\0", "nix-daemon\0"),
            ["root's at /root/.config/nix/nix.conf:1"]
        );
    }
}
