//! The lab file as a whole: what is accepted, what is refused, and how that looks.

mod accepted;
mod refused;
mod schema;

use crate::{Lab, LabErrors};

/// Every key that there is.
const EVERYTHING: &str = include_str!("everything.toml");

fn wrong(text: &str) -> LabErrors {
    Lab::parse_toml(text, "lab.toml").expect_err("this should be refused")
}

/// As the command line draws it without colours.
fn drawn(errors: &LabErrors) -> String {
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    let mut text = String::new();
    handler.render_report(&mut text, errors).unwrap();
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
