//! The life cycle of a machine, as a state machine that does nothing itself.
//!
//! [`Lifecycle::handle`] takes what was asked or seen, moves, and says what is to be done. One task
//! owns it and does the doing (see `task.rs`), so every race is decided here, where it can be tested
//! without a machine.
//!
//! ```text
//!                 Start                      AgentUp                 SystemReady
//!   Off ───────────────────────▶ Starting ────────────▶ Up ─────────────────────▶ Ready
//!    ▲ ▲                          │ ▲  │                 │                          │
//!    │ │     Unfit: once more,    └─┘  │                 ├──────────────┬───────────┘
//!    │ │     without acceleration      │                 │              │
//!    │ │                               │        Reboot,  │              │ AgentLost
//!    │ │                               │      GuestReset ▼              ▼
//!    │ │                               │ AgentUp ◀── Rebooting ◀───── Silent ──▶ AgentUp
//!    │ │                               │                 │  GuestReset  │
//!    │ │                               │ Shutdown,       │              │
//!    │ │            Ended              │ PowerOff        │              │
//!    │ └─────────────────── Stopping ◀─┴─────────────────┴──────────────┤
//!    │                       (Expired: kill)                            │
//!    │                                                                  │ Ended: by itself
//!    └──────────────────────────────────────────────────────────────────┘
//!
//!   From every state but Off:  Panicked, Broken, Expired, Ended by a fault ──▶ Failed
//!   (Stopping forgives all of these but a panic: the machine was to go off, and it is off.)
//!   From Off and Failed:       Start ──▶ Starting
//!   From every state:          Restore ──▶ Starting (with what was saved in the place of a boot)
//! ```
//!
//! | state    | a backend runs | the agent answers |
//! |----------|----------------|-------------------|
//! | Off      | no             | no                |
//! | Starting | yes            | not yet           |
//! | Up       | yes            | yes; the machine's own system is still starting |
//! | Ready    | yes            | yes               |
//! | Silent   | yes            | no: the machine is about to go off or to restart, or its agent died |
//! | Rebooting| yes            | not yet again     |
//! | Stopping | yes            | perhaps           |
//! | Failed   | no, or not for long | no           |

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Off,
    /// A backend runs, the agent has not answered yet.
    Starting,
    /// The agent answers. The machine's own system may still be starting.
    Up,
    /// The agent answers, and the machine's own system says that its start has finished.
    Ready,
    /// The agent's channel closed: the machine goes off or restarts, or its agent died.
    Silent,
    /// The machine restarts, under the same backend.
    Rebooting,
    /// The machine is to go off.
    Stopping,
    /// The machine died, or could not be started.
    Failed {
        /// What was seen, one sentence.
        reason: String,
    },
}

impl State {
    /// Whether the agent answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        matches!(self, Self::Up | Self::Ready)
    }

    /// Whether nothing is to come by itself any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Off | Self::Failed { .. })
    }
}

/// How the backend's part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The machine switched itself off.
    ByItself,
    /// We killed it.
    Killed,
    /// Somebody else killed what ran it, as one sentence: the kernel for want of memory, or a person.
    KilledByOthers(String),
    /// Anything else, as one sentence.
    Fault(String),
}

/// What was asked of a machine, or seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Asked: start.
    Start,
    /// Asked: go off in order.
    Shutdown,
    /// Asked: go off, as by a pulled plug.
    PowerOff,
    /// Asked: restart in order.
    Reboot,
    /// Asked: go back to what was saved.
    Restore {
        /// The machine's own system had finished its start then.
        ready: bool,
    },
    /// Seen: the agent answers, and the machine has its identity.
    AgentUp,
    /// Seen: the machine's own system has finished its start.
    SystemReady,
    /// Seen: the agent's channel closed.
    AgentLost,
    /// Seen: the machine restarts, under the same backend.
    GuestReset,
    /// Seen: the accelerator cannot run this machine.
    Unfit(String),
    /// Seen: the kernel gave up.
    Panicked(String),
    /// Seen: something that makes going on pointless, such as an agent that speaks nonsense.
    Broken(String),
    /// Seen: the backend ended.
    Ended(Ending),
    /// The time for the present state is up.
    Expired,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the backend. A former one that still runs is killed and waited for first.
    Launch {
        /// Without hardware virtualization, whatever the machine asks for.
        plain: bool,
    },
    /// Ask the machine to go off.
    AskToStop,
    /// Ask the machine to restart.
    AskToReboot,
    /// Forget the agent: what it spoke to is gone.
    DropAgent,
    /// Kill the backend; [`Event::Ended`] follows.
    Kill,
}

/// Why something that was asked is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It must run for that.
    #[error("the machine is not running")]
    NotRunning,
    /// It is about to go off, or restarts.
    #[error("the machine is about to stop or to restart")]
    Leaving,
}

/// What [`Lifecycle::handle`] decided.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do these, in order.
    Do(Vec<Effect>),
    /// It was asked for in vain.
    Refuse(Refused),
}

impl Decision {
    fn nothing() -> Self {
        Self::Do(Vec::new())
    }

    fn one(effect: Effect) -> Self {
        Self::Do(vec![effect])
    }
}

/// A machine's place in its life, and what it must remember of the way there.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    state: State,
    /// Without hardware virtualization since this start: there is no second fallback.
    plain: bool,
    /// The system was ready before its agent answered.
    ready_early: bool,
    /// A machine that goes off before its agent answered has not failed.
    may_end_early: bool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Lifecycle {
    /// A machine that is off. `may_end_early`: one that goes off by itself before its agent
    /// answered has not failed.
    #[must_use]
    pub fn new(may_end_early: bool) -> Self {
        Self {
            state: State::Off,
            plain: false,
            ready_early: false,
            may_end_early,
        }
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether it starts, or was started last, without hardware virtualization whatever it asks for.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Moves, and says what is to be done.
    pub fn handle(&mut self, event: Event) -> Decision {
        if let Event::Restore { ready } = event {
            // What the machine does now is of no interest any more.
            self.enter_start();
            self.ready_early = ready;
            let plain = self.plain;
            return Decision::one(Effect::Launch { plain });
        }
        match self.state.clone() {
            State::Off | State::Failed { .. } => self.while_over(&event),
            State::Starting => self.while_starting(event),
            State::Up | State::Ready => self.while_up(event),
            State::Silent => self.while_silent(event),
            State::Rebooting => self.while_rebooting(event),
            State::Stopping => self.while_stopping(event),
        }
    }

    fn while_over(&mut self, event: &Event) -> Decision {
        match event {
            Event::Start => {
                self.plain = false;
                self.enter_start();
                Decision::one(Effect::Launch { plain: false })
            }
            // It is off: that was the wish.
            Event::Shutdown | Event::PowerOff => Decision::nothing(),
            Event::Reboot => Decision::Refuse(Refused::NotRunning),
            // Of a backend that is on its way out.
            Event::AgentUp
            | Event::SystemReady
            | Event::AgentLost
            | Event::GuestReset
            | Event::Unfit(_)
            | Event::Panicked(_)
            | Event::Broken(_)
            | Event::Ended(_)
            | Event::Expired
            | Event::Restore { .. } => Decision::nothing(),
        }
    }

    fn while_starting(&mut self, event: Event) -> Decision {
        match event {
            // Whoever asks twice waits for the same thing.
            Event::Start | Event::Restore { .. } => Decision::nothing(),
            Event::Shutdown => self.stop(Effect::AskToStop),
            Event::PowerOff => self.stop(Effect::Kill),
            Event::Reboot => Decision::Refuse(Refused::NotRunning),
            Event::AgentUp => self.answer(),
            Event::SystemReady => {
                self.ready_early = true;
                Decision::nothing()
            }
            Event::AgentLost | Event::GuestReset => {
                self.ready_early = false;
                Decision::one(Effect::DropAgent)
            }
            Event::Unfit(reason) if self.plain => self.fail(reason),
            Event::Unfit(_) => {
                self.plain = true;
                self.enter_start();
                Decision::one(Effect::Launch { plain: true })
            }
            Event::Panicked(reason) | Event::Broken(reason) => self.fail(reason),
            Event::Ended(Ending::ByItself) if self.may_end_early => {
                self.state = State::Off;
                Decision::one(Effect::DropAgent)
            }
            Event::Ended(ending) => {
                self.ended(ending, "it went off before its agent answered");
                Decision::nothing()
            }
            Event::Expired => self.fail("its agent did not answer in time".into()),
        }
    }

    fn while_up(&mut self, event: Event) -> Decision {
        match event {
            Event::Start | Event::AgentUp | Event::Expired | Event::Restore { .. } => {
                Decision::nothing()
            }
            Event::Shutdown => self.stop(Effect::AskToStop),
            Event::PowerOff => self.stop(Effect::Kill),
            Event::Reboot => self.restart(Effect::AskToReboot),
            Event::GuestReset => self.restart(Effect::DropAgent),
            Event::SystemReady => {
                self.state = State::Ready;
                Decision::nothing()
            }
            Event::AgentLost => {
                self.state = State::Silent;
                Decision::one(Effect::DropAgent)
            }
            Event::Unfit(reason) | Event::Panicked(reason) | Event::Broken(reason) => {
                self.fail(reason)
            }
            Event::Ended(ending) => self.gone(ending),
        }
    }

    fn while_silent(&mut self, event: Event) -> Decision {
        match event {
            Event::Start | Event::Reboot => Decision::Refuse(Refused::Leaving),
            Event::Shutdown => self.stop(Effect::AskToStop),
            Event::PowerOff => self.stop(Effect::Kill),
            Event::AgentUp => self.answer(),
            Event::SystemReady | Event::AgentLost | Event::Restore { .. } => Decision::nothing(),
            Event::GuestReset => self.restart(Effect::DropAgent),
            Event::Unfit(reason) | Event::Panicked(reason) | Event::Broken(reason) => {
                self.fail(reason)
            }
            Event::Ended(ending) => self.gone(ending),
            Event::Expired => self.fail("its agent is gone, and the machine is not".into()),
        }
    }

    fn while_rebooting(&mut self, event: Event) -> Decision {
        match event {
            Event::Start | Event::Reboot => Decision::Refuse(Refused::Leaving),
            Event::Shutdown => self.stop(Effect::AskToStop),
            Event::PowerOff => self.stop(Effect::Kill),
            Event::AgentUp => self.answer(),
            Event::Restore { .. } => Decision::nothing(),
            Event::SystemReady => {
                self.ready_early = true;
                Decision::nothing()
            }
            Event::AgentLost | Event::GuestReset => {
                self.ready_early = false;
                Decision::one(Effect::DropAgent)
            }
            Event::Unfit(reason) | Event::Panicked(reason) | Event::Broken(reason) => {
                self.fail(reason)
            }
            Event::Ended(ending) => self.gone(ending),
            Event::Expired => self.fail("it did not come back from its restart in time".into()),
        }
    }

    fn while_stopping(&mut self, event: Event) -> Decision {
        match event {
            Event::Start | Event::Reboot => Decision::Refuse(Refused::Leaving),
            Event::Shutdown
            | Event::AgentUp
            | Event::SystemReady
            | Event::AgentLost
            | Event::GuestReset
            | Event::Restore { .. } => Decision::nothing(),
            Event::PowerOff | Event::Expired | Event::Unfit(_) | Event::Broken(_) => {
                Decision::one(Effect::Kill)
            }
            Event::Panicked(reason) => self.fail(reason),
            Event::Ended(_) => {
                self.state = State::Off;
                Decision::one(Effect::DropAgent)
            }
        }
    }

    fn enter_start(&mut self) {
        self.ready_early = false;
        self.state = State::Starting;
    }

    fn answer(&mut self) -> Decision {
        self.state = if self.ready_early {
            State::Ready
        } else {
            State::Up
        };
        self.ready_early = false;
        Decision::nothing()
    }

    fn stop(&mut self, how: Effect) -> Decision {
        self.state = State::Stopping;
        Decision::one(how)
    }

    fn restart(&mut self, how: Effect) -> Decision {
        self.ready_early = false;
        self.state = State::Rebooting;
        Decision::one(how)
    }

    fn fail(&mut self, reason: String) -> Decision {
        self.state = State::Failed { reason };
        Decision::Do(vec![Effect::DropAgent, Effect::Kill])
    }

    /// The backend ended while the machine was up.
    fn gone(&mut self, ending: Ending) -> Decision {
        match ending {
            Ending::ByItself => self.state = State::Off,
            other => self.ended(other, ""),
        }
        Decision::one(Effect::DropAgent)
    }

    /// The backend ended, and that is a failure; `by_itself` says why a clean end is one.
    fn ended(&mut self, ending: Ending, by_itself: &str) {
        let reason = match ending {
            Ending::ByItself => by_itself.to_owned(),
            Ending::Killed => "it was killed".to_owned(),
            Ending::KilledByOthers(reason) | Ending::Fault(reason) => reason,
        };
        self.state = State::Failed { reason };
    }
}

#[cfg(test)]
mod tests;
