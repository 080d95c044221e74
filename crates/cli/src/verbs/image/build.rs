//! `machinist image build`

use std::sync::Arc;

use clap::Args;
use machinist_lab::Source;
use machinist_session::{Brief, Cancel, Engine, Session};

use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::interrupt::Signals;
use crate::lab_file::LabArgs;
use crate::parse;
use crate::progress::Boot;
use crate::ui;
use crate::verbs::block_on;
use crate::verbs::one_machine::{KindArg, one_machine};

/// Build an image, or all images of the lab file, unless they are in the cache
#[derive(Debug, Args)]
pub struct Build {
    /// The image: `debian:SUITE`, `host`, `dir:PATH` or `tar:PATH`; else those of the lab file
    #[arg(conflicts_with = "file", value_parser = parse::lab_value::<Source>)]
    source: Option<Source>,
    /// A package to add to a debian image; may be given several times
    #[arg(short, long = "package", value_name = "NAME", requires = "source")]
    packages: Vec<String>,
    /// What it is to boot as: a VM needs a kernel and a disk, too
    #[arg(short, long, value_enum, default_value_t, requires = "source")]
    kind: KindArg,
    #[command(flatten)]
    lab: LabArgs,
}

impl Build {
    /// Builds.
    pub fn run(self, environment: &Environment) -> Outcome {
        environment.cache.check()?;
        let brief = match self.source {
            Some(source) => {
                let lab = Arc::new(one_machine(source, self.packages, self.kind)?);
                Brief::new(lab, "(command line)".into(), environment.here.clone())
            }
            None => {
                let file = self.lab.load(environment)?;
                Brief::new(file.lab, file.file, file.base)
            }
        };
        block_on(build(environment, brief))
    }
}

/// Builds as a session does it, without starting a machine.
async fn build(environment: &Environment, brief: Brief) -> Outcome {
    let mut signals = Signals::listen()?;
    let boot = Boot::begin();
    let accel = machinist_session::Accel::Auto;
    let engine = Engine::open(environment.settings(accel), boot.sink()).await?;
    let session = Session::open(&engine, brief).await?;
    let prepared = tokio::select! {
        prepared = session.prepare() => prepared.map(|()| Exit::Passed).map_err(CliError::from),
        _ = signals.next() => Ok(Exit::Interrupted),
    };
    boot.finish();
    let closed = session.close(&Cancel::new()).await;
    if matches!(prepared, Ok(Exit::Passed)) {
        closed.map_err(CliError::machinery)?;
        ui::status("everything is in the cache");
    }
    prepared
}
