//! From a call to the work of a driver.

use std::path::{Path, PathBuf};

use machinist_session::protocol::ScriptKind;
use machinist_session::{DriverJob, OnFailure, Scripted};

use super::call::Call;
use super::config::Config;
use super::{machines, mistakes};
use crate::environment::{DriverEnvironment, Environment};
use crate::error::{CliError, Kind};

/// The work, or all that is wrong with what the call names.
pub fn job(call: &Call, environment: &DriverEnvironment) -> Result<DriverJob, CliError> {
    let here = &environment.common;
    let config = call
        .config
        .as_deref()
        .map(|path| Config::read(&here.here.join(path)));
    let config = config
        .transpose()
        .map_err(|error| CliError::new(Kind::Lab, error))?;
    let (vms, containers) = scripted(call, config.as_ref(), here)?;
    let script = call.test_script.clone();
    let script = script.or_else(|| {
        config
            .as_ref()
            .and_then(|config| config.test_script.clone())
    });
    let script = script.ok_or_else(|| {
        CliError::usage("there is no test script: the configuration has no test_script")
    })?;
    let script = here.here.join(script);
    readable(&script)?;
    let mut vlans = match &config {
        Some(config) => config.vlans.clone(),
        None => call.vlans.clone(),
    };
    vlans.sort_unstable();
    vlans.dedup();
    let configured = config.as_ref().and_then(Config::global_timeout);
    Ok(DriverJob {
        name: "test".to_owned(),
        vms,
        containers,
        vlans,
        test_script: script,
        cwd: here.here.clone(),
        out_dir: out_dir(call, here)?,
        state_root: environment.state_root.clone(),
        keep_state: call.keep_state,
        global_timeout: call.global_timeout.or(configured),
        // A script that fails stands still by itself, where its names are known.
        on_failure: OnFailure::Report,
        interactive: call.interactive,
        log_level: call.level,
        debug: call.debug_hook.is_some(),
        debug_hook: call.debug_hook.clone(),
        ssh_backdoor: call.ssh || config.is_some_and(|config| config.enable_ssh_backdoor),
        display: environment.display,
        warm: call.warm,
        variables: environment.variables.clone(),
    })
}

/// The machines of both kinds.
fn scripted(
    call: &Call,
    config: Option<&Config>,
    here: &Environment,
) -> Result<(Vec<Scripted>, Vec<Scripted>), CliError> {
    let of_kind = |kind, listed| match config {
        Some(config) => machines::configured(kind, config, here),
        None => machines::listed(kind, listed, here),
    };
    let vms = of_kind(ScriptKind::Vm, &call.vms);
    let containers = of_kind(ScriptKind::Container, &call.containers);
    match (vms, containers) {
        (Ok(vms), Ok(containers)) => {
            let twice = machines::twice(&vms, &containers);
            if twice.is_empty() {
                Ok((vms, containers))
            } else {
                Err(mistakes(&twice))
            }
        }
        (vms, containers) => {
            let bad = [vms.err(), containers.err()];
            let bad: Vec<String> = bad.into_iter().flatten().flatten().collect();
            Err(mistakes(&bad))
        }
    }
}

fn readable(script: &Path) -> Result<(), CliError> {
    let cannot = |error| {
        let context = format!("cannot read the test script {}", script.display());
        CliError::new(Kind::Lab, error).context(context)
    };
    std::fs::read(script).map(drop).map_err(cannot)
}

/// The output directory, without links in its path.
fn out_dir(call: &Call, here: &Environment) -> Result<PathBuf, CliError> {
    let given = call.out_dir.as_deref().unwrap_or(Path::new("."));
    let path = here.here.join(given);
    path.canonicalize().map_err(|error| {
        let context = format!("cannot find the output directory {}", path.display());
        CliError::machinery(error).context(context)
    })
}
