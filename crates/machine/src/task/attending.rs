//! The machine's task and the agent: finding it, staying with it, and asking it for the end.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Task};
use crate::agent::{self, Agent, Power};
use crate::backend::{Channel, Control};
use crate::script;

impl Task {
    /// Speaks to the agent at the other end of `channel`, on a task of its own.
    pub(super) fn connect(&mut self, channel: Channel) {
        let origin = Arc::clone(&self.origin);
        self.attend(async move { agent::connect(channel, &origin).await });
    }

    /// Speaks to the agent that `finding` finds, on a task of its own.
    pub(super) fn attend(
        &mut self,
        finding: impl Future<Output = Result<Agent, String>> + Send + 'static,
    ) {
        self.drop_agent();
        let number = self.channel;
        let tell = self.tell.clone();
        let origin = Arc::clone(&self.origin);
        let console = self.console.clone();
        let system_ready = self.system_ready;
        let task = tokio::spawn(async move {
            let agent = match finding.await {
                Ok(agent) => agent,
                Err(reason) => {
                    // A channel that closes is the first sign of many ends; the end itself, which
                    // says more, gets a moment to be seen.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    drop(tell.send(Inner::NoAgent(number, reason)));
                    return;
                }
            };
            drop(tell.send(Inner::Agent(number, agent.clone())));
            let readiness = async {
                let asked = origin.ready_by_asking();
                if system_ready
                    || asked
                        && agent::system_ready(&agent, origin.boot(), origin.start_within()).await
                {
                    drop(tell.send(Inner::Ready(number)));
                }
                std::future::pending::<()>().await;
            };
            let journal = async {
                if origin.is_container_of_script() {
                    script::journal::follow(&agent, &console, origin.start_within()).await;
                }
                std::future::pending::<()>().await;
            };
            let stands_still = tokio::select! {
                reason = agent::closed(&agent) => reason,
                () = readiness => None,
                () = journal => None,
            };
            drop(tell.send(match stands_still {
                Some(reason) => Inner::NoAgent(number, reason),
                None => Inner::AgentLost(number),
            }));
        });
        self.helper = Some(task.abort_handle());
    }

    /// Asks the machine's system to go off or to restart, through its agent; where that cannot, by
    /// the power button. A container's button is the faster way, but an init that has just begun
    /// does not hear it.
    pub(super) fn ask_power(&self, power: Power) {
        let agent = self.agent.clone();
        let button = match &self.run {
            Some(run) if power == Power::Off => Some(run.control.clone()),
            _ => None,
        };
        let press = move || {
            if let Some(button) = button {
                _ = button.send(Control::PowerButton);
            }
        };
        let by_button = !self.origin.is_vm() && self.system_ready && power == Power::Off;
        let (Some(agent), false) = (agent, by_button) else {
            return press();
        };
        let boot = self.origin.boot();
        // It ends with the channel; the state's own time limit does the rest.
        drop(tokio::spawn(async move {
            if !agent::ask_power(&agent, boot, power).await {
                press();
            }
        }));
    }
}
