//! Everything that a developer or CI runs: `cargo xtask setup|demo|test|macos|nix-sandbox|bench|generate`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: what it has to say goes to the terminal"
)]

mod bench;
mod command;
mod demo;
mod generate;
mod macos;
mod nix_sandbox;
mod setup;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// What a developer or CI runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Install the system packages that machinist needs, unless they are there.
    Setup {
        /// Also what only `cargo xtask bench` needs.
        #[arg(long)]
        bench: bool,
    },
    /// Install what is needed, build, and run the quickstart.
    Demo,
    /// Run every check, or only the named stages.
    Test {
        /// Stages to run; all of them when none is named.
        #[arg(value_enum)]
        stages: Vec<test::Stage>,
    },
    /// Check the types of what runs on a Mac. Not a part of `test`: it needs that target's standard
    /// library (`rustup target add aarch64-apple-darwin`).
    Macos,
    /// Run a command in the sandbox of a real Nix, as root of 65536 ids, to see what tests see.
    NixSandbox {
        /// The command; `/guest/root.tar` is a Debian, `/machinist` has our program. One word is a
        /// script for bash.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Measure machinist against what it is built on, and write docs/benchmarks.md.
    Bench {
        /// Only rows whose name contains one of these.
        filters: Vec<String>,
        /// How often each side of a row is measured.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Measure this machinist, in the place of a release build of these sources.
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
    },
    /// Write the generated files anew: docs/cli.md and the lab file's schema.
    Generate,
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    command::enter_workspace()?;
    match task {
        Task::Setup { bench } => setup::run(bench).map(|()| ExitCode::SUCCESS),
        Task::Demo => demo::run(),
        Task::Test { stages } => test::run(&stages),
        Task::Macos => macos::check().map(|()| ExitCode::SUCCESS),
        Task::Bench {
            filters,
            runs,
            program,
        } => bench::run(&filters, runs, program),
        Task::NixSandbox { command } => nix_sandbox::run(&command),
        Task::Generate => generate::write().map(|()| ExitCode::SUCCESS),
    }
}
