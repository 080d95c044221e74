//! The machines that Nix builds on, as its files have them.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use machinist_builder::machines_file::{self, LintKind, Listed, expand, lint};
use machinist_builder::nix_conf::NixConf;

use super::listed;
use crate::finding::{Finding, Repair};
use crate::host::Host;

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let mut findings = vec![effective(host, conf)];
    findings.extend(asked(host, &findings[0].found));
    findings.extend(parse_and_lint(host, conf));
    findings.extend(owner(host));
    let machines = listed(host, conf);
    let keys: BTreeSet<&str> = machines
        .iter()
        .filter_map(|it| it.machine.ssh_key.as_deref())
        .collect();
    findings.extend(keys.into_iter().filter_map(|path| key(host, path)));
    findings.extend(programs(host, &machines));
    findings
}

/// What `builders` is, and who set it.
fn effective(host: &Host, conf: &NixConf) -> Finding {
    const ID: &str = "builders.effective";
    let (builders, set_by) = conf.builders(&host.nix.directory);
    let usual = format!("@{}", host.nix.machines().display());
    let mut looked = match &set_by {
        Some(place) => format!("builders, set by {place}"),
        None => "builders, which nobody sets".to_owned(),
    };
    if host.nix.builds.hidden {
        looked += " (what the daemon's environment sets, only root can see)";
    }
    let in_file = set_by.as_ref().is_none_or(|it| it.origin.starts_with('/'));
    let place = set_by.map(|place| place.to_string()).unwrap_or_default();
    if builders.is_empty() {
        let mend = match in_file {
            true => format!(
                "remove the line {place}, or write 'builders = {usual}' there; then restart the daemon"
            ),
            false => format!(
                "take builders out of {place}: systemctl edit nix-daemon, or its job's property list; then restart the daemon"
            ),
        };
        return Finding::failure(ID, &looked, "it is empty")
            .why("Nix builds on no machine at all, whatever its file of machines has")
            .mend(mend);
    }
    let includes = builders.split(';').any(|part| part.trim() == usual);
    if includes || !host.at(&host.nix.machines().display().to_string()).exists() {
        return Finding::fine(ID, &looked, builders);
    }
    Finding::warning(ID, &looked, format!("{builders}, without {usual}"))
        .why(format!(
            "Nix does not look into {}, which is there",
            host.nix.machines().display()
        ))
        .mend(format!(
            "write 'builders = {builders} ; {usual}' at {place}; then restart the daemon"
        ))
}

/// What the caller's own settings ask the daemon for.
fn asked(host: &Host, daemons: &str) -> Option<Finding> {
    const ID: &str = "builders.asked";
    let (builders, place) = host.nix.asked_for()?;
    let looked = format!("builders, set by {place}");
    let mend = format!("take builders out of {place}");
    if builders.is_empty() {
        let finding = Finding::failure(ID, &looked, "it is empty");
        return Some(
            finding
                .why("anybody may ask the daemon for no machines at all, and it heeds that: only this host builds")
                .mend(mend),
        );
    }
    if builders == daemons {
        return Some(Finding::fine(ID, &looked, builders));
    }
    let finding = match super::nix::is_trusted(host) {
        Some(false) => Finding::warning(
            ID,
            &looked,
            format!("{builders}; the daemon does not trust this user"),
        )
        .why("the daemon passes over it, with a warning, and takes its own machines")
        .mend("write the user to trusted-users in /etc/nix/nix.conf, and restart the daemon"),
        _ => Finding::warning(ID, &looked, builders)
            .why("this user's builds go there, and not to the machines that the daemon knows"),
    };
    Some(finding.mend(mend))
}

fn parse_and_lint(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let (builders, _) = conf.builders(&host.nix.directory);
    let files = &host.nix.files;
    let parsed = machines_file::parse(&builders, "builders", &host.nix.system, files);
    let machines = match parsed {
        Ok(machines) => machines,
        Err(error) => {
            let mut found = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                let source = source.to_string();
                if !found.contains(&source) {
                    found = format!("{found}: {source}");
                }
            }
            return vec![
                Finding::failure("machines.parse", &builders, found)
                    .why("Nix's build hook ends at it, and with it every build of this host, even those that need no machine")
                    .mend("mend or remove that line"),
            ];
        }
    };
    let number = machines.len();
    let mut findings = vec![Finding::fine(
        "machines.parse",
        &builders,
        format!("{number} machine(s)"),
    )];
    let expanded = expand(&builders, "builders", files).unwrap_or_default();
    let usual = host.nix.machines().display().to_string();
    for lint in lint(&expanded, &machines) {
        // That there is no file where nobody has written one is as it should be.
        if matches!(&lint.kind, LintKind::MissingFile(path) if *path == usual) {
            continue;
        }
        let place = lint.place.to_string();
        let finding = match lint.kind {
            LintKind::TooLong(_) => {
                Finding::failure("machines.lint", &place, lint.kind.to_string())
            }
            _ => Finding::warning("machines.lint", &place, lint.kind.to_string()),
        };
        findings.push(
            finding
                .why("Nix takes it without a word")
                .mend(format!("mend or remove: {}", lint.text)),
        );
    }
    findings
}

/// Who makes the file.
fn owner(host: &Host) -> Option<Finding> {
    const ID: &str = "machines.owner";
    /// Where modules of NixOS and nix-darwin have what they link to from `/etc`.
    const STATIC: &str = "/etc/static/nix/machines";
    let file = host.nix.machines();
    let shown = file.display().to_string();
    let path = host.nix.files.find(&file);
    let real = std::fs::canonicalize(&path).ok()?;
    if real.components().any(|part| part.as_os_str() == "store") && path.is_symlink() {
        let found = format!(
            "a module of NixOS or nix-darwin makes it ({}): set nix.buildMachines, and never write to it",
            real.display()
        );
        return Some(Finding::fine(ID, &shown, found));
    }
    if host.at(STATIC).exists() {
        return Some(
            Finding::warning(ID, &shown, format!("a module makes {STATIC}, and this is another file in its place"))
                .why("the system's next activation writes over it, or stops at it; whoever is later wins")
                .mend("set nix.buildMachines = lib.mkForce [ ... ], remove the file, and activate the system")
                .mend(format!("or let Nix look into a second file: nix.settings.builders = lib.mkForce \"@{shown} ; @/etc/machinist/machines\"")),
        );
    }
    Some(Finding::fine(ID, &shown, "a file that may be edited"))
}

/// A private key, as ssh wants it when root uses it.
fn key(host: &Host, path: &str) -> Option<Finding> {
    const ID: &str = "machines.key";
    const MATTERS: &str = "the daemon connects as root, and ssh refuses such a key";
    if !Path::new(path).is_absolute() {
        // The lints tell of it.
        return None;
    }
    let file = host.at(path);
    let failure = |found: String| Some(Finding::failure(ID, path, found).why(MATTERS));
    let Ok(metadata) = file.metadata() else {
        return failure("it is not there".to_owned()).map(|it| {
            it.mend(format!(
                "put the key there: install -m 600 -o root KEY {path}"
            ))
        });
    };
    if path.starts_with("/nix/store") {
        return Some(
            Finding::failure(ID, path, "it lies in the store, where every user reads it")
                .why("whoever has the key is the builder's user")
                .mend("make a new key outside of the store, and let the builder forget this one"),
        );
    }
    let mode = metadata.permissions().mode() & 0o777;
    // ssh looks at the rights of a key only where the one who calls it owns it.
    if metadata.uid() == 0 && mode & 0o077 != 0 {
        return failure(format!("its rights are {mode:o}")).map(|it| {
            it.mend(format!("chmod 600 {path}"))
                .repair(Repair::KeepToOwner(file))
        });
    }
    Some(Finding::fine(ID, path, format!("its rights are {mode:o}")))
}

/// The programs that Nix runs in the place of ssh.
fn programs(host: &Host, machines: &[Listed]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for machine in machines {
        let Some(program) = machine.machine.uri.local_program() else {
            continue;
        };
        let word = program.split_whitespace().next().unwrap_or_default();
        let looked = format!("{}, at {}", word, machine.entry.place);
        let checked = machinist_builder::registration::program(Path::new(word), &host.nix.files);
        findings.push(match checked {
            Ok(()) => Finding::fine("machines.program", &looked, "it is there"),
            Err(error) => Finding::failure("machines.program", &looked, error.to_string())
                .why("Nix runs it to reach the machine")
                .mend("register the builder again, from where machinist stays"),
        });
    }
    findings
}
