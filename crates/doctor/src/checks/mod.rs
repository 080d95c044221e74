//! The checks, by what they look at. `docs/doctor.md` lists them all.

pub(crate) mod container;
pub(crate) mod external;
pub(crate) mod guest;
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

/// All machines that Nix would read from its files; none where it cannot. Where somebody has emptied
/// `builders`, those that it would read otherwise: they are what counts once that is mended.
fn listed(host: &Host, conf: &NixConf) -> Vec<Listed> {
    let (builders, _) = conf.builders(&host.nix.directory);
    let usual = format!("@{}", host.nix.machines().display());
    let text = if builders.is_empty() {
        &usual
    } else {
        &builders
    };
    machines_file::parse(text, "builders", &host.nix.system, &host.nix.files).unwrap_or_default()
}

/// Whether we can do what only root can.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
