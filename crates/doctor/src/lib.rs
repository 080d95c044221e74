//! What a host can and cannot do, how we know, and how to mend it.
//!
//! Each check looks at one thing and says what it looked at, what it found, why that matters, and what
//! mends it. What can be tried is tried: a feature is what a build can do, not what a file says. Nothing
//! is changed, but by a [`Repair`] that somebody asks for.

#![forbid(unsafe_code)]

mod checks;
mod finding;
mod host;
mod trial;

pub use finding::{Finding, Level, Repair, worst};
pub use host::{Host, Known};

use machinist_builder::nix_conf::{NixConf, NixConfError};

/// What the host is to be fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Tests with VMs.
    Vm,
    /// Tests with containers.
    Container,
    /// Tests with both.
    Mixed,
    /// Builds by Nix, here and on its machines.
    Builder,
}

/// Looks at everything that matters for these purposes. `each` is told of each finding at once: some
/// take a while.
pub fn examine(host: &Host, purposes: &[Purpose], each: &mut dyn FnMut(&Finding)) -> Vec<Finding> {
    let wants = |purpose| purposes.contains(&purpose);
    let mut findings = Vec::new();
    let mut tell = |found: Vec<Finding>| {
        found.iter().for_each(&mut *each);
        findings.extend(found);
    };
    if wants(Purpose::Vm) || wants(Purpose::Mixed) {
        tell(checks::vm::check(host));
    }
    if wants(Purpose::Container) || wants(Purpose::Mixed) {
        tell(checks::container::check(host));
    }
    if wants(Purpose::Builder) {
        let conf = host.nix.conf();
        tell(checks::nix::check(host, conf.as_ref()));
        // Without a configuration nothing else can be said.
        if let Ok(conf) = &conf {
            tell(checks::machines::check(host, conf));
            tell(checks::ssh::check(host, conf));
            tell(checks::external::check(host, conf));
            tell(checks::takers::check(host, conf));
            if cfg!(target_os = "linux") {
                tell(checks::linux::check(host, conf));
            }
            tell(checks::remote::check(host, conf));
        }
        if cfg!(target_os = "macos") {
            tell(checks::macos::check(host));
        }
    }
    findings
}

/// Nix's configuration, or why it cannot be read.
type Conf<'a> = Result<&'a NixConf, &'a NixConfError>;

#[cfg(test)]
mod tests;
