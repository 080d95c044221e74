//! Containers that a start script runs.

mod running;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use machinist_sys::process::Spawn;
use tokio::sync::mpsc;

use super::ScriptSpec;
use super::stage::{NOTIFY, Stage};
use crate::backend::{Happening, Mode, Run};
use crate::console::Console;
use crate::environment::Environment;
use crate::error::LaunchError;
use crate::ground::{Ground, Laid};
use crate::leftovers;
use crate::nspawn::cgroup::Cgroup;
use crate::nspawn::notify::Notifications;
use crate::nspawn::{Launcher, inotify, search_path};
use crate::path_error::PathContext;
use crate::supervised::Supervised;
use crate::words::{self, Words};

/// The line by which a script tells where its systemd-nspawn is, up to the number.
const PID_LINE: &str = "systemd-nspawn's PID is ";

/// One machine's backend.
pub(crate) struct ScriptContainer {
    pub(crate) spec: ScriptSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
    pub(crate) words: Words,
}

impl ScriptContainer {
    pub(crate) async fn launch(self: Arc<Self>, mode: Mode) -> Result<Run, LaunchError> {
        let ground = self.ground().await?;
        self.spec.directories()?;
        leftovers::note_state(&self.environment.dir, &self.spec.state_dir)?;
        let notifications = Notifications::bind(&self.environment.dir)?;
        let cgroup = Cgroup::of_machine(&self.environment.dir, &self.spec.name)?;
        let stage = self.stage(&ground, cgroup.as_ref(), mode)?;

        let (announce, announced) = mpsc::unbounded_channel();
        let said = Words::default();
        let (mut launcher, child, readers) = self.start(announce, &said)?;
        let mut text = serde_json::to_string(&stage)
            .map_err(|error| LaunchError::Unable(format!("a path is not UTF-8: {error}")))?;
        text.push('\n');
        launcher
            .send(text.as_bytes())
            .await
            .map_err(LaunchError::HelperGone)?;

        let (control, controlled) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::unbounded_channel();
        if let Some(note) = inotify::ensure() {
            // The receiver is in our hand.
            drop(tell.send(Happening::Note(note)));
        }
        let running = running::Running::new(
            running::Parts {
                child,
                launcher,
                notifications,
                controlled,
                announced,
                tell,
                readers,
                words: self.words.clone(),
                said,
                exe: self.environment.exe.clone(),
                agent: self.environment.agent.clone(),
            },
            running::Held { cgroup, ground },
        );
        Ok(Run {
            control,
            early: VecDeque::new(),
            happenings,
            task: tokio::spawn(running.run()),
        })
    }

    async fn ground(&self) -> Result<Arc<Laid>, LaunchError> {
        let ground = self.environment.attach.ground();
        let ground = ground.unwrap_or_else(|| Ground::new(self.environment.exe.clone()));
        let laid = tokio::task::spawn_blocking(move || ground.laid()).await;
        laid.map_err(io::Error::from)
            .map_err(LaunchError::HelperGone)?
            .map_err(LaunchError::Ground)
    }

    fn stage(
        &self,
        ground: &Laid,
        cgroup: Option<&Cgroup>,
        mode: Mode,
    ) -> Result<Stage, LaunchError> {
        let here = Path::new(".");
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| LaunchError::Unable(format!("{} is not UTF-8", path.display())))
        };
        let environment = [
            // The contract: these two, and otherwise nothing.
            ("RUN_NSPAWN_ROOT_DIR", text(&self.spec.state_dir)?),
            ("RUN_NSPAWN_SHARED_DIR", text(&self.spec.shared_dir)?),
            // For scripts that do not name each of their tools by its whole path.
            (
                "PATH",
                text(Path::new(&search_path(&self.environment.search)))?,
            ),
            (
                "NOTIFY_SOCKET",
                format!("{}/notify", notify_directory(&self.spec.name)),
            ),
            // Handed on to the container's init: a console log wants no colours.
            ("TERM", "dumb".to_owned()),
            ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1".to_owned()),
        ];
        Ok(Stage {
            name: self.spec.name.clone(),
            command: self.spec.command.clone(),
            directory: here.canonicalize().path(here)?,
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            notify: self.environment.dir.clone(),
            mounts: ground.mounts_path(),
            network: ground.network_path(),
            cgroup: cgroup.map(|cgroup| cgroup.dir().to_owned()),
            may_restart: mode.may_restart,
        })
    }

    /// Starts `__script`, and reads what the script prints. All of it is the console's, as in NixOS'
    /// driver; `said` keeps what goes to the standard error.
    fn start(
        &self,
        announce: mpsc::UnboundedSender<u32>,
        said: &Words,
    ) -> Result<(Launcher, Supervised, Vec<tokio::task::JoinHandle<()>>), LaunchError> {
        let failed = |source| LaunchError::Spawn {
            program: self.environment.exe.display().to_string(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut spawn = Spawn::new(&self.environment.exe);
        spawn
            .command()
            .arg("__script")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn.start().map_err(failed)?;
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let console = self.console.clone();
            let mut lines = Lines::default();
            let reader = words::drain(OwnedFd::from(stdout), move |bytes| {
                console.feed(bytes);
                for pid in lines.feed(bytes) {
                    // A run that is over does not want to know.
                    _ = announce.send(pid);
                }
            });
            readers.push(reader.map_err(failed)?);
        }
        if let Some(stderr) = child.stderr.take() {
            let reader = words::tee(OwnedFd::from(stderr), self.console.clone(), said.clone());
            readers.push(reader.map_err(failed)?);
        }
        let child = Supervised::new(child).map_err(failed)?;
        Ok((Launcher::new(ours).map_err(failed)?, child, readers))
    }
}

/// The name by which a script finds the directory of its notification socket on the ground: a
/// socket's path may have no more than 107 bytes.
fn notify_directory(machine: &str) -> String {
    format!("{NOTIFY}/{machine}")
}

/// The lines of a script's output, looked through for what they announce.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The process ids that are announced in what is complete by now.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            // The announcement is short; of anything longer the start is enough.
            let room = 128_usize.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.partial);
                let pid = line.trim_end().strip_prefix(PID_LINE);
                found.extend(pid.and_then(|pid| pid.parse::<u32>().ok()));
                self.partial.clear();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_found_however_it_arrives() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"creating br1\nsystemd-nspawn's P").is_empty());
        assert!(lines.feed(b"ID is 12").is_empty());
        assert_eq!(lines.feed(b"34\nsystemd-nspawn's PID is x\n"), [1234]);
        let mut long = vec![b'x'; 4096];
        long.push(b'\n');
        assert!(lines.feed(&long).is_empty());
        assert_eq!(lines.feed(b"systemd-nspawn's PID is 7\r\n"), [7]);
    }
}
