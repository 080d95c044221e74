//! The environment of a login, read once.
//!
//! Sourcing `/etc/profile` for every command costs many times what the command costs. The agent
//! does it once for each user, keeps what came out, and does it again only when the profile's
//! files changed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::users::User;

/// Where programs are until a profile says better.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A profile that takes longer has hung; commands then run without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command of one user starts with.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The shell for scripts, and whether it is bash.
    pub(crate) shell: PathBuf,
    pub(crate) bash: bool,
}

/// What the profile was made of when it was read.
type Stamp = Vec<(u64, u64, i64, i64)>;

/// Logins by user name.
#[derive(Default)]
pub(crate) struct Logins {
    known: HashMap<String, (Stamp, Login)>,
}

impl Logins {
    /// The login of a user, from memory where that is still right.
    pub(crate) fn of(&mut self, user: &User) -> Login {
        let stamp = stamp();
        match self.known.get(&user.name) {
            Some((then, login)) if *then == stamp => login.clone(),
            _ => {
                let login = read(user);
                self.known.insert(user.name.clone(), (stamp, login.clone()));
                login
            }
        }
    }
}

fn stamp() -> Stamp {
    ["/etc/profile", "/etc/profile.d", "/etc/environment"]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
        .collect()
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
    // Where the user has a session, its programs must find it.
    let runtime = format!("/run/user/{}", user.uid);
    if user.uid != 0 && Path::new(&runtime).is_dir() {
        env.push(("XDG_RUNTIME_DIR".into(), runtime.into()));
    }
    env
}

fn read(user: &User) -> Login {
    let base = base(user);
    let shell = find_shell(OsStr::new(PATH)).0;
    let env = source_profile(user, &base, &shell).unwrap_or(base);
    let path = env.iter().find(|(name, _)| name == "PATH");
    let (shell, bash) = find_shell(path.map_or(OsStr::new(PATH), |(_, value)| value));
    Login { env, shell, bash }
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
    let mut command = if user.uid == rustix::process::getuid().as_raw() {
        Command::new(shell)
    } else {
        let (_, status) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
        // Nobody reads the status here: a failure shows as an empty environment.
        let mut command = crate::exec::command(Some(user), false, &status);
        command.arg(shell);
        command
    };
    let mut child = command
        .args(["-c", ". /etc/profile >/dev/null 2>&1; exec env -0"])
        .env_clear()
        .envs(base.iter().cloned())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let output = child
        .stdout
        .take()
        .map(|stdout| read_within(stdout, PATIENCE));
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(group) = rustix::process::Pid::from_raw(pid)
    {
        // After the environment was printed there is nothing left to do, hung or not.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    drop(child.wait());
    let env = parse(&output??);
    (!env.is_empty()).then_some(env)
}

fn read_within(mut pipe: impl Read + std::os::fd::AsFd, patience: Duration) -> Option<Vec<u8>> {
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
