//! A build that tells what builds may do: the agent's `probe` as the builder of a derivation that is new
//! each time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use machinist_guest::AGENT;

use crate::host::{BUILD, Host, Said};

/// What a build could do: each thing by name, with the reason where it could not.
pub(crate) type Abilities = BTreeMap<String, Result<(), String>>;

/// What is built, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trial {
    /// The features that it asks for.
    pub(crate) features: BTreeSet<String>,
    /// The machine that is to build it, as an entry of `builders`; here if there is none.
    pub(crate) entry: Option<String>,
}

/// The system that our probe runs on.
pub(crate) fn probe_system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

impl Trial {
    /// Builds it.
    ///
    /// # Errors
    /// It cannot be built: what Nix said.
    pub(crate) fn run(&self, host: &Host) -> Result<Abilities, String> {
        if AGENT.is_empty() {
            return Err("this machinist was built without the program that tries it".to_owned());
        }
        let program = host
            .scratch
            .join(format!("machinist-probe-{}", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&program)
            .and_then(|mut file| std::io::Write::write_all(&mut file, AGENT));
        let said = written
            .map_err(|error| format!("cannot write {}: {error}", program.display()))
            .and_then(|()| self.build(host, &program.display().to_string()));
        drop(std::fs::remove_file(&program));
        let said = said?;
        if !said.success {
            return Err(reason(&said));
        }
        let mut text = String::new();
        for output in said.stdout.lines() {
            text = std::fs::read_to_string(output)
                .map_err(|error| format!("the output {output} has not come back: {error}"))?;
        }
        Ok(parse(&text))
    }

    fn build(&self, host: &Host, program: &str) -> Result<Said, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nonce = format!("{}-{}", now.as_nanos(), std::process::id());
        let features: Vec<String> = self.features.iter().map(|it| format!("\"{it}\"")).collect();
        let expression = format!(
            "(derivation {{ name = \"machinist-probe-{nonce}\"; outputs = [ \"out\" \"second\" ]; system = \"{}\"; \
             builder = builtins.path {{ name = \"machinist-probe\"; path = {program}; }}; args = [ \"probe\" ]; \
             requiredSystemFeatures = [ {} ]; allowSubstitutes = false; preferLocalBuild = false; }}).all",
            probe_system(),
            features.join(" ")
        );
        let jobs = if self.entry.is_some() { "0" } else { "1" };
        let arguments = [
            "--no-out-link",
            "--max-jobs",
            jobs,
            "--timeout",
            "60",
            "--option",
            "substitute",
            "false",
            "--option",
            "builders",
            self.entry.as_deref().unwrap_or_default(),
            "--expr",
            &expression,
        ];
        host.ask("nix-build", arguments, BUILD)
            .map_err(|error| error.to_string())
    }
}

/// Why Nix did not build it: its first error that is no mere consequence.
fn reason(said: &Said) -> String {
    let mut lines = said.stderr.lines().map(str::trim);
    let told = [
        "error: ",
        "cannot build on ",
        "Reason: ",
        "Required system: ",
    ];
    let mut reasons: Vec<&str> = Vec::new();
    for line in lines.by_ref() {
        let of_interest = told.iter().any(|start| line.starts_with(start));
        let empty = line == "error:" || line.starts_with("error: Cannot build");
        if of_interest && !empty && !reasons.contains(&line) {
            reasons.push(line);
        }
    }
    if reasons.is_empty() {
        return said.last_line().to_owned();
    }
    reasons.join("; ")
}

/// The lines of the probe.
fn parse(text: &str) -> Abilities {
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let result = match rest.strip_prefix("no: ") {
            Some(why) => Err(why.to_owned()),
            None if rest == "ok" => Ok(()),
            None => return None,
        };
        Some((name.to_owned(), result))
    });
    lines.collect()
}

/// What a feature promises of the things that are tried.
pub(crate) fn promised(feature: &str) -> &'static [&'static str] {
    match feature {
        "kvm" => &["kvm"],
        "uid-range" => &[
            "ids",
            "chown",
            "mount-tmpfs",
            "mount-proc",
            "mount-cgroup2",
            "cgroup",
            "netns",
        ],
        "devnet" => &["tun"],
        "nixos-test" => &["pty"],
        _ => &[],
    }
}

/// What is promised and not kept, each as `FEATURE: thing: reason`.
pub(crate) fn broken_promises(features: &BTreeSet<String>, abilities: &Abilities) -> Vec<String> {
    let mut broken = Vec::new();
    for feature in features {
        for thing in promised(feature) {
            match abilities.get(*thing) {
                Some(Ok(())) => {}
                Some(Err(why)) => broken.push(format!("{feature}: {thing}: {why}")),
                None => broken.push(format!("{feature}: {thing}: it was not tried")),
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_says() {
        let abilities =
            parse("pty ok\nkvm no: Permission denied (os error 13)\nnoise\nids maybe\n");
        assert_eq!(abilities.len(), 2);
        let claims = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert!(broken_promises(&claims(&["nixos-test", "big-parallel"]), &abilities).is_empty());
        assert_eq!(
            broken_promises(&claims(&["kvm", "devnet"]), &abilities),
            [
                "devnet: tun: it was not tried",
                "kvm: kvm: Permission denied (os error 13)"
            ]
        );
    }

    #[test]
    fn what_nix_says() {
        let said = Said {
            stderr: "warning: x\nerror: Cannot build '/nix/store/x.drv'.\n       Reason: required system or feature not available\n".into(),
            ..Said::default()
        };
        assert_eq!(
            reason(&said),
            "Reason: required system or feature not available"
        );
    }
}
