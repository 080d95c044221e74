//! Looking at a machine and typing to it, beside its agent.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{MachineError, chain};
use crate::machine::Machine;
use crate::picture;
use crate::qemu::qmp::{Qmp, QmpError};
use crate::reach::Reach;
use crate::script::ScriptKind;
use crate::spec::Kind;

impl Machine {
    /// Its process on the host, while it runs: QEMU, or a container's script.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.reach().borrow().pid
    }

    /// The process that it runs in, for a person to see: as [`Machine::pid`], and of a container of
    /// ours that which started systemd-nspawn, and ends with it.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        let reach = self.reach().borrow().clone();
        let launcher = reach.footing.as_ref().map(|footing| footing.launcher);
        reach.pid.or(launcher)
    }

    /// The init of a script's container, as a process of the host, while it runs.
    #[must_use]
    pub fn leader(&self) -> Option<u32> {
        self.reach().borrow().leader
    }

    /// QEMU's control socket. Waits for it while the machine starts.
    ///
    /// # Errors
    /// The machine is off, or not run by QEMU.
    pub async fn qmp(&self) -> Result<Qmp, MachineError> {
        let mut reach = self.reach();
        let mut status = self.status();
        let has = |reach: &Reach| reach.running;
        let reach = tokio::select! {
            biased;
            reach = reach.wait_for(has) => reach.map_err(|_| self.gone())?.clone(),
            over = status.wait_for(|status| status.state.is_over()) => {
                return match over {
                    Ok(status) => Err(self.trouble(&status)),
                    Err(_) => Err(self.gone()),
                };
            }
        };
        reach
            .qmp
            .ok_or_else(|| self.unable("it has no QEMU that could be asked"))
    }

    /// Gives a command to QEMU's human monitor, and returns what that printed.
    ///
    /// # Errors
    /// As [`Machine::qmp`].
    pub async fn monitor(&self, command: &str) -> Result<String, MachineError> {
        let arguments = json!({"command-line": command});
        let answer = self.command("human-monitor-command", &arguments).await;
        match answer {
            Ok(Value::String(text)) => Ok(text),
            Ok(other) => Ok(other.to_string()),
            // QEMU ended before it could answer: what else could it say to that?
            Err(MachineError::Qmp {
                why: QmpError::Closed,
                ..
            }) if matches!(command.trim(), "quit" | "q") => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// What is on its first screen, as PNG: that of QEMU, or else that of the X server with
    /// the lowest display, which is asked through the agent.
    ///
    /// # Errors
    /// It has no screen; or it does not run.
    pub async fn screenshot(&self) -> Result<Vec<u8>, MachineError> {
        let ppm = match self.screen_of_qemu().await? {
            Some(ppm) => ppm,
            None => {
                let agent = self.agent()?;
                let picture = crate::x11::picture(&agent).await;
                let picture = picture.map_err(|error| self.unable(chain(&error)))?;
                picture.ppm()
            }
        };
        let picture = tokio::task::spawn_blocking(move || picture::png_of_ppm(&ppm));
        match picture.await {
            Ok(picture) => picture.ok_or_else(|| self.unable("its picture makes no sense")),
            Err(_) => Err(self.gone()),
        }
    }

    fn is_vm(&self) -> bool {
        let by_lab = self.spec().map(|spec| matches!(spec.kind, Kind::Vm { .. }));
        let by_script = self.script().map(|script| script.kind == ScriptKind::Vm);
        by_lab.or(by_script).unwrap_or(false)
    }

    /// The picture on QEMU's first screen; `None` where there is no QEMU, or it has no screen.
    async fn screen_of_qemu(&self) -> Result<Option<Vec<u8>>, MachineError> {
        if !self.is_vm() {
            return Ok(None);
        }
        // QEMU writes files only. Not every QEMU can write PNG.
        let dir = tempfile::tempdir().map_err(|error| self.unable(error))?;
        let file = dir.path().join("screen.ppm");
        let taken = self.command("screendump", &json!({"filename": file})).await;
        match taken {
            Ok(_) => {}
            Err(MachineError::Qmp {
                why: QmpError::Refused { text, .. },
                ..
            }) if text.contains("no console") => return Ok(None),
            Err(error) => return Err(error),
        }
        let read = tokio::task::spawn_blocking(move || {
            let ppm = std::fs::read(&file);
            drop(dir);
            ppm
        });
        match read.await {
            Ok(ppm) => ppm.map(Some).map_err(|error| self.unable(error)),
            Err(_) => Err(self.gone()),
        }
    }

    /// Types `bytes` on its serial console.
    ///
    /// # Errors
    /// It is off, or its console cannot be typed on.
    pub async fn console_send(&self, bytes: &[u8]) -> Result<(), MachineError> {
        let reach = self.reach().borrow().clone();
        if !reach.running {
            return Err(self.trouble(&self.status().borrow()));
        }
        let console = reach
            .console
            .ok_or_else(|| self.unable("its console cannot be typed on"))?;
        let sent = console.send(bytes).await;
        sent.map_err(|error| self.unable(format!("cannot type on its console: {error}")))
    }

    /// Leaves the initrd: waits for systemd's `initrd.target`, asks it to switch to the real root,
    /// and waits until the agent answers from there.
    ///
    /// # Errors
    /// The machine does not answer before or after that within `within`.
    pub async fn switch_root(&self, within: Duration) -> Result<(), MachineError> {
        crate::script::switch_root(self, within).await
    }

    /// Executes a command of QEMU's control socket.
    async fn command(&self, name: &str, arguments: &Value) -> Result<Value, MachineError> {
        let qmp = self.qmp().await?;
        let answer = qmp.execute(name, arguments).await;
        answer.map_err(|why| MachineError::Qmp {
            machine: self.name().to_owned(),
            why,
        })
    }

    pub(crate) fn unable(&self, why: impl std::fmt::Display) -> MachineError {
        MachineError::Unable {
            machine: self.name().to_owned(),
            why: why.to_string(),
        }
    }
}
