//! launchd's services: those of other builders, and our own.

use super::launchd::Service;
use crate::finding::Finding;
use crate::host::Host;

/// Builders of others, by the label of their service: what they are called, and their port, if they have
/// one.
const OTHERS: [(&str, &str, Option<u16>); 3] = [
    (
        "org.nixos.linux-builder",
        "nix-darwin's linux-builder",
        Some(31022),
    ),
    (
        "org.nixos.rosetta-builderd",
        "nix-rosetta-builder",
        Some(31122),
    ),
    (NAT_BUILDER, "darwin-vz-nix", None),
];

/// The one whose guest is reached through the Mac's own NAT, and so by its DHCP server.
pub(super) const NAT_BUILDER: &str = "org.nixos.darwin-vz-nix";

/// Nix's daemon, by whoever has installed it.
const DAEMONS: [&str; 2] = ["org.nixos.nix-daemon", "systems.determinate.nix-daemon"];

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = OTHERS
        .iter()
        .filter_map(|other| conflict(host, other))
        .collect();
    let builders = host.known.builders.iter();
    let own = builders
        .filter_map(|it| it.file_name()?.to_str())
        .flat_map(|name| ["builder", "external"].map(|kind| format!("machinist.{kind}.{name}")));
    let labels = DAEMONS.map(str::to_owned).into_iter().chain(own);
    findings.extend(labels.filter_map(|label| ours(host, &label)));
    findings
}

fn conflict(host: &Host, (label, name, port): &(&str, &str, Option<u16>)) -> Option<Finding> {
    const ID: &str = "mac.conflict";
    let target = format!("system/{label}");
    // There is none.
    let service = Service::of(host, &target)?;
    let looked = format!("launchctl print {target}");
    if let Some(how) = service.failure() {
        return Some(
            Finding::failure(ID, &looked, format!("{name} {how}"))
                .why("Nix tries it first for each build, and goes on only after it has failed")
                .mend(format!(
                    "sudo launchctl bootout {target}, and take its line out of the machines"
                )),
        );
    }
    let port = port.map_or_else(String::new, |port| format!(", on port {port}"));
    let mut found = format!("{name}{port}, {}", service.state);
    if service.keep_alive {
        found += ", and started again whenever it stops";
    }
    Some(
        Finding::warning(ID, &looked, found)
            .why("two builders for the same builds: Nix shares the builds among them, whatever each can do")
            .mend("disable one of the two, or register machinist's with --mandatory-features nixos-test"),
    )
}

/// A service that builds of ours need.
fn ours(host: &Host, label: &str) -> Option<Finding> {
    const ID: &str = "mac.launchd";
    let target = format!("system/{label}");
    let service = Service::of(host, &target)?;
    let looked = format!("launchctl print {target}");
    let builder = label.strip_prefix("machinist.builder.");
    if let Some(error) = &service.socket_error {
        return Some(
            Finding::failure(ID, &looked, format!("its socket cannot be made: {error}"))
                .why("launchd starts the service for the first connection, and there can be none")
                .mend(format!(
                    "sudo launchctl bootout {target}; then bootstrap it again"
                )),
        );
    }
    if let Some(how) = service.failure() {
        let log = match builder {
            Some(name) => format!("machinist builder logs {name}"),
            None => format!(
                "log show --last 1h --predicate 'subsystem == \"com.apple.xpc.launchd\"' | grep {label}"
            ),
        };
        return Some(
            Finding::failure(ID, &looked, format!("it {how}"))
                .why("launchd starts what crashes again and again, ever more slowly")
                .mend(log)
                .mend(format!(
                    "sudo launchctl kickstart -k {target}, once that is mended"
                )),
        );
    }
    if builder.is_some() && service.keep_alive {
        return Some(
            Finding::failure(ID, &looked, "it is kept alive (KeepAlive)")
                .why("the builder starts again right after it has stopped for want of work")
                .mend(format!(
                    "machinist builder unit {} --write, and bootstrap it again",
                    builder.unwrap_or_default()
                )),
        );
    }
    Some(Finding::fine(ID, &looked, &service.state))
}
