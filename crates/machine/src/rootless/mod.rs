//! Containers for ordinary users: the whole engine becomes root of a user namespace of theirs.
//!
//! From then on all is as for root: images unpack with all their owners, namespaces and interfaces
//! can be made, and what other ids own in the cache can be removed. On the host those ids are the
//! ones that the user was given in `/etc/subuid` and `/etc/subgid`.
//!
//! Whether it works is tried in a process of its own first (`main`): a process cannot come back.

mod delegation;
mod ids;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use machinist_sys::id_map::IdRange;
use machinist_sys::user_namespace::{self, IdMap, UserNamespaceError};
use serde::{Deserialize, Serialize};

use crate::error::chain;
use crate::ground::{GroundError, Lacks, Need, lay};
use crate::search::find;
use ids::User;

/// Where the host says who may have which ids.
const ETC: &str = "/etc";

/// Why containers cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct NoContainers {
    /// What was seen, half a sentence without a period.
    pub why: String,
    /// What the user can do, each one line.
    pub remedies: Vec<String>,
}

impl NoContainers {
    fn new(why: impl Into<String>, remedies: impl IntoIterator<Item = String>) -> Self {
        Self {
            why: why.into(),
            remedies: remedies.into_iter().collect(),
        }
    }
}

/// Who wants containers, and what they have.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// A program whose `main` calls [`crate::helper::dispatch`]: ours.
    pub exe: &'a Path,
    /// Where programs are looked for, as in `PATH`.
    pub search: &'a OsStr,
    /// What the environment says the user is called.
    pub login: Option<&'a str>,
}

/// As whom containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// As root, of the host or of whatever namespace we were started in.
    Root,
    /// As root of a user namespace that we have entered just now.
    Mapped,
}

/// Sees to it that containers can run, where that can be had: an ordinary user's process becomes root
/// of a user namespace. It is found by doing what containers need done. Blocks for some milliseconds.
///
/// To be called before this process makes threads.
///
/// # Errors
/// They cannot. Then this process is as it was.
pub fn prepare(caller: Caller<'_>) -> Result<Rights, NoContainers> {
    if rustix::process::geteuid().is_root() {
        return match crate::ground::probe(caller.exe) {
            Ok(()) => Ok(Rights::Root),
            Err(GroundError::Lacks(lacks)) => Err(of_lacks(&lacks, false)),
            Err(error) => Err(NoContainers::new(chain(&error), None)),
        };
    }
    // Said before anything is tried: these are what most users lack.
    let maps = Maps::find(caller)?;
    delegation::ask_for(caller.search);
    try_in_a_child(caller)?;
    maps.enter().map_err(|error| of_kernel(&error))?;
    Ok(Rights::Mapped)
}

/// The ids that we may have, and the programs that map them.
#[derive(Debug)]
struct Maps {
    newuidmap: PathBuf,
    newgidmap: PathBuf,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

impl Maps {
    fn find(caller: Caller<'_>) -> Result<Self, NoContainers> {
        let etc = Path::new(ETC);
        let user = User::ourselves(etc, caller.login.map(str::to_owned));
        let (mut missing, mut remedies) = (Vec::new(), Vec::new());
        let mut map = |file: &str, own: u32| {
            let path = etc.join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mapping = ids::mapping(&text, &user, own);
            mapping.unwrap_or_else(|few| {
                missing.push(format!("65536 ids for {user} in {}", path.display()));
                remedies.push(format!("add the line {} to {}", few.line, path.display()));
                Vec::new()
            })
        };
        let uids = map("subuid", rustix::process::geteuid().as_raw());
        let gids = map("subgid", rustix::process::getegid().as_raw());
        let mut program = |name: &str| {
            let found = find(caller.search, name);
            found.unwrap_or_else(|| {
                missing.push(name.to_owned());
                let remedy = "install the package uidmap, which has newuidmap and newgidmap";
                if remedies.last().is_none_or(|last| last != remedy) {
                    remedies.push(remedy.to_owned());
                }
                PathBuf::new()
            })
        };
        let (newuidmap, newgidmap) = (program("newuidmap"), program("newgidmap"));
        if missing.is_empty() {
            return Ok(Self {
                newuidmap,
                newgidmap,
                uids,
                gids,
            });
        }
        let why = format!(
            "containers need root, or a user namespace, for which there is no {}",
            missing.join(", no ")
        );
        remedies.push("or run it again with sudo".to_owned());
        Err(NoContainers::new(why, remedies))
    }

    fn enter(&self) -> Result<(), UserNamespaceError> {
        user_namespace::enter(
            IdMap {
                mapper: &self.newuidmap,
                ranges: &self.uids,
            },
            IdMap {
                mapper: &self.newgidmap,
                ranges: &self.gids,
            },
        )
    }
}

/// Tries it all in a process that ends afterwards.
fn try_in_a_child(caller: Caller<'_>) -> Result<(), NoContainers> {
    let failed =
        |why: String| NoContainers::new(format!("containers cannot be tried: {why}"), None);
    let tried = Command::new(caller.exe)
        .arg("__rootless")
        .arg(caller.search)
        .args(caller.login)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&tried.stdout)
        .map_err(|_| failed(format!("the helper that tries it ended: {}", tried.status)))?
}

/// The hidden verb `__rootless`: becomes root of a user namespace, and says on standard output, as one
/// line of JSON, whether containers can run in it.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let (search, login) = match arguments {
        [search] => (search, None),
        [search, login] => (search, Some(login.as_str())),
        _ => return ExitCode::FAILURE,
    };
    let caller = Caller {
        exe: Path::new("/proc/self/exe"),
        search: OsStr::new(search),
        login,
    };
    let tried = Maps::find(caller).and_then(|maps| {
        maps.enter().map_err(|error| of_kernel(&error))?;
        let lacks = lay::lay();
        if lacks.is_empty() {
            Ok(())
        } else {
            Err(of_lacks(&Lacks(lacks), true))
        }
    });
    match serde_json::to_string(&tried) {
        Ok(said) => {
            // The one thing that this process is for.
            use std::io::Write as _;
            match writeln!(std::io::stdout(), "{said}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn of_kernel(error: &UserNamespaceError) -> NoContainers {
    let remedies = [
        "let ordinary users make user namespaces: sysctl user.max_user_namespaces=65536, on Debian kernels also kernel.unprivileged_userns_clone=1, on Ubuntu's kernel.apparmor_restrict_unprivileged_userns=0",
        "or run it again with sudo",
    ];
    NoContainers::new(
        format!(
            "containers need root, or a user namespace: {}",
            chain(error)
        ),
        remedies.map(str::to_owned),
    )
}

/// `mapped`: as root of a user namespace of ours.
fn of_lacks(lacks: &Lacks, mapped: bool) -> NoContainers {
    let lacking: Vec<String> = lacks.0.iter().map(ToString::to_string).collect();
    let why = format!("containers lack {}", lacking.join(", "));
    let needs_cgroup = lacks.0.iter().any(|lack| lack.what == Need::Cgroup);
    let mut remedies: Vec<String> = Vec::new();
    if mapped && needs_cgroup {
        remedies.push(
            "let a systemd user session give it a control group: systemd-run --user --scope --property=Delegate=yes machinist ..."
                .to_owned(),
        );
        remedies.push("or run it again with sudo".to_owned());
    } else {
        remedies.extend(lacks.0.first().map(|lack| lack.what.remedy().to_owned()));
    }
    NoContainers::new(why, remedies)
}
