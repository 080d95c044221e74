//! A test that stands still.

use machinist_events::{Failure, What};

use crate::directory;
use crate::hub::Hub;
use crate::protocol::{Fault, ScriptReport};
use crate::test::reported;

/// Stands still because the script asks for it, until somebody asks for `continue`.
pub(crate) async fn at_breakpoint(
    hub: &Hub,
    failure: Option<Box<ScriptReport>>,
) -> Result<(), Fault> {
    stand_still(hub, failure.map(|report| reported(*report))).await;
    Ok(())
}

/// Stands still until somebody asks for `continue`.
pub(crate) async fn stand_still(hub: &Hub, failure: Option<Failure>) {
    let id = &hub.facts.id;
    let _paused = Paused::begin(hub);
    let python = directory::python_socket(&hub.facts.directory).exists();
    hub.log.emit(What::TestPaused {
        failure,
        attach: format!("machinist attach {id}"),
        python: python.then(|| format!("machinist attach {id} --python")),
        go_on: format!("machinist attach {id} --continue"),
    });
    let mut paused = hub.paused.subscribe();
    // We hold the sender.
    drop(paused.wait_for(|paused| !paused).await);
}

/// A session that stands still; dropping it lets it go on.
struct Paused<'a>(&'a Hub);

impl<'a> Paused<'a> {
    fn begin(hub: &'a Hub) -> Self {
        hub.paused.send_replace(true);
        Self(hub)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.paused.send_replace(false);
        self.0.log.emit(What::TestResumed);
    }
}
