//! What has come in at a socket, on its way to the switch.

use machinist_sys::packet::{Batch, Frame};

use super::{Context, Count};

/// Hands the frames of `batch` to `deliver`, without those that were too long to be whole, which
/// are counted, and without empty ones: so some clients take leave.
pub(super) fn hand_out(context: Context<'_>, batch: &Batch, deliver: &mut dyn FnMut(&[Frame<'_>])) {
    let all = || (0..batch.len()).map(|index| batch.frame(index));
    let cut = all().filter(|frame| frame.truncated).count();
    if cut > 0 {
        context.tally.dropped(Count::Malformed, cut);
    }
    let whole = all().filter(|frame| !frame.truncated && !frame.bytes.is_empty());
    let frames: Vec<Frame<'_>> = whole
        .map(|received| Frame {
            header: received.header,
            bytes: received.bytes,
        })
        .collect();
    deliver(&frames);
}
