//! Where in the machine the host's paths are put, and what its Nix is told of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machinist_guest::{Agent, Command};
use tokio::task::AbortHandle;

use super::daemon::Info;
use super::pieces::{self, Put};
use super::registration::{STORE, lines, path};
use super::share::{Share, Shown};
use super::vm;
use crate::service::Log;

/// How long Nix in the machine may take. Emulated machines are slow.
const STEP: Duration = Duration::from_secs(300);
/// How Nix in the machine is told of paths, and made to keep them.
const REGISTER: &str = include_str!("register.sh");
/// How it is made to forget them.
const FORGET: &str = include_str!("forget.sh");

/// The machine, and how the host's paths get there.
#[derive(Clone)]
pub(super) struct Ground {
    /// The host's store.
    store: PathBuf,
    agent: Agent,
    way: Way,
}

#[derive(Clone)]
enum Way {
    /// Of a container: the mount namespace of its init.
    Container(Arc<File>),
    /// Of a VM: what its kernel asks us for.
    Vm(Arc<Vm>),
}

/// A VM that reads the host's store.
struct Vm {
    shown: Shown,
    /// What answers its kernel, as long as this is held.
    serving: AbortHandle,
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Ground {
    /// Of the container that the process `launcher` has started. `store` is the host's.
    pub(super) fn container(
        launcher: Option<u32>,
        store: PathBuf,
        agent: Agent,
    ) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the container's init is gone");
        let init = launcher.and_then(init_below).ok_or_else(gone)?;
        let namespace = File::open(format!("/proc/{init}/ns/mnt"))?;
        Ok(Self {
            store,
            agent,
            way: Way::Container(Arc::new(namespace)),
        })
    }

    /// Of a VM.
    pub(super) async fn vm(store: PathBuf, agent: Agent, log: Log) -> io::Result<Self> {
        let shown = Shown::default();
        let share = Share::new(store.clone(), shown.clone());
        let serving = vm::attach(&agent, share, log).await?;
        Ok(Self {
            store,
            agent,
            way: Way::Vm(Arc::new(Vm { shown, serving })),
        })
    }

    /// Puts paths into the machine's store, in the order of `names`; `again`: the places of former ones
    /// may be there. Where that fails, none of them is.
    pub(super) async fn put(&self, names: Vec<String>, again: bool) -> io::Result<Vec<Put>> {
        match &self.way {
            Way::Container(namespace) => {
                let (namespace, from) = (Arc::clone(namespace), self.store.clone());
                blocking(move || {
                    pieces::put(namespace.as_fd(), &from, Path::new(STORE), &names, again)
                })
                .await
            }
            Way::Vm(vm) => {
                let new = vm.shown.add(&names);
                let is_former = |name: &String| vm.shown.is_former(name);
                let others = names.iter().filter(|name| !is_former(name));
                let others: Vec<String> = others.cloned().collect();
                let put = vm::put(&self.agent, &self.store, &others, again).await;
                let mut put = put.inspect_err(|_| vm.shown.remove(&new))?.into_iter();
                let each = |name| match is_former(name) {
                    true => Some(Put::Former),
                    false => put.next(),
                };
                Ok(names.iter().filter_map(each).collect())
            }
        }
    }

    /// Takes paths out of it that have been put there, and no others: what the machine has of its own is
    /// its own. Their places stay, unless `places` says so.
    pub(super) async fn take(&self, names: Vec<String>, places: bool) -> io::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        match &self.way {
            Way::Container(namespace) => {
                let namespace = Arc::clone(namespace);
                let to = Path::new(STORE);
                blocking(move || pieces::take(namespace.as_fd(), to, &names, places)).await
            }
            Way::Vm(vm) => {
                let taken = vm::take(&self.agent, &names, places).await;
                vm.shown.remove(&names);
                taken
            }
        }
    }

    /// Tells Nix in the machine of paths that have been put there.
    pub(super) async fn register(&self, infos: &BTreeMap<String, Info>) -> io::Result<()> {
        let names: String = infos.keys().map(|name| format!("{name}\n")).collect();
        let text = format!("{}\n{names}{}", infos.len(), lines(infos));
        run(&self.agent, &["sh", "-c", REGISTER], &text).await?;
        Ok(())
    }

    /// Makes Nix in the machine forget paths, and all that refers to them. Where builds may be `running`
    /// that have used them, it ends all of them.
    pub(super) async fn forget(&self, names: &[String], running: bool) -> io::Result<()> {
        let text: String = names.iter().map(|name| path(name) + "\n").collect();
        let running = if running { "running" } else { "begun" };
        run(&self.agent, &["sh", "-c", FORGET, "forget", running], &text).await?;
        Ok(())
    }
}

/// Runs a command in the machine, and returns what it printed.
pub(super) async fn run(agent: &Agent, words: &[&str], input: &str) -> io::Result<String> {
    let command = Command::argv(words.iter().copied()).stdin().timeout(STEP);
    let output = agent.output_with(&command, input.as_bytes()).await;
    let output = output.map_err(io::Error::other)?;
    if output.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// The first process of the container that is below the process `launcher`.
fn init_below(launcher: u32) -> Option<u32> {
    let mut level = vec![launcher];
    while !level.is_empty() {
        level = level.into_iter().flat_map(children).collect();
        if let Some(init) = level.iter().find(|pid| is_init(**pid)) {
            return Some(*init);
        }
    }
    None
}

/// The children of a process: of each of its threads.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let texts = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let texts: Vec<String> = texts.filter_map(Result::ok).collect();
    let numbers = texts.iter().flat_map(|text| text.split_whitespace());
    numbers.filter_map(|child| child.parse().ok()).collect()
}

/// Whether it is the first of a namespace inside the supervisor's own.
fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    numbers(&status).is_some_and(|numbers| numbers.len() == 3 && numbers[2] == "1")
}

/// A process's numbers, one for each namespace from ours on, from its /proc/PID/status.
fn numbers(status: &str) -> Option<Vec<&str>> {
    let line = status.lines().find_map(|it| it.strip_prefix("NSpid:"))?;
    Some(line.split_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        let status = "Name:\tsystemd\nNSpid:\t31112\t4\t1\n";
        assert_eq!(numbers(status), Some(vec!["31112", "4", "1"]));
        assert_eq!(numbers("Name:\tx\n"), None);
    }
}
