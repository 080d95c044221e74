//! What a lab file says, checked and resolved.

mod checkpoint;
mod hardware;
mod image;
mod lab;
mod limits;
mod machine;
mod name;
mod ready;
mod step;
mod storage;
mod test;
mod vlan;

pub use checkpoint::Checkpoint;
pub use hardware::{CdiName, Device, Gpu};
pub use image::{AddedFile, FileContents, Image, Source};
pub use lab::{Lab, MAX_MACHINES};
pub use limits::ContainerLimits;
pub use machine::{DEFAULT_MEMORY, Kind, Machine, RunsAs};
pub use name::MachineName;
pub use ready::Ready;
pub(crate) use step::check_regex;
pub use step::{Action, Expect, Program, Step, WaitFor};
pub(crate) use storage::check_guest_path;
pub use storage::{Disk, DiskContents, Publish, Volume};
pub use test::{Body, DEFAULT_TIMEOUT, Test};
pub use vlan::{Vlan, VlanId};
