//! What a machine prints until it is saved.

use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are kept. What a machine prints beyond that, nobody waits for.
const KEPT: usize = 16 * 1024 * 1024;

/// A record of a console; clones are the same.
#[derive(Debug, Clone)]
pub(in super::super) struct Record(Arc<Mutex<Option<Vec<u8>>>>);

impl Record {
    /// A record, or something that forgets everything.
    pub(in super::super) fn new(wanted: bool) -> Self {
        Self(Arc::new(Mutex::new(wanted.then(Vec::new))))
    }

    pub(in super::super) fn feed(&self, bytes: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = &mut *text
            && text.len() + bytes.len() <= KEPT
        {
            text.extend_from_slice(bytes);
        }
    }

    /// Nobody wants it any more.
    pub(in super::super) fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// All of it, so far.
    pub(in super::super) fn text(&self) -> Vec<u8> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone().unwrap_or_default()
    }
}
