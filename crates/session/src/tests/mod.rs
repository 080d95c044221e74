//! The protocol and the Python package against the real server and the real agent. The agent runs
//! on this host instead of in a machine; everything between is what machines have.

mod local;
mod protocol;
mod python;
mod ways;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::control::Control;
use crate::hub::{Facts, Hub};
use crate::log::Log;
use crate::{Client, server};

/// A session without machines of its own: two whose agents run here, `web` and `db-1`.
pub(super) struct Here {
    pub(super) hub: Arc<Hub>,
    pub(super) socket: PathBuf,
    pub(super) directory: tempfile::TempDir,
}

impl Here {
    pub(super) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(
            &directory.path().join("events.jsonl"),
            Some("a test".into()),
            Arc::new(|_| {}),
        );
        let mut machines: BTreeMap<String, Arc<dyn Control>> = BTreeMap::new();
        for name in ["web", "db-1"] {
            let machine = local::Local::start(&directory.path().join(name)).await;
            machines.insert(name.to_owned(), Arc::new(machine));
        }
        let test = Some("a test".to_owned());
        let log = Arc::new(log.unwrap());
        let facts = Facts {
            id: "abcdefgh".to_owned(),
            directory: directory.path().to_owned(),
            exe: PathBuf::from("/bin/machinist"),
            test,
            vlans: vec![1],
            driver: None,
            timeout_factor: 1.0,
        };
        let hub = Arc::new(Hub::new(facts, log, machines));
        let socket = directory.path().join("session.sock");
        drop(server::listen(&socket, Arc::clone(&hub)).unwrap());
        Self {
            hub,
            socket,
            directory,
        }
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap()
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.hub.over.cancel();
    }
}
