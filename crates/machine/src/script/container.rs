//! Containers that a start script runs.

use std::sync::Arc;

use super::ScriptSpec;
use crate::backend::{Mode, Run};
use crate::console::Console;
use crate::environment::Environment;
use crate::error::LaunchError;

/// One machine's backend.
#[expect(dead_code, reason = "the launch is still to be written")]
pub(crate) struct ScriptContainer {
    pub(crate) spec: ScriptSpec,
    pub(crate) environment: Environment,
    pub(crate) console: Console,
}

impl ScriptContainer {
    pub(crate) async fn launch(self: Arc<Self>, _mode: Mode) -> Result<Run, LaunchError> {
        Err(LaunchError::Unable(
            "start scripts of containers are not supported yet".to_owned(),
        ))
    }
}
