//! As many machines start at once as there are processors: more would only be in each other's way.

use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machinist_machine::{Machine, MachineError, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How often a machine that starts is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A machine that has wanted a processor for less than this share of the time...
const IDLE: f64 = 0.3;
/// ... in so many looks one after another waits for something that is not its own work.
const IDLE_LOOKS: u32 = 4;

/// The places for machines that start. Clones are the same; they are given in the order of asking.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Semaphore>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);

impl Places {
    /// So many.
    pub(crate) fn new(all: NonZero<usize>) -> Self {
        Self(Arc::new(Semaphore::new(all.get())))
    }

    async fn take(&self) -> Place {
        // Nobody closes it.
        Place(Arc::clone(&self.0).acquire_owned().await.ok())
    }

    /// Starts a machine, by `start`, in a place, which it keeps until it has started, or waits for
    /// something that is not its own work: another machine, perhaps, that needs a place to start.
    pub(crate) async fn start(
        &self,
        machine: &Machine,
        start: impl Future<Output = Result<(), MachineError>>,
        until: Until,
    ) -> Result<(), MachineError> {
        let place = self.take().await;
        let mut start = pin!(start);
        tokio::select! {
            started = &mut start => started?,
            () = idle(|| machine.pid()) => {
                drop(place);
                return start.await;
            }
        }
        let (mut status, pid) = (machine.status(), machine.pid());
        if until.is_over(&status.borrow_and_update().state) {
            return Ok(());
        }
        // No handle of the machine is kept for this: its end must not wait.
        drop(tokio::spawn(async move {
            let over = status.wait_for(|status| until.is_over(&status.state));
            tokio::select! {
                _ = over => {}
                () = idle(|| pid) => {}
            }
            drop(place);
        }));
        Ok(())
    }
}

/// Until when a machine that starts keeps a processor busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its agent answers.
    Up,
    /// Its own system has started.
    Ready,
}

impl Until {
    /// Of a machine whose agent has answered.
    fn is_over(self, state: &State) -> bool {
        match state {
            State::Starting | State::Rebooting | State::Silent => false,
            State::Up => self == Self::Up,
            State::Off | State::Ready | State::Stopping | State::Failed { .. } => true,
        }
    }
}

/// Ends when a process has done next to nothing for a while. Never, where that cannot be seen.
async fn idle(pid: impl Fn() -> Option<u32>) {
    let mut before: Option<(u32, f64)> = None;
    let mut looks = 0;
    while looks < IDLE_LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = pid().and_then(|pid| Some((pid, processor_seconds(pid)?)));
        looks = match (before, now) {
            // Another process is a new beginning: after its golden, the machine itself.
            (Some((pid, then)), Some((same, now)))
                if pid == same && now - then < IDLE * LOOK.as_secs_f64() =>
            {
                looks + 1
            }
            _ => 0,
        };
        before = now;
    }
}

/// How long the threads of a process have run, or were ready to and waited for a processor, in
/// seconds. On a busy host it is the waiting that tells work from idleness.
fn processor_seconds(pid: u32) -> Option<f64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut nanoseconds = 0;
    for thread in threads.flatten() {
        // One that has ended meanwhile has nothing to tell.
        let text = std::fs::read_to_string(thread.path().join("schedstat"));
        nanoseconds += text.map_or(Some(0), |text| wanted_to_run(&text))?;
    }
    // A kernel that does not count.
    (nanoseconds > 0).then_some(nanoseconds as f64 / 1e9)
}

/// Of the text of /proc/PID/task/TID/schedstat: time on a processor, and time waiting for one.
fn wanted_to_run(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_whitespace();
    let ran: u64 = numbers.next()?.parse().ok()?;
    let waited: u64 = numbers.next()?.parse().ok()?;
    Some(ran + waited)
}

/// Lets one machine of a group go first, until it is known whether there is a snapshot: the others
/// would only wait for it, in places that somebody else can use.
#[derive(Debug)]
pub(crate) struct Gate {
    taken: AtomicBool,
    open: watch::Sender<bool>,
}

/// Who goes first, or has nobody to wait for; dropping it lets all others go.
#[derive(Debug)]
pub(crate) struct First(Option<Arc<Gate>>);

impl Default for Gate {
    fn default() -> Self {
        Self {
            taken: AtomicBool::new(false),
            open: watch::Sender::new(false),
        }
    }
}

impl Gate {
    /// The first goes through at once, all others when it is open.
    pub(crate) async fn pass(self: &Arc<Self>) -> First {
        if !self.taken.swap(true, Ordering::Relaxed) {
            return First(Some(Arc::clone(self)));
        }
        // It cannot close: we hold it.
        drop(self.open.subscribe().wait_for(|open| *open).await);
        First(None)
    }

    /// Lets everybody through from now on.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn there_are_so_many_places() {
        let places = Places::new(NonZero::new(2).unwrap());
        let first = places.take().await;
        let second = places.take().await;
        let mut third = pin!(places.take());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(third.await);
        drop(second);
    }

    #[tokio::test]
    async fn a_process_that_only_waits_is_idle_and_one_that_works_is_not() {
        let mut waits = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut works = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let (waiting, working) = (waits.id(), works.id());
        tokio::select! {
            () = idle(|| Some(working)) => panic!("it works"),
            () = idle(|| Some(waiting)) => {}
        }
        for child in [&mut waits, &mut works] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn one_goes_first() {
        let gate = Arc::new(Gate::default());
        let first = gate.pass().await;
        let mut others = pin!(futures_util::future::join(gate.pass(), gate.pass()));
        assert!(others.as_mut().now_or_never().is_none());
        drop(first);
        drop(others.await);
        drop(gate.pass().now_or_never().unwrap());
    }

    #[tokio::test]
    async fn a_gate_opens_while_the_first_is_still_on_its_way() {
        let gate = Arc::new(Gate::default());
        let first = gate.pass().await;
        gate.open();
        drop(gate.pass().now_or_never().unwrap());
        drop(first);
    }

    #[test]
    fn who_waits_for_a_processor_works() {
        assert_eq!(wanted_to_run("300 50 7\n"), Some(350));
        assert_eq!(wanted_to_run("300"), None);
        let own = processor_seconds(std::process::id()).unwrap();
        assert!(own > 0.0 && own < 1e6, "{own}");
    }

    #[test]
    fn a_place_is_held_until_the_machine_has_started() {
        for (state, up, ready) in [
            (State::Off, true, true),
            (State::Starting, false, false),
            (State::Up, true, false),
            (State::Ready, true, true),
            (State::Stopping, true, true),
        ] {
            assert_eq!(Until::Up.is_over(&state), up, "{state:?}");
            assert_eq!(Until::Ready.is_over(&state), ready, "{state:?}");
        }
    }
}
