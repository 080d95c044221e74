//! What becomes of a machine, told.

use std::sync::Arc;

use machinist_events::{What, printed_line};
use machinist_machine::{MachineError, Report, Reporter};

use crate::chain;
use crate::log::Log;
use crate::protocol::Fault;

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

/// Tells what happens to a machine as events.
pub(super) fn reporter(log: Arc<Log>, machine: String) -> Reporter {
    Arc::new(move |report| {
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
            Report::Console { line } => What::Console {
                line: printed_line(line.as_bytes()),
            },
            Report::Warning { text } => What::Warning { text },
        };
        log.emit_of(&machine, what);
    })
}
