//! Asking something long to end early.

use tokio::sync::watch;

/// A switch that many can watch and that is thrown once. Clones are the same switch.
#[derive(Debug, Clone)]
pub struct Cancel(watch::Sender<bool>);

impl Cancel {
    /// A switch that is not thrown.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Throws it. Throwing it again changes nothing.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has been thrown.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is thrown, at once where it already is.
    pub async fn cancelled(&self) {
        let mut thrown = self.0.subscribe();
        // `self` holds a sender, so waiting cannot fail.
        drop(thrown.wait_for(|thrown| *thrown).await);
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}
