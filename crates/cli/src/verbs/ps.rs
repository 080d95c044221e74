//! `machinist ps`

use std::path::PathBuf;

use clap::Args;
use machinist_session::protocol::{MachineStatus, Status, Verb};
use serde::Serialize;

use super::{Format, FormatArgs, block_on};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::{sessions, table, ui};

/// List live sessions and their machines
#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Session {
    session: String,
    socket: PathBuf,
    pid: u32,
    started: f64,
    lab: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<String>,
    paused: bool,
    machines: Vec<MachineStatus>,
}

impl Ps {
    /// Lists them.
    pub fn run(self, environment: &Environment) -> Outcome {
        block_on(async {
            let sessions = ask_all(environment).await?;
            match self.format.format {
                Format::Json => ui::json(&sessions),
                Format::Text => show(&sessions),
            }
            Ok(Exit::Passed)
        })
    }
}

async fn ask_all(environment: &Environment) -> Result<Vec<Session>, crate::CliError> {
    let mut answers = Vec::new();
    for found in sessions::all(environment)? {
        // A session that ends while we ask is not live any more.
        let Ok(mut client) = sessions::connect(&found).await else {
            continue;
        };
        let Ok(status) = client.call::<Status>(Verb::Status, |_| {}).await else {
            continue;
        };
        answers.push(Session {
            session: status.session,
            socket: found.socket.clone(),
            pid: found.card.pid,
            started: found.card.started,
            lab: found.card.lab,
            test: status.test,
            paused: status.paused,
            machines: status.machines,
        });
    }
    Ok(answers)
}

/// Its published ports, as the lab file and the command line write them.
fn published(machine: &MachineStatus) -> String {
    let ports: Vec<_> = machine
        .published
        .iter()
        .map(|port| format!("{}:{}", port.host, port.guest))
        .collect();
    ports.join(" ")
}

fn show(sessions: &[Session]) {
    let mut rows = Vec::new();
    for session in sessions {
        let test = match (&session.test, session.paused) {
            (Some(test), true) => format!("{test} (paused)"),
            (Some(test), false) => test.clone(),
            (None, _) => String::new(),
        };
        for machine in &session.machines {
            rows.push([
                session.session.clone(),
                machine.name.clone(),
                machine.kind.clone(),
                machine.state.clone(),
                machine.addresses.first().cloned().unwrap_or_default(),
                published(machine),
                test.clone(),
            ]);
        }
        if session.machines.is_empty() {
            let empty = String::new;
            rows.push([
                session.session.clone(),
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                test,
            ]);
        }
    }
    let head = [
        "SESSION",
        "MACHINE",
        "KIND",
        "STATE",
        "ADDRESS",
        "PUBLISHED",
        "TEST",
    ];
    ui::data(table::table(head, &rows));
}
