//! What the program takes from its environment. Nothing else reads it.
//!
//! | variable | for |
//! |---|---|
//! | `MACHINIST_CACHE` | the cache; else `$XDG_CACHE_HOME/machinist`, else `~/.cache/machinist`; for root who has not a home of root's, `/var/cache/machinist` |
//! | `MACHINIST_RUNTIME` | live sessions; else `$XDG_RUNTIME_DIR/machinist`, else `/run/machinist` for root, else `/tmp/machinist-UID` |
//! | `MACHINIST_BUILDERS` | builders; else `/var/lib/machinist/builders` for root, else `$XDG_STATE_HOME/machinist/builders`, else `~/.local/state/machinist/builders` |
//! | `PATH` | where QEMU, systemd-nspawn, Python and the tools that build images are found |
//! | `MACHINIST_COLD` | set, and not `0`: VMs boot, and none is restored from its snapshot |
//! | `MACHINIST_MEMORY_BUDGET` | how much memory machines may need at once |
//! | `MACHINIST_SNAPSHOT_LIMIT` | how much the snapshots in the cache may take |
//! | `MACHINIST_SNAPSHOTS` | directories with more snapshots, which are only read |
//! | `MACHINIST_CDI_PATH` | directories of CDI files, in the place of `/etc/cdi:/var/run/cdi` |
//! | `LOGNAME`, else `USER` | whose subordinate ids to use, where `/etc/passwd` does not tell |
//! | `NIX_CONFIG`, `NIX_CONF_DIR`, `NIX_REMOTE_SYSTEMS`, `NIX_SSHOPTS`, `NIX_USER_CONF_FILES`, `XDG_CONFIG_DIRS`, `XDG_CONFIG_HOME` | what Nix, called by this user, would build on |
//! | `NO_COLOR`, `CLICOLOR_FORCE` | colours |
//! | `NIX_LOG_FD` | whether this is a Nix build, whose terminal is a log |
//!
//! And as `nixos-test-driver`:
//!
//! | variable | for |
//! |---|---|
//! | `startScripts`, `vlans`, `testScript`, ... | defaults of its arguments, see `driver::call` |
//! | `LOGFILE` | the log as XML |
//! | `XDG_RUNTIME_DIR`, else `TMPDIR`, `TEMP`, `TMP` | state directories of machines |
//! | `DISPLAY`, `WAYLAND_DISPLAY` | whether VMs may open windows |

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use machinist_builder::nix_conf::{Process, VARIABLES};
use machinist_builder::registration::NixHost;
use machinist_session::{Accel, Settings};
use machinist_sys::id_map;

use crate::cache::{Cache, is_below_anothers};
use crate::containers::Containers;
use crate::error::{CliError, Kind};
use crate::starts::Starts;

/// The environment, read once.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The cache.
    pub cache: Cache,
    /// The images in it.
    pub images: PathBuf,
    /// The directory of live sessions.
    pub runtime: PathBuf,
    /// Our own program.
    pub exe: PathBuf,
    /// Where programs are looked for.
    pub search: OsString,
    /// The directory that we were called in.
    pub here: PathBuf,
    /// Where devices of the Container Device Interface are described.
    pub cdi: Vec<PathBuf>,
    /// How machines start.
    pub starts: Starts,
    /// What the user is called.
    pub login: Option<String>,
    /// Whether containers can run here, once somebody has asked.
    pub containers: OnceLock<Containers>,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Result<Self, CliError> {
        let root = rustix::process::geteuid().is_root();
        // Who needs it is told that there is none.
        Self::with(cache(set, root), runtime(set))
    }

    fn with(cache: Option<PathBuf>, runtime: PathBuf) -> Result<Self, CliError> {
        let exe = env::current_exe()
            .map_err(|error| CliError::machinery(error).context("cannot find this program"))?;
        let here = env::current_dir().map_err(|error| {
            let gone = error.kind() == std::io::ErrorKind::NotFound;
            let hint = if gone { "it has been deleted: " } else { "" };
            CliError::new(Kind::Host, error)
                .context("cannot tell the current directory")
                .hint(format!("{hint}cd to another"))
        })?;
        let cache = cache.map_or_else(Cache::nowhere, |cache| {
            Cache::at(absolute(&here, cache), user())
        });
        Ok(Self {
            starts: Starts::read(set, cache.dir(), &here)?,
            images: cache.dir().join("images"),
            cache,
            runtime: absolute(&here, runtime),
            exe,
            search: set("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            here,
            cdi: cdi(set("MACHINIST_CDI_PATH")),
            login: set("LOGNAME")
                .or_else(|| set("USER"))
                .and_then(|name| name.into_string().ok()),
            containers: OnceLock::new(),
        })
    }

    /// What an engine needs of it.
    pub fn settings(&self, accel: Accel) -> Settings {
        Settings {
            runtime: self.runtime.clone(),
            exe: self.exe.clone(),
            images: self.images.clone(),
            search: self.search.clone(),
            accel,
            cdi: self.cdi.clone(),
            containers: self.known_containers().limits.clone(),
            warm: !self.starts.cold,
            snapshots: self.starts.snapshots.clone(),
            memory_budget: self.starts.budget(),
            starts: Starts::at_once(),
        }
    }

    /// The program called `name`, as a shell would find it.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(&self.search)
            .map(|dir| dir.join(name))
            .find(|path| is_program(path))
    }
}

/// Where builders of root are, unless it says otherwise. Nix's daemon looks here.
pub const ROOTS_BUILDERS: &str = "/var/lib/machinist/builders";

/// The directory of builders.
pub fn builders() -> Result<PathBuf, CliError> {
    let root = rustix::process::geteuid().is_root();
    builders_of(set, root).ok_or_else(|| {
        CliError::host("there is no place for builders: HOME is not set")
            .hint("set MACHINIST_BUILDERS to a directory")
    })
}

/// For root it is the same whoever asks: Nix's daemon has no home, and somebody else's environment.
fn builders_of(var: impl Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    if let Some(builders) = var("MACHINIST_BUILDERS") {
        return Some(builders.into());
    }
    if root {
        return Some(ROOTS_BUILDERS.into());
    }
    let state = var("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(var("HOME")?).join(".local/state")))?;
    Some(state.join("machinist/builders"))
}

/// This host's Nix, with us as its caller.
pub fn nix_host() -> NixHost {
    let known = VARIABLES.into_iter().filter_map(|name| {
        let value = var(name)?.into_string().ok()?;
        Some((name.to_owned(), value))
    });
    NixHost::this(Process {
        name: "your environment".into(),
        environment: known.collect(),
        ..Process::default()
    })
}

/// A variable's value, even an empty one.
pub fn var(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// A variable's value, unless it is empty.
fn set(name: &str) -> Option<OsString> {
    var(name).filter(|value| !value.is_empty())
}

/// What a driver of NixOS tests takes from its environment beside its arguments' defaults. It may
/// be in a build, where there is no home, and hardly a place to write to.
#[derive(Debug, Clone)]
pub struct DriverEnvironment {
    /// As for all.
    pub common: Environment,
    /// Where the machines' state directories are.
    pub state_root: PathBuf,
    /// The log as XML.
    pub logfile: Option<PathBuf>,
    /// Whether there is a display for windows.
    pub display: bool,
    /// Whether this is a build of Nix's.
    pub in_build: bool,
    /// All of it, as far as it is text: start scripts find it, too.
    pub variables: BTreeMap<String, String>,
}

impl DriverEnvironment {
    /// Reads it.
    pub fn read() -> Result<Self, CliError> {
        let here = env::current_dir().unwrap_or_default();
        let state_root = state_root(set, &here)?;
        let runtime = match set("MACHINIST_RUNTIME") {
            Some(named) => named.into(),
            None => writable_runtime(&state_root),
        };
        let root = rustix::process::geteuid().is_root();
        // A driver needs no images: nothing is written there.
        let cache = cache(set, root).unwrap_or_else(|| state_root.join("machinist-cache"));
        Ok(Self {
            common: Environment::with(Some(cache), runtime)?,
            state_root,
            logfile: set("LOGFILE").map(PathBuf::from),
            display: set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some(),
            in_build: is_build_log(),
            variables: variables(),
        })
    }
}

fn variables() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    env::vars_os().filter_map(text).collect()
}

/// Whether what looks like a terminal is the log of a Nix build.
pub fn is_build_log() -> bool {
    env::var_os("NIX_LOG_FD").is_some()
}

/// Where state directories go, made where it is missing.
fn state_root(set: impl Fn(&str) -> Option<OsString>, here: &Path) -> Result<PathBuf, CliError> {
    let named = ["XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP"];
    let named = named.iter().filter_map(|name| set(name)).map(PathBuf::from);
    let usual = ["/tmp", "/var/tmp", "/usr/tmp"].map(PathBuf::from);
    let mut places = named.chain(usual).chain([here.to_owned()]);
    let found = places.find(|place| can_write(&absolute(here, place.clone())));
    found.map(|place| absolute(here, place)).ok_or_else(|| {
        CliError::host("there is no place for the machines' state: no directory can be written to")
            .hint("set TMPDIR to one")
    })
}

/// The number of our user on the host. Root of a user namespace like those that we make (see
/// `machinist_machine::rootless`) is the user whose namespace it is.
fn user() -> u32 {
    let user = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    mapped_alone(&map, user).unwrap_or(user)
}

/// Who `user` is outside, where no id but that one is mapped so.
fn mapped_alone(map: &str, user: u32) -> Option<u32> {
    let alone = id_map::ranges(map).find(|it| it.inside == user && it.count == 1)?;
    Some(alone.outside)
}

/// The directory of live sessions, where it can be written to; else one that can.
fn writable_runtime(state_root: &Path) -> PathBuf {
    let user = user();
    let usual = [runtime(set), format!("/tmp/machinist-{user}").into()];
    let usual = usual.into_iter().find(|place| can_write(place));
    usual.unwrap_or_else(|| state_root.join("machinist"))
}

/// Whether something can be written there, once it is made.
fn can_write(place: &Path) -> bool {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place);
    made.is_ok() && rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok()
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn absolute(here: &Path, path: PathBuf) -> PathBuf {
    // `join` keeps a path that is absolute already.
    here.join(path)
}

fn cache(var: impl Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    if let Some(cache) = var("MACHINIST_CACHE") {
        return Some(cache.into());
    }
    let xdg = var("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(var("HOME")?).join(".cache"));
    let own = xdg.or_else(home).map(|it| it.join("machinist"));
    // A service has no home, and who was made root by `sudo` may have that of somebody else, who
    // could exchange there what root boots.
    let own = own.filter(|it| !root || !is_below_anothers(it));
    own.or_else(|| root.then(|| PathBuf::from("/var/cache/machinist")))
}

/// The directories of CDI files.
fn cdi(named: Option<OsString>) -> Vec<PathBuf> {
    let usual = || OsString::from("/etc/cdi:/var/run/cdi");
    env::split_paths(&named.unwrap_or_else(usual)).collect()
}

fn runtime(var: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if let Some(runtime) = var("MACHINIST_RUNTIME") {
        return runtime.into();
    }
    if let Some(runtime) = var("XDG_RUNTIME_DIR") {
        return PathBuf::from(runtime).join("machinist");
    }
    match user() {
        0 => PathBuf::from("/run/machinist"),
        user => PathBuf::from(format!("/tmp/machinist-{user}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        }
    }

    #[test]
    fn the_cache_has_an_order_of_places() {
        let all = [
            ("MACHINIST_CACHE", "/a"),
            ("XDG_CACHE_HOME", "/b"),
            ("HOME", "/c"),
        ];
        let path = |set: &[(&str, &str)], root| cache(var(set), root);
        assert_eq!(path(&all, false), Some("/a".into()));
        assert_eq!(path(&all[1..], false), Some("/b/machinist".into()));
        assert_eq!(path(&all[2..], false), Some("/c/.cache/machinist".into()));
        assert_eq!(path(&[], true), Some("/var/cache/machinist".into()));
        assert_eq!(path(&[], false), None);
    }

    #[test]
    fn root_has_no_cache_in_somebodys_home() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: this needs root, to give a directory away");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let set = [("HOME", home.path().to_str().unwrap())];
        let own = home.path().join(".cache/machinist");
        assert_eq!(cache(var(&set), true), Some(own.clone()));
        std::os::unix::fs::chown(home.path(), Some(1), None).unwrap();
        assert_eq!(cache(var(&set), true), Some("/var/cache/machinist".into()));
        // To others it is told when they want to write there.
        assert_eq!(cache(var(&set), false), Some(own));
    }

    #[test]
    fn builders_of_root_are_where_nixs_daemon_finds_them() {
        let home = [("HOME", "/root")];
        let usual = PathBuf::from("/var/lib/machinist/builders");
        assert_eq!(builders_of(var(&home), true), Some(usual.clone()));
        assert_eq!(builders_of(var(&[]), true), Some(usual));
        let own = PathBuf::from("/root/.local/state/machinist/builders");
        assert_eq!(builders_of(var(&home), false), Some(own));
        let named = [("MACHINIST_BUILDERS", "/b")];
        assert_eq!(builders_of(var(&named), true), Some("/b".into()));
    }

    #[test]
    fn root_of_a_users_namespace_is_that_user() {
        assert_eq!(mapped_alone("0 1000 1\n1 100000 65535\n", 0), Some(1000));
        assert_eq!(mapped_alone("         0          0 4294967295\n", 0), None);
        // The sandbox of a Nix build.
        assert_eq!(mapped_alone("0 872415232 65536\n", 0), None);
        assert_eq!(mapped_alone("", 0), None);
    }

    #[test]
    fn state_goes_where_something_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let made = here.join("made");
        let made = made.to_str().unwrap();
        // What cannot be made is passed over: /proc takes no directories, not even root's.
        let all = [
            ("XDG_RUNTIME_DIR", "/proc/none"),
            ("TMPDIR", made),
            ("TMP", "/"),
        ];
        assert_eq!(state_root(var(&all), here).unwrap(), Path::new(made));
        assert!(Path::new(made).is_dir());
        let relative = [("XDG_RUNTIME_DIR", "state")];
        assert_eq!(
            state_root(var(&relative), here).unwrap(),
            here.join("state")
        );
        assert_eq!(state_root(var(&[]), here).unwrap(), Path::new("/tmp"));
    }

    #[test]
    fn the_runtime_directory_may_be_named() {
        assert_eq!(
            runtime(var(&[("MACHINIST_RUNTIME", "/x")])),
            Path::new("/x")
        );
        let path = runtime(var(&[("XDG_RUNTIME_DIR", "/run/user/1")]));
        assert_eq!(path, Path::new("/run/user/1/machinist"));
    }
}
