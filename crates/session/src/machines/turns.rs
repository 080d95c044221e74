//! Words that start a machine and words that switch it off, in the order in which they are said.
//!
//! Between the word and the moment in which the machine is told, a start may wait for an image and for
//! a place. What is said meanwhile comes after it: a start that is followed by an end is not carried
//! out, and who waits for something that began with a start waits for that first.

use std::sync::Arc;

use tokio::sync::watch;

/// What has been said to a machine.
#[derive(Debug, Default)]
pub(super) struct Turns(watch::Sender<Said>);

#[derive(Debug, Default)]
struct Said {
    /// How often it was told to go off.
    ends: u64,
    /// How many starts of which it has not been told yet.
    starts: usize,
}

/// Somebody's turn to start the machine.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    /// How often the machine had been told to go off before.
    ends: u64,
    /// It is one of the starts that are waited for.
    counts: bool,
}

impl Turns {
    /// A start is asked for now. Until the machine knows of it, or this is dropped, others wait for it.
    pub(super) fn start(self: &Arc<Self>) -> Turn {
        let mut ends = 0;
        self.0.send_modify(|said| {
            said.starts += 1;
            ends = said.ends;
        });
        Turn {
            turns: Arc::clone(self),
            ends,
            counts: true,
        }
    }

    /// Something is asked for now that needs the machine, and starts it if it is off.
    pub(super) fn need(self: &Arc<Self>) -> Turn {
        Turn {
            turns: Arc::clone(self),
            ends: self.0.borrow().ends,
            counts: false,
        }
    }

    /// The end is asked for now. Starts that were asked for before are not begun after this.
    pub(super) fn end(&self) {
        self.0.send_modify(|said| said.ends += 1);
    }

    /// Whether the machine has yet to be told of a start.
    pub(super) fn is_to_start(&self) -> bool {
        self.0.borrow().starts > 0
    }

    /// Waits until the machine has been told of all starts.
    pub(super) async fn told(&self) {
        // It cannot close: we hold it.
        drop(self.0.subscribe().wait_for(|said| said.starts == 0).await);
    }
}

impl Turn {
    /// Tells the machine to start, by `tell`, which must not block. Nothing, if it was told to go off
    /// since this was asked for.
    pub(super) fn tell<T>(&mut self, tell: impl FnOnce() -> T) -> Option<T> {
        let mut told = None;
        // Nobody's end comes between the look and the word.
        self.turns.0.send_modify(|said| {
            if said.ends == self.ends {
                told = Some(tell());
            }
        });
        self.known();
        told
    }

    /// There is nothing to wait for any more: the machine runs, and whoever waits sees what becomes of
    /// it.
    pub(super) fn known(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.turns.0.send_modify(|said| said.starts -= 1);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.known();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_end_overtakes_what_was_said_before_it_and_nothing_else() {
        let turns = Arc::new(Turns::default());
        let mut before = turns.start();
        turns.end();
        let (mut after, mut need) = (turns.start(), turns.need());
        assert_eq!(before.tell(|| "started"), None);
        assert_eq!(after.tell(|| "started"), Some("started"));
        // A machine that refused is asked again in the same turn.
        assert_eq!(after.tell(|| "again"), Some("again"));
        assert_eq!(need.tell(|| "needed"), Some("needed"));
        turns.end();
        assert_eq!(after.tell(|| "again"), None);
    }

    #[tokio::test]
    async fn starts_are_waited_for_until_they_are_told_or_given_up() {
        let turns = Arc::new(Turns::default());
        let (mut first, second, _need) = (turns.start(), turns.start(), turns.need());
        assert!(turns.is_to_start());
        let mut told = pin!(turns.told());
        first.tell(|| {});
        assert!(told.as_mut().now_or_never().is_none());
        drop(second);
        assert!(told.as_mut().now_or_never().is_some());
        drop(first);
        assert!(!turns.is_to_start());
    }
}
