//! `--debug-hook-attach COMMAND`: NixOS's command finds a test that stands still by a process
//! `sleep NUMBER`, and enters what that one is in. So there is one, as long as the test stands still.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use machinist_events::{Event, What};
use machinist_sys::process::{self, Child};

use crate::environment::Environment;

/// Has such a process while a test stands still.
#[derive(Debug)]
pub struct Breakpoint {
    command: Option<String>,
    sleep: Option<PathBuf>,
    bash: Option<PathBuf>,
    running: Option<Child>,
}

impl Breakpoint {
    /// For `command`, if there is one.
    pub fn new(command: Option<String>, environment: &Environment) -> Self {
        Self {
            command,
            sleep: environment.find_program("sleep"),
            bash: environment.find_program("bash"),
            running: None,
        }
    }

    /// Starts it, ends it; what is to be said about it.
    pub fn event(&mut self, event: &Event) -> Option<String> {
        match &event.what {
            What::TestPaused { .. } => {
                let number = number(event.time);
                self.start(&number)?;
                let command = self.command.as_ref()?;
                Some(format!("Breakpoint reached, run 'sudo {command} {number}'"))
            }
            What::TestResumed | What::TestFinished { .. } => {
                self.end();
                None
            }
            _ => None,
        }
    }

    /// Ends it.
    pub fn end(&mut self) {
        if let Some(mut child) = self.running.take() {
            // It has nothing to tidy up.
            drop(child.kill_group());
            drop(child.wait());
        }
    }

    fn start(&mut self, number: &str) -> Option<()> {
        self.command.as_ref()?;
        let mut command = Command::new(self.sleep.as_ref()?);
        command
            .arg(number)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(bash) = &self.bash {
            // NixOS's command starts it.
            command.env("bashInteractive", bash);
        }
        self.end();
        self.running = Some(process::spawn(command).ok()?);
        Some(())
    }
}

/// Seven digits that no other test on this host has by accident.
fn number(time: f64) -> String {
    let micros = (time.fract() * 1e6).abs() as u64;
    format!(
        "{}",
        1_000_000 + (micros * 9 + u64::from(std::process::id())) % 9_000_000
    )
}
