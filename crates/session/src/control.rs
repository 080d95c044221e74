//! What the session protocol needs of a machine.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use machinist_guest::Agent;
use machinist_machine::Console;

use crate::protocol::Fault;

/// Something that a machine does and that takes time.
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A machine, as the protocol uses it. One implementation is the real thing
/// ([`crate::machines::LabMachine`]); tests of the protocol have one whose agent runs on this host.
pub(crate) trait Control: Send + Sync {
    /// `vm` or `container`.
    fn kind(&self) -> &'static str;

    /// Its addresses with their prefix lengths.
    fn addresses(&self) -> Vec<String>;

    /// The environment that its commands have besides the login environment.
    fn env(&self) -> &BTreeMap<String, String>;

    /// One word for how it is, as in [`crate::protocol::MachineStatus`].
    fn state(&self) -> &'static str;

    /// Starts it if it is off, and waits until its agent answers.
    fn start(&self) -> Doing<'_, Agent>;

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
}
