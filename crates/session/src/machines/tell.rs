//! What becomes of a machine, told.

use std::sync::Arc;

use machinist_events::{What, printed_line};
use machinist_machine::{MachineError, Report, Reporter};

use super::Ground;
use crate::chain;
use crate::protocol::Fault;
use crate::sharing::Gate;

/// A machine's trouble as a client is told it.
pub(crate) fn fault(error: &MachineError) -> Fault {
    let text = chain::text(error);
    match error {
        // It makes no sense now: the script's mistake, or the machine's, but not ours.
        MachineError::Refused { .. } | MachineError::Off { .. } => Fault::usage(text),
        MachineError::Late { .. } => Fault::test(text),
        _ => Fault::machinery(text),
    }
}

/// Tells what happens to a machine: as events, to those who share the host's memory with it, and to
/// those who wait at its group's gate.
pub(super) fn reporter(ground: &Arc<Ground>, machine: String, gate: Option<Arc<Gate>>) -> Reporter {
    // The ground has the machines' memory, and nothing that would keep a machine.
    let ground = Arc::clone(ground);
    Arc::new(move |report| {
        count(&ground, &machine, gate.as_deref(), &report);
        let what = match report {
            Report::Starting { backend, accel } => What::MachineStarting {
                backend: backend.to_owned(),
                accel: accel.map(str::to_owned),
            },
            Report::AccelFallback { reason } => What::AccelFallback { reason },
            Report::Up { seconds } => What::MachineUp { seconds },
            Report::Ready { seconds } => What::MachineReady { seconds },
            Report::Stopped => What::MachineStopped,
            Report::Failed { reason, last_words } => What::MachineFailed {
                reason,
                last_words: last_words
                    .iter()
                    .map(|line| printed_line(line.as_bytes()))
                    .collect(),
            },
            Report::Restored { seconds } => What::MachineRestored { seconds },
            Report::SnapshotSaved { seconds } => What::SnapshotSaved { seconds },
            Report::SnapshotDiscarded { reason } => What::SnapshotDiscarded { reason },
            Report::ColdBecause { reason } => What::MachineCold { reason },
            Report::Console { line } => What::Console {
                line: printed_line(line.as_bytes()),
            },
            Report::Warning { text } => What::Warning { text },
        };
        ground.log.emit_of(&machine, what);
    })
}

/// What a report means for other machines.
fn count(ground: &Ground, machine: &str, gate: Option<&Gate>, report: &Report) {
    match report {
        Report::Restored { .. } => ground.usage.restored(machine),
        Report::SnapshotDiscarded { .. } => return ground.usage.boots(machine),
        Report::ColdBecause { .. } => ground.usage.boots(machine),
        _ => return,
    }
    if let Some(gate) = gate {
        gate.open();
    }
}
