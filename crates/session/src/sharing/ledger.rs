//! Who has how much of a budget, and who waits for some. Nothing here waits, or looks at the host.

use std::collections::{BTreeMap, VecDeque};

use machinist_lab::Bytes;
use thiserror::Error;

/// Who asked: numbered in the order of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// More was asked for than there ever is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the machines need {} of memory, and the budget is {}",
    rounded(*asked),
    rounded(*budget)
)]
pub struct TooMuch {
    /// What was asked for, in bytes.
    pub asked: u64,
    /// What there is, in bytes.
    pub budget: u64,
}

/// A size for people: in whole MiB, upwards.
fn rounded(bytes: u64) -> Bytes {
    Bytes::mebibytes(bytes.div_ceil(1 << 20))
}

/// A budget, those who have some of it, and those who wait, in their order.
#[derive(Debug)]
pub(crate) struct Ledger {
    budget: u64,
    granted: BTreeMap<Ticket, u64>,
    waiting: VecDeque<(Ticket, u64)>,
    next: u64,
}

impl Ledger {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            granted: BTreeMap::new(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// Asks for so much. It is granted by [`Ledger::admit`], now or later.
    pub(crate) fn ask(&mut self, bytes: u64) -> Result<Ticket, TooMuch> {
        if bytes > self.budget {
            return Err(TooMuch {
                asked: bytes,
                budget: self.budget,
            });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back((ticket, bytes));
        Ok(ticket)
    }

    /// Grants what there is to those who wait: strictly in their order, so that one who asks for
    /// much is not passed by all who ask for little.
    #[must_use]
    pub(crate) fn admit(&mut self) -> Vec<Ticket> {
        let mut admitted = Vec::new();
        while let Some((ticket, bytes)) = self.waiting.front().copied() {
            if self.held().saturating_add(bytes) > self.budget {
                break;
            }
            self.waiting.pop_front();
            self.granted.insert(ticket, bytes);
            admitted.push(ticket);
        }
        admitted
    }

    /// Says how much it is by now: less, or more, which then is a fact that only later grants take
    /// into account. Of one who waits nothing is changed.
    pub(crate) fn set(&mut self, ticket: Ticket, bytes: u64) {
        if let Some(held) = self.granted.get_mut(&ticket) {
            *held = bytes;
        }
    }

    /// Grants so much more to one who has some, if it is there and nobody waits for it.
    #[must_use]
    pub(crate) fn more(&mut self, ticket: Ticket, bytes: u64) -> bool {
        let fits = self.waiting.is_empty() && self.held().saturating_add(bytes) <= self.budget;
        match self.granted.get_mut(&ticket) {
            Some(held) if fits => {
                *held += bytes;
                true
            }
            _ => false,
        }
    }

    /// Gives back what is held, or stops waiting.
    pub(crate) fn end(&mut self, ticket: Ticket) {
        self.granted.remove(&ticket);
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    /// How much is granted in all.
    pub(crate) fn held(&self) -> u64 {
        let held = self.granted.values();
        held.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_never_fits_is_refused_at_once() {
        let mut ledger = Ledger::new(4 << 30);
        let error = ledger.ask((4 << 30) + 1).unwrap_err();
        let text = "the machines need 4097M of memory, and the budget is 4G";
        assert_eq!(error.to_string(), text);
        ledger.ask(4 << 30).unwrap();
    }

    #[test]
    fn a_small_one_does_not_pass_a_large_one() {
        let mut ledger = Ledger::new(10);
        let first = ledger.ask(6).unwrap();
        assert_eq!(ledger.admit(), [first]);
        let large = ledger.ask(10).unwrap();
        let small = ledger.ask(1).unwrap();
        assert_eq!(ledger.admit(), []);
        ledger.set(first, 0);
        assert_eq!(ledger.admit(), [large]);
        ledger.end(large);
        assert_eq!(ledger.admit(), [small]);
    }

    #[test]
    fn who_is_first_in_the_line_and_goes_holds_nobody_up() {
        let mut ledger = Ledger::new(10);
        let first = ledger.ask(6).unwrap();
        assert_eq!(ledger.admit(), [first]);
        let large = ledger.ask(10).unwrap();
        let small = ledger.ask(4).unwrap();
        ledger.end(large);
        assert_eq!(ledger.admit(), [small]);
    }

    #[test]
    fn more_is_there_if_nobody_waits_for_it() {
        let mut ledger = Ledger::new(10);
        let first = ledger.ask(6).unwrap();
        assert!(!ledger.more(first, 1));
        assert_eq!(ledger.admit(), [first]);
        assert!(ledger.more(first, 3));
        assert!(!ledger.more(first, 2));
        assert_eq!(ledger.held(), 9);
        let second = ledger.ask(2).unwrap();
        assert!(!ledger.more(first, 1));
        ledger.end(second);
        assert!(ledger.more(first, 1));
    }

    /// What those who share do, by turns.
    #[derive(Debug, Clone)]
    enum Turn {
        Ask(u64),
        /// The one of this place among all who were granted or wait.
        End(usize),
        Shrink(usize, u64),
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = prop_oneof![
            (0_u64..120).prop_map(Turn::Ask),
            any::<usize>().prop_map(Turn::End),
            (any::<usize>(), 0_u64..120).prop_map(|(who, to)| Turn::Shrink(who, to)),
        ];
        prop::collection::vec(turn, 0..200)
    }

    proptest! {
        /// The budget is kept, everybody is served in the order of asking, and in the end all are.
        #[test]
        fn nobody_gets_more_than_there_is_and_nobody_is_forgotten(turns in turns()) {
            let mut ledger = Ledger::new(100);
            let mut alive: Vec<(Ticket, u64, bool)> = Vec::new();
            let mut last = None;
            for turn in turns {
                match turn {
                    Turn::Ask(bytes) => match ledger.ask(bytes) {
                        Ok(ticket) => alive.push((ticket, bytes, false)),
                        Err(error) => prop_assert_eq!(error, TooMuch { asked: bytes, budget: 100 }),
                    },
                    Turn::End(who) if !alive.is_empty() => {
                        let (ticket, ..) = alive.remove(who % alive.len());
                        ledger.end(ticket);
                    }
                    Turn::Shrink(who, to) if !alive.is_empty() => {
                        let who = who % alive.len();
                        let (ticket, bytes, granted) = &mut alive[who];
                        if *granted && to < *bytes {
                            *bytes = to;
                            ledger.set(*ticket, to);
                        }
                    }
                    _ => {}
                }
                for ticket in ledger.admit() {
                    prop_assert!(last < Some(ticket), "out of order");
                    last = Some(ticket);
                    let (.., granted) = alive.iter_mut().find(|(it, ..)| *it == ticket).unwrap();
                    *granted = true;
                }
                let held: u64 = alive.iter().filter(|it| it.2).map(|it| it.1).sum();
                prop_assert_eq!(ledger.held(), held);
                prop_assert!(held <= 100);
                // Who is first in the line waits for a reason.
                if let Some((_, bytes, _)) = alive.iter().find(|it| !it.2) {
                    prop_assert!(held + bytes > 100);
                }
            }
            while let Some(at) = alive.iter().position(|it| it.2) {
                ledger.end(alive.remove(at).0);
                for ticket in ledger.admit() {
                    alive.iter_mut().find(|it| it.0 == ticket).unwrap().2 = true;
                }
            }
            prop_assert!(alive.is_empty(), "somebody waits for ever");
            prop_assert_eq!(ledger.held(), 0);
        }
    }
}
