//! Whether the agent is still there, where somebody waits for it.
//!
//! A machine may stand still without a word: its agent is stopped, or its kernel. Whoever waits for
//! a command without a limit, or for a copy, would wait for ever.

use std::time::Duration;

use crate::error::ChannelError;
use crate::link::Shared;

/// How long an agent may say nothing before it is asked for a sign of life, and how long it then has
/// to give one. Long: machines are starved on a busy host, and emulated ones are slow anyway.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Gives the channel up when its agent gives no sign of life while something is open on it.
pub(crate) async fn watch(shared: &Shared, patience: Duration) {
    let mut asked = None;
    let mut before = None;
    loop {
        tokio::time::sleep(patience).await;
        let mut state = shared.lock();
        let signs = state.signs();
        // One that says nothing is waited for only where it has been asked something.
        let waiting = before == Some(signs) && state.is_waited_for();
        before = Some(signs);
        asked = match asked {
            _ if !waiting => None,
            None => {
                state.ask_for_sign(signs);
                Some(signs)
            }
            Some(_) => {
                state.die(ChannelError::Silent { within: patience });
                return;
            }
        };
    }
}
