//! Who uses a builder's machine, and what follows: when it is started, and when it stops. It does
//! nothing itself.
//!
//! ```text
//!           arrive                 started
//!   Off ─────────────▶ Starting ─────────────▶ Up ◀─┐ arrive, leave
//!    ▲ ▲                  │                     │ └─┘
//!    │ └── start_failed ──┘                     │ nobody there for long enough; stop; died
//!    │                    ▲                     ▼
//!    │                    └─────────────── Stopping
//!    │                     stopped, and      │
//!    └───── stopped ──── somebody waits ─────┘
//! ```

use std::time::{Duration, Instant};

use crate::protocol::MachineState;

/// What is to be done.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    /// Nothing; whoever arrived waits.
    Nothing,
    /// Let in who arrived, or all who wait.
    Admit,
    /// Start the machine.
    Start,
    /// Stop the machine.
    Stop,
}

/// A stop that was asked for and is not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InUse(pub(super) usize);

#[derive(Debug)]
pub(super) struct Occupancy {
    machine: MachineState,
    /// Let in, and not left.
    sessions: usize,
    waiting: usize,
    timeout: Option<Duration>,
    /// Since when nobody has been there.
    quiet: Option<Instant>,
}

impl Occupancy {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            machine: MachineState::Off,
            sessions: 0,
            waiting: 0,
            timeout,
            quiet: None,
        }
    }

    pub(super) fn machine(&self) -> MachineState {
        self.machine
    }

    /// All who are there or wait.
    pub(super) fn sessions(&self) -> usize {
        self.sessions + self.waiting
    }

    pub(super) fn arrive(&mut self) -> Do {
        match self.machine {
            MachineState::Up => {
                self.sessions += 1;
                self.quiet = None;
                Do::Admit
            }
            MachineState::Off => {
                self.waiting += 1;
                self.machine = MachineState::Starting;
                Do::Start
            }
            MachineState::Starting | MachineState::Stopping => {
                self.waiting += 1;
                Do::Nothing
            }
        }
    }

    /// One who waited has gone.
    pub(super) fn give_up(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.sessions = self.sessions.saturating_sub(1);
        self.rest(now);
    }

    pub(super) fn started(&mut self, now: Instant) -> Do {
        self.machine = MachineState::Up;
        self.sessions += self.waiting;
        self.waiting = 0;
        self.rest(now);
        Do::Admit
    }

    /// All who waited are told.
    pub(super) fn start_failed(&mut self) {
        self.machine = MachineState::Off;
        self.waiting = 0;
    }

    /// The machine is gone by itself; what is left of it is to be cleared away.
    pub(super) fn died(&mut self) -> Do {
        if self.machine != MachineState::Up {
            return Do::Nothing;
        }
        self.stop_now()
    }

    /// Somebody wants it to stop.
    pub(super) fn stop(&mut self, force: bool) -> Result<Do, InUse> {
        match self.machine {
            MachineState::Off | MachineState::Stopping => Ok(Do::Nothing),
            MachineState::Starting | MachineState::Up if self.sessions() > 0 && !force => {
                Err(InUse(self.sessions()))
            }
            MachineState::Starting | MachineState::Up => Ok(self.stop_now()),
        }
    }

    pub(super) fn stopped(&mut self) -> Do {
        if self.waiting > 0 {
            self.machine = MachineState::Starting;
            return Do::Start;
        }
        self.machine = MachineState::Off;
        Do::Nothing
    }

    /// When the machine is to be stopped, if nobody arrives before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.quiet?.checked_add(self.timeout?)
    }

    /// It may be due.
    pub(super) fn expire(&mut self, now: Instant) -> Do {
        if self.due().is_some_and(|due| due <= now) {
            return self.stop_now();
        }
        Do::Nothing
    }

    fn rest(&mut self, now: Instant) {
        if self.sessions == 0 && self.machine == MachineState::Up {
            self.quiet = Some(now);
        }
    }

    fn stop_now(&mut self) -> Do {
        self.machine = MachineState::Stopping;
        self.quiet = None;
        Do::Stop
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_starts_it_and_the_last_lets_it_stop() {
        let now = Instant::now();
        let mut it = Occupancy::new(Some(MINUTE));
        assert_eq!(it.arrive(), Do::Start);
        assert_eq!(it.arrive(), Do::Nothing);
        assert_eq!(it.started(now), Do::Admit);
        it.leave(now);
        assert_eq!(it.due(), None);
        it.leave(now);
        assert_eq!(it.due(), Some(now + MINUTE));
        assert_eq!(it.expire(now), Do::Nothing);
        assert_eq!(it.arrive(), Do::Admit);
        assert_eq!(it.expire(now + MINUTE), Do::Nothing);
        it.leave(now + MINUTE);
        assert_eq!(it.expire(now + 2 * MINUTE), Do::Stop);
        // Who arrives now is served all the same.
        assert_eq!(it.arrive(), Do::Nothing);
        assert_eq!(it.stopped(), Do::Start);
        assert_eq!(it.started(now), Do::Admit);
    }

    #[test]
    fn nobody_stops_it_under_a_build_but_by_force() {
        let mut it = Occupancy::new(None);
        assert_eq!(it.stop(false), Ok(Do::Nothing));
        assert_eq!(it.arrive(), Do::Start);
        assert_eq!(it.stop(false), Err(InUse(1)));
        assert_eq!(it.started(Instant::now()), Do::Admit);
        assert_eq!(it.stop(false), Err(InUse(1)));
        assert_eq!(it.stop(true), Ok(Do::Stop));
        assert_eq!(it.stopped(), Do::Nothing);
        assert_eq!(it.machine(), MachineState::Off);
    }

    proptest! {
        /// Whatever happens in whatever order: a stop of its own accord never meets a session, and
        /// whoever waits is not forgotten.
        #[test]
        fn it_never_stops_under_a_session(moves in proptest::collection::vec(0_u8..8, 0..200)) {
            let mut now = Instant::now();
            let mut it = Occupancy::new(Some(MINUTE));
            let (mut inside, mut waiting) = (0_usize, 0_usize);
            for step in moves {
                let mut starts = false;
                match step {
                    0 | 1 => match it.arrive() {
                        Do::Admit => inside += 1,
                        done => {
                            waiting += 1;
                            starts = done == Do::Start;
                            prop_assert!(done != Do::Stop);
                        }
                    },
                    2 if inside > 0 => { inside -= 1; it.leave(now); }
                    3 if it.machine() == MachineState::Starting => {
                        prop_assert_eq!(it.started(now), Do::Admit);
                        inside += waiting;
                        waiting = 0;
                    }
                    4 if it.machine() == MachineState::Stopping => {
                        starts = it.stopped() == Do::Start;
                        prop_assert_eq!(starts, waiting > 0);
                    }
                    5 => {
                        now += MINUTE / 2;
                        if it.expire(now) == Do::Stop { prop_assert_eq!(inside, 0); }
                    }
                    6 if it.machine() == MachineState::Up => prop_assert_eq!(it.died(), Do::Stop),
                    7 if waiting > 0 => { waiting -= 1; it.give_up(); }
                    _ => {}
                }
                prop_assert_eq!(it.sessions(), inside + waiting);
                if starts { prop_assert_eq!(it.machine(), MachineState::Starting); }
                if waiting > 0 { prop_assert!(it.machine() != MachineState::Off); }
            }
        }
    }
}
