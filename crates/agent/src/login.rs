//! Users with the environment of a login, read once.
//!
//! Sourcing `/etc/profile` for every command costs many times what the command costs. The agent
//! does it once for each user, keeps what came out, and does it again only when the files of the
//! profile or of the users changed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machinist_sys::vfork;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process_group};

use crate::spawn::{null, string, variables};
use crate::users::{self, User};

/// Where programs are until a profile says better.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A profile that takes longer has hung; commands then run without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command of one user starts with.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) user: User,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The shell for scripts, and whether it is bash.
    pub(crate) shell: PathBuf,
    pub(crate) bash: bool,
}

/// How the files were that a login is made of.
type Stamp = [Option<(u64, u64, i64, i64, u64)>; 5];

/// Logins by the user's name or number.
#[derive(Default)]
pub(crate) struct Logins {
    stamp: Stamp,
    known: HashMap<String, Login>,
}

impl Logins {
    /// The login of a user, from memory where that is still right. None where there is no such user.
    pub(crate) fn of(&mut self, name: &str) -> Option<&Login> {
        let stamp = stamp();
        if self.stamp != stamp {
            self.stamp = stamp;
            self.known.clear();
        }
        if !self.known.contains_key(name) {
            let login = read(users::find(name)?);
            self.known.insert(name.to_owned(), login);
        }
        self.known.get(name)
    }

    /// Forgets the logins that tell of `word`, such as a name that the machine no longer has.
    pub(crate) fn forget_about(&mut self, word: &str) {
        let tells = |(_, value): &(OsString, OsString)| {
            let mut parts = value.as_bytes().windows(word.len().max(1));
            parts.any(|part| part == word.as_bytes())
        };
        self.known.retain(|_, login| !login.env.iter().any(tells));
    }
}

fn stamp() -> Stamp {
    [
        users::PASSWD,
        users::GROUP,
        "/etc/profile",
        "/etc/profile.d",
        "/etc/environment",
    ]
    .map(|path| {
        let it = rustix::fs::stat(path).ok()?;
        Some((
            it.st_dev,
            it.st_ino,
            it.st_size,
            it.st_mtime,
            it.st_mtime_nsec,
        ))
    })
}

fn base(user: &User) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = [
        ("HOME", user.home.as_str()),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
        ("PATH", PATH),
        ("PAGER", ""),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    // The root shell of a NixOS test, through which the agent may have come, says where its display
    // is; tests count on that.
    if user.uid == 0
        && let Some(display) = std::env::var_os("DISPLAY")
    {
        env.push(("DISPLAY".into(), display));
    }
    // Where the user has a session, its programs must find it.
    let runtime = format!("/run/user/{}", user.uid);
    if user.uid != 0 && Path::new(&runtime).is_dir() {
        env.push(("XDG_RUNTIME_DIR".into(), runtime.into()));
    }
    env
}

fn read(user: User) -> Login {
    let base = base(&user);
    let shell = find_shell(OsStr::new(PATH)).0;
    let env = source_profile(&user, &base, &shell).unwrap_or(base);
    let path = env.iter().find(|(name, _)| name == "PATH");
    let (shell, bash) = find_shell(path.map_or(OsStr::new(PATH), |(_, value)| value));
    Login {
        user,
        env,
        shell,
        bash,
    }
}

/// bash in the search path or where distributions keep it; else `/bin/sh`.
fn find_shell(path: &OsStr) -> (PathBuf, bool) {
    let fixed = ["/bin/bash", "/run/current-system/sw/bin/bash"].map(PathBuf::from);
    let found = std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("bash"))
        .chain(fixed)
        .find(|candidate| candidate.is_file());
    match found {
        Some(bash) => (bash, true),
        None => ("/bin/sh".into(), false),
    }
}

/// Runs the profile as the user would. None where there is none, or where it does not work.
fn source_profile(
    user: &User,
    base: &[(OsString, OsString)],
    shell: &Path,
) -> Option<Vec<(OsString, OsString)>> {
    if !Path::new("/etc/profile").exists() {
        return None;
    }
    let script = ". /etc/profile >/dev/null 2>&1; exec env -0";
    let argv = [shell.as_os_str(), OsStr::new("-c"), OsStr::new(script)];
    let (reader, writer) = std::io::pipe().ok()?;
    let null = null().ok()?;
    let program = vfork::Program {
        files: vec![string(shell).ok()?],
        argv: argv
            .map(string)
            .into_iter()
            .collect::<Result<_, _>>()
            .ok()?,
        env: variables(base.iter().map(|(name, value)| (&**name, &**value))).ok()?,
        dir: c"/".into(),
        stdio: [null.as_fd(), writer.as_fd(), null.as_fd()],
        terminal: false,
        user: user.ids(),
    };
    let child = program.start().ok()?;
    drop(writer);
    let output = read_within(reader, PATIENCE);
    // After the environment was printed there is nothing left to do, hung or not.
    let _ = kill_process_group(child.pid(), Signal::KILL);
    drop(child.wait());
    let env = parse(&output?);
    (!env.is_empty()).then_some(env)
}

fn read_within(mut pipe: impl Read + AsFd, patience: Duration) -> Option<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let left = Timespec::try_from(left).ok()?;
        if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)).ok()? == 0 {
            return None;
        }
        match pipe.read(&mut buffer).ok()? {
            0 => return Some(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn parse(bytes: &[u8]) -> Vec<(OsString, OsString)> {
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
        // What a shell sets for itself says nothing to the next one.
        .filter(|(name, _)| !matches!(*name, b"PWD" | b"OLDPWD" | b"SHLVL" | b"_"))
        .map(|(name, value)| {
            let (name, value) = (OsStr::from_bytes(name), OsStr::from_bytes(value));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_a_name_is_forgotten() {
        let mut logins = Logins::default();
        for (name, value) in [("one", "at db-1, of db"), ("two", "at web")] {
            let login = Login {
                user: users::find("root").unwrap(),
                env: vec![("PROMPT".into(), value.into())],
                shell: "/bin/sh".into(),
                bash: false,
            };
            logins.known.insert(name.to_owned(), login);
        }
        let known = |logins: &Logins| {
            let mut names: Vec<_> = logins.known.keys().cloned().collect();
            names.sort();
            names
        };
        logins.forget_about("db-10");
        logins.forget_about("");
        assert_eq!(known(&logins), ["one", "two"]);
        logins.forget_about("db-1");
        assert_eq!(known(&logins), ["two"]);
    }
}
