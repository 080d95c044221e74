//! What a person is told of a machine's start, in a line.

use machinist_events::{What, plain_line};

use crate::paint::seconds;

/// What an event says of its machine's start to those who want to see how it goes; none where it
/// says nothing. `restored`: the machine was restored, not booted.
pub(crate) fn start(what: &What, restored: bool) -> Option<String> {
    Some(match what {
        What::MachineStarting { backend, accel } => match accel {
            Some(accel) => format!("starting by {backend} ({accel})"),
            None => format!("starting by {backend}"),
        },
        What::MachineCold { reason } => format!("boots: {}", plain_line(reason)),
        What::SnapshotSaved { seconds: took } => {
            format!("booted; its snapshot was saved in {}", seconds(*took))
        }
        What::MachineUp { seconds: took } if restored => {
            format!("restored from its snapshot, up after {}", seconds(*took))
        }
        What::MachineUp { seconds: took } => format!("up after {}", seconds(*took)),
        _ => return None,
    })
}

/// What is to be told of an event even to those who want to see results alone.
pub(crate) fn warning(what: &What) -> Option<String> {
    Some(match what {
        What::Warning { text } => text.clone(),
        What::AccelFallback { reason } => {
            format!("no hardware virtualization, emulating: {reason}")
        }
        What::SnapshotDiscarded { reason } => {
            format!("its snapshot was thrown away, it boots: {reason}")
        }
        _ => return None,
    })
}
