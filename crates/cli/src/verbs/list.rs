//! `machinist list`

use clap::Args;
use serde::Serialize;

use super::test::Filters;
use super::{Format, FormatArgs};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::lab_file::LabArgs;
use crate::{table, ui};

/// List the tests of the lab file
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Row {
    name: String,
    tags: Vec<String>,
    machines: Vec<String>,
    timeout: f64,
}

impl List {
    /// Lists them. None at all is no error here: that is what a list can say.
    pub fn run(self, environment: &Environment) -> Outcome {
        let lab = self.lab.load(environment)?;
        let tests = self.filters.apply(&lab.lab.tests);
        let rows: Vec<Row> = tests
            .iter()
            .map(|test| Row {
                name: test.name.clone(),
                tags: test.tags.clone(),
                machines: test.machines.iter().map(ToString::to_string).collect(),
                timeout: test.timeout.as_secs_f64(),
            })
            .collect();
        match self.format.format {
            Format::Json => ui::json(&rows),
            Format::Text => {
                let cells: Vec<[String; 3]> = rows
                    .into_iter()
                    .map(|row| [row.name, row.machines.join(","), row.tags.join(",")])
                    .collect();
                ui::data(table::table(["TEST", "MACHINES", "TAGS"], &cells));
            }
        }
        Ok(Exit::Passed)
    }
}
