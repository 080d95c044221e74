//! The moment in which a machine that boots is ready to be saved.

use std::time::Duration;

use machinist_guest::systemd::Manager;
use machinist_guest::{Agent, Command, Settled};
use tokio::time::Instant;

use crate::backend::Channel;
use crate::error::chain;

/// How long a system may take to finish its start, from when its agent answers. One that waits for
/// something that only the test does would never, and the test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of waiting.
pub(in super::super) enum Ripe {
    /// It is quiet, and can be saved now.
    Now(Agent, Settled),
    /// It will not be saved, for this reason.
    Never(String),
}

/// Waits at the other end of `channel` until the machine's system has finished its start, and makes
/// it quiet.
pub(in super::super) async fn ripen(channel: Channel, within: Duration) -> Ripe {
    match settled(channel, within).await {
        Ok((agent, settled)) => Ripe::Now(agent, settled),
        Err(reason) => Ripe::Never(reason),
    }
}

async fn settled(channel: Channel, within: Duration) -> Result<(Agent, Settled), String> {
    let agent = Agent::connect(channel, within).await;
    let agent = agent.map_err(|error| chain(&error))?;
    if agent.info().plain {
        return Err("there is no agent in it but its shell".to_owned());
    }
    let early = Command::argv(["test", "-e", "/etc/initrd-release"]);
    let early = agent.output(&early).await;
    if early.map_err(|error| chain(&error))?.success() {
        return Err("its shell is in its initrd".to_owned());
    }
    let deadline = Instant::now() + PATIENCE;
    let manager = Manager::connect(&agent, None, deadline).await;
    let manager = manager.map_err(|error| chain(&error))?;
    // Degraded is finished, too: what failed is the test's business.
    if manager.wait_ready(deadline).await.is_err() {
        let seconds = PATIENCE.as_secs();
        return Err(format!(
            "its system has not finished its start {seconds} s after its shell was there"
        ));
    }
    let settled = agent.settle("").await.map_err(|error| chain(&error))?;
    Ok((agent, settled))
}
