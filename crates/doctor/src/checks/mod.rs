//! The checks, by what they look at. `docs/doctor.md` lists them all.

pub(crate) mod container;
pub(crate) mod external;
pub(crate) mod linux;
pub(crate) mod machines;
pub(crate) mod macos;
pub(crate) mod nix;
pub(crate) mod remote;
pub(crate) mod ssh;
pub(crate) mod takers;
pub(crate) mod vm;

use machinist_builder::machines_file::{self, Listed};
use machinist_builder::nix_conf::NixConf;

use crate::host::Host;

/// All machines that Nix would read from its files; none where it cannot.
fn listed(host: &Host, conf: &NixConf) -> Vec<Listed> {
    let (builders, _) = conf.builders(&host.nix.directory);
    machines_file::parse(&builders, "builders", &host.nix.system, &host.nix.files)
        .unwrap_or_default()
}

/// Whether we can do what only root can.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
