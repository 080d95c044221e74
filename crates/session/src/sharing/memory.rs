//! The host's memory, as sessions share it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::ledger::{Ledger, Ticket, TooMuch};

/// A budget of memory. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// Those who wait, to be told.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl State {
    fn admit(&mut self) {
        for ticket in self.ledger.admit() {
            if let Some(told) = self.waiting.remove(&ticket) {
                // Who has gone gives it back himself.
                _ = told.send(());
            }
        }
    }
}

/// What somebody has of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    ticket: Ticket,
}

impl Memory {
    /// A budget of so many bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            ledger: Ledger::new(budget),
            waiting: HashMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many bytes are there, in the order of asking.
    pub(crate) async fn ask(&self, bytes: u64) -> Result<Share, TooMuch> {
        let (told, granted) = oneshot::channel();
        let share = {
            let mut state = self.state();
            let ticket = state.ledger.ask(bytes)?;
            state.waiting.insert(ticket, told);
            state.admit();
            Share {
                memory: self.clone(),
                ticket,
            }
        };
        // It is told as long as the share is there.
        drop(granted.await);
        Ok(share)
    }
}

impl Share {
    /// Says how much it is by now.
    pub(crate) fn set(&self, bytes: u64) {
        let mut state = self.memory.state();
        state.ledger.set(self.ticket, bytes);
        state.admit();
    }

    /// Has so much more, if it is there at once.
    pub(crate) fn more(&self, bytes: u64) -> bool {
        self.memory.state().ledger.more(self.ticket, bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        state.waiting.remove(&self.ticket);
        state.ledger.end(self.ticket);
        state.admit();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_served_when_something_comes_back() {
        let memory = Memory::new(10);
        let first = memory.ask(8).await.unwrap();
        let mut second = pin!(memory.ask(5));
        assert!(second.as_mut().now_or_never().is_none());
        first.set(5);
        let second = second.await.unwrap();
        drop(first);
        drop(memory.ask(5).now_or_never().unwrap().unwrap());
        drop(second);
        assert_eq!(memory.state().ledger.held(), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_line() {
        let memory = Memory::new(10);
        let first = memory.ask(8).await.unwrap();
        {
            let mut large = pin!(memory.ask(10));
            assert!(large.as_mut().now_or_never().is_none());
        }
        drop(memory.ask(2).now_or_never().unwrap().unwrap());
        drop(first);
        assert!(memory.state().waiting.is_empty());
    }
}
