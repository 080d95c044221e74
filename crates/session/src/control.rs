//! What the session protocol needs of a machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use machinist_guest::Agent;
use machinist_machine::checkpoint::{Checkpoint, Taking};
use machinist_machine::{Console, HostLine, Status};
use machinist_network::addresses::MachineNumber;
use serde_json::Value;
use tokio::sync::watch;

use crate::checkpoints::Wire;
use crate::protocol::{Fault, Published};

/// Something that a machine does and that takes time.
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Something that is done where it can be.
pub(crate) type Making<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A machine, as the protocol uses it. One implementation is the real thing
/// ([`crate::machines::SessionMachine`]); tests of the protocol have one whose agent runs on this host.
pub(crate) trait Control: Send + Sync {
    /// `vm` or `container`.
    fn kind(&self) -> &'static str;

    /// Its addresses with their prefix lengths.
    fn addresses(&self) -> Vec<String>;

    /// The environment that its commands have besides the login environment.
    fn env(&self) -> &BTreeMap<String, String>;

    /// One word for how it is, as in [`crate::protocol::MachineStatus`].
    fn state(&self) -> &'static str;

    /// Makes ready what its first start needs.
    fn prepare(&self) -> Doing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Starts it if it is off, and waits until its agent answers. `allow_reboot`: whether a restart
    /// of its own is one, or its end; `None` is as the machine has it.
    ///
    /// This and all that starts, ends or needs a machine has been said when it is called, not when
    /// it is first waited for: a machine that is told to go off after this is not started by it.
    fn start(self: Arc<Self>, allow_reboot: Option<bool>) -> Doing<'static, Agent>;

    /// Starts it if it is off, and waits until commands can count on its system.
    fn agent(&self) -> Doing<'_, Agent>;

    /// Starts it if it is off, and waits until it is as ready as the lab asks.
    fn ready(&self) -> Doing<'_, ()>;

    /// Powers it off and waits until it is.
    fn shutdown(&self, within: Option<Duration>) -> Doing<'_, ()>;

    /// Cuts its power.
    fn crash(&self) -> Doing<'_, ()>;

    /// Starts its system anew.
    fn reboot(&self) -> Doing<'_, ()>;

    /// Waits until it is off.
    fn wait_shutdown(&self) -> Doing<'_, ()>;

    /// Why its agent has gone, if the machine knows, or gets to know in a moment.
    fn why_lost(&self) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>>;

    /// Its console, also before its first start.
    fn console(&self) -> Doing<'_, Console>;

    /// Kills it, or powers it off within `grace`, whatever it does just now.
    fn end(&self, grace: Option<Duration>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // What does not go by asking is killed.
            drop(match grace {
                Some(grace) => self.shutdown(Some(grace)).await,
                None => self.crash().await,
            });
        })
    }

    /// Starts it if it is off, and does not wait until its agent answers: to a client that does not
    /// wait, it has been started after this. Whether this was done: else [`Control::start`] does it.
    fn launch(&self, _allow_reboot: Option<bool>) -> Doing<'_, bool> {
        Box::pin(async { Ok(false) })
    }

    /// Copies what it boots to a directory, as far as that cannot be made once more.
    fn take_along(&self, _dir: PathBuf) -> Doing<'_, ()> {
        Box::pin(async { Err(self.has_no("image")) })
    }

    /// Its ports that this host publishes.
    fn published(&self) -> Vec<Published> {
        Vec::new()
    }

    /// How it is, and how often it has come up; nothing where it has not been made yet.
    fn status(&self) -> Option<watch::Receiver<Status>> {
        None
    }

    /// The process that runs it.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Where it keeps what is its own, and what it shares with others.
    fn places(&self) -> Places {
        Places::default()
    }

    /// Gives it another directory for its state, as that is, while it is off.
    fn set_state_dir(&self, _path: PathBuf) -> Doing<'_, ()> {
        Box::pin(async { Err(self.has_no("state directory")) })
    }

    /// Lets a machine that stands in its initrd go on to its own system.
    fn switch_root(&self) -> Doing<'_, ()> {
        Box::pin(async { Err(self.has_no("initrd to leave")) })
    }

    /// Says something to its monitor.
    fn monitor(&self, _command: String) -> Doing<'_, String> {
        Box::pin(async { Err(self.has_no("monitor")) })
    }

    /// Runs a command of the QEMU machine protocol.
    fn qmp(&self, _command: String, _arguments: Value) -> Doing<'_, Value> {
        Box::pin(async { Err(self.has_no("QEMU")) })
    }

    /// What its QEMU tells of itself.
    fn qmp_events(&self) -> Doing<'_, BoxStream<'static, Value>> {
        Box::pin(async { Err(self.has_no("QEMU")) })
    }

    /// What its screen shows, as PNG.
    fn screenshot(&self) -> Doing<'_, Vec<u8>> {
        Box::pin(async { Err(self.has_no("screen")) })
    }

    /// Types into its serial console.
    fn console_send(&self, _bytes: Vec<u8>) -> Doing<'_, ()> {
        Box::pin(async { Err(self.has_no("console that takes input")) })
    }

    /// The VLAN on which it has the only cable that is pulled where no VLAN is named: NixOS' driver
    /// pulls that of `eth1`, and leaves the others. None: all of them.
    fn vlan_of_block(&self) -> Doing<'_, Option<u32>> {
        Box::pin(async { Ok(None) })
    }

    /// Pulls cables or plugs them in at its own end, where the switch alone does not do it. What
    /// runs in the machine sees that, as with a real cable.
    fn carrier(&self, _vlan: Option<u32>, _up: bool) -> Doing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// What keeps it from being in a checkpoint, as half a sentence.
    fn checkpoint_obstacle(&self) -> Option<String> {
        Some(format!("a {} of this session cannot be saved", self.kind()))
    }

    /// What of it is in no checkpoint, as half a sentence.
    fn outside_checkpoints(&self) -> Option<String> {
        None
    }

    /// Begins to take a checkpoint of it into the directory `place`. Nothing, where it has not been
    /// made yet.
    fn begin_checkpoint(&self, _place: PathBuf) -> Doing<'_, Option<Taking>> {
        Box::pin(async { Err(self.has_no("checkpoints")) })
    }

    /// Machines that are made of it as it is now: their names, and their numbers in the lab. Its
    /// files go into the directory `place`. They are off.
    fn clones(
        &self,
        _of: Vec<(String, MachineNumber)>,
        _place: PathBuf,
    ) -> Doing<'_, Vec<Arc<dyn Control>>> {
        Box::pin(async { Err(self.has_no("clones")) })
    }

    /// Lets it know others, if it runs.
    fn introduce(&self, _others: Vec<HostLine>) -> Doing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// What others know it by.
    fn host_lines(&self) -> Vec<HostLine> {
        Vec::new()
    }

    /// Goes back to a checkpoint of it, which users know by `name`.
    fn restore(&self, _checkpoint: Checkpoint, _name: &str) -> Doing<'_, ()> {
        Box::pin(async { Err(self.has_no("checkpoints")) })
    }

    /// Begins to make ready what going back to a checkpoint of it will need, where that can be and the
    /// host has the memory for it. Nothing comes of it, if not.
    fn reserve(&self, _checkpoint: &Checkpoint) -> Making<'_> {
        Box::pin(async {})
    }

    /// Gives up what was made ready for this checkpoint.
    fn forget(&self, _checkpoint: &Checkpoint) -> Making<'_> {
        Box::pin(async {})
    }

    /// The fault of asking for what this kind of machine does not have.
    fn has_no(&self, what: &str) -> Fault {
        let kind = self.kind();
        Fault::machinery(format!("a {kind} of this session has no {what}"))
    }
}

/// Where a machine keeps things on this host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) state: PathBuf,
    pub(crate) shared: Option<PathBuf>,
}

/// The cables of a session.
pub(crate) trait Links: Send + Sync {
    /// Plugs cables in at the switches, or pulls them: those of a machine, of a VLAN, or of a machine
    /// on a VLAN. Blocks for a moment.
    fn set_up(&self, machine: Option<&str>, vlan: Option<u32>, up: bool);

    /// Lets all of the network stand still. Blocks for some milliseconds.
    fn hold(&self) -> Box<dyn Standstill>;
}

/// A network that stands still. It goes on when this is dropped, which blocks for a moment.
pub(crate) trait Standstill: Send + Sync {
    /// How it is, once the machines stand still, too.
    fn look(&self) -> Wire;

    /// Goes on, as it was at another moment.
    fn put_back(self: Box<Self>, wire: Wire);
}
