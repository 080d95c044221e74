//! The inside of builders of machinist's: what their builds stand on.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use machinist_builder::machines_file::Listed;

use crate::finding::Finding;
use crate::host::{BUILD, Host};

const ID: &str = "builder.guest";

/// What a builder is asked. One line for each thing.
const QUESTION: &str = include_str!("guest.sh");

/// How far its clock may be from ours, in seconds.
const SKEW: f64 = 2.0;
/// A store with less space than this, in bytes, will be full soon.
const SPACE: u64 = 2 << 30;
/// The same, in files.
const FILES: u64 = 100_000;

/// One builder, whose machine has just answered; none if it is not one of machinist's.
pub(crate) fn check(host: &Host, listed: &Listed) -> Option<Finding> {
    let (program, name) = own(listed.machine.uri.local_program()?)?;
    let looked = format!("machinist builder shell {name}");
    let words = ["builder", "shell", &name, "--", "sh", "-c", QUESTION];
    let before = now();
    let said = match host.ask(&program, words, BUILD) {
        Ok(said) if said.success => said.stdout,
        Ok(said) => return Some(Finding::unknown(ID, &looked, said.last_line())),
        Err(error) => return Some(Finding::unknown(ID, &looked, error.to_string())),
    };
    let answer = Answer::of(&said);
    let wrong = answer.wrong(before, now());
    if wrong.is_empty() {
        let found = "terminals, sandbox, clock and space are as they should be";
        return Some(Finding::fine(ID, &looked, found));
    }
    let finding = Finding::warning(ID, &looked, wrong.join("; "))
        .why("builds there fail, or are not what they would be elsewhere");
    Some(answer.mends(&name).into_iter().fold(finding, Finding::mend))
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// The program and the builder's name of `PROGRAM connect NAME`.
fn own(command: &str) -> Option<(String, String)> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        [program, "connect", name] if Path::new(program).is_absolute() => {
            Some((program.to_owned(), name.to_owned()))
        }
        _ => None,
    }
}

/// What a builder says of itself.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    terminals: Option<bool>,
    /// The mode of its `/dev/kvm`, if it has one.
    kvm: Option<u32>,
    /// The mode and the owner of its `/nix`.
    nix: Option<(u32, u32)>,
    space: Option<u64>,
    files: Option<u64>,
    /// Seconds since 1970.
    clock: Option<f64>,
    sandbox: Option<String>,
    fallback: Option<String>,
    builders: Option<String>,
    locks: Option<u64>,
    /// The NixOS that it runs, where it runs one.
    system: Option<String>,
}

impl Answer {
    /// What helps, whatever is wrong.
    fn mends(&self, name: &str) -> [String; 2] {
        let stop = format!("machinist builder stop {name}");
        let settings = match &self.system {
            None => format!(
                "{stop}; the next build starts it anew, with the settings that it should have"
            ),
            Some(system) => format!(
                "its settings are those of its NixOS ({system}): change them there (`nix.settings`), build it, \
                 and {stop}; machinist builder create {name} --keep --system TOPLEVEL"
            ),
        };
        let full = format!(
            "where its store is full: machinist builder shell {name} -- nix-collect-garbage"
        );
        [settings, full]
    }

    fn of(text: &str) -> Self {
        let mut answer = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = value.split_whitespace().collect();
            let octal = |word: &str| u32::from_str_radix(word, 8).ok();
            match (name, &words[..]) {
                ("terminals", [word]) => answer.terminals = Some(*word == "yes"),
                ("kvm", [mode]) => answer.kvm = octal(mode),
                ("nix", [mode, owner]) => answer.nix = octal(mode).zip(owner.parse().ok()),
                ("space", [blocks, size]) => {
                    let product = blocks.parse::<u64>().ok().zip(size.parse::<u64>().ok());
                    answer.space = product.map(|(blocks, size)| blocks.saturating_mul(size));
                }
                // Some file systems have no fixed number of files.
                ("files", [free, all]) if *all != "0" => answer.files = free.parse().ok(),
                ("clock", [seconds]) => answer.clock = seconds.parse().ok(),
                ("sandbox", _) => answer.sandbox = Some(value.to_owned()),
                ("sandbox-fallback", _) => answer.fallback = Some(value.to_owned()),
                ("builders", _) => answer.builders = Some(value.to_owned()),
                ("system", [path]) => answer.system = Some((*path).to_owned()),
                ("locks", [number]) => answer.locks = number.parse().ok(),
                _ => {}
            }
        }
        answer
    }

    /// What is not as it should be, if it was asked between these two moments.
    fn wrong(&self, before: f64, after: f64) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut say = |text: String| wrong.push(text);
        if self.terminals == Some(false) {
            say("it has no /dev/pts/ptmx, so its builds have no terminals".into());
        }
        if let Some(mode) = self.kvm.filter(|mode| mode & 0o666 != 0o666) {
            say(format!(
                "its /dev/kvm has mode {mode:o}, and builds may not open it"
            ));
        }
        if let Some((mode, owner)) = self.nix.filter(|it| *it != (0o755, 0)) {
            say(format!("its /nix has mode {mode:o} and is user {owner}'s"));
        }
        if let Some(space) = self.space.filter(|space| *space < SPACE) {
            say(format!("its store has {} MiB left", space >> 20));
        }
        if let Some(files) = self.files.filter(|files| *files < FILES) {
            say(format!("its store can have {files} more files"));
        }
        if let Some(clock) = self.clock {
            let skew = (before - clock).max(clock - after).max(0.0);
            if skew > SKEW {
                say(format!("its clock is {skew:.0} s off"));
            }
        }
        let settings = [
            ("sandbox", &self.sandbox, "true"),
            ("sandbox-fallback", &self.fallback, "false"),
            ("builders", &self.builders, ""),
        ];
        for (name, value, right) in settings {
            if let Some(value) = value.as_deref().filter(|value| *value != right) {
                say(format!("its {name} is '{value}'"));
            }
        }
        if let Some(locks) = self.locks.filter(|locks| *locks > 0) {
            say(format!(
                "{locks} files of its store are locks of long ago: somebody else's store"
            ));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a container builder.
    const SAID: &str = "terminals yes\nkvm 666\nnix 755 0\nspace 12110243 4096\nfiles 6553600 7340032\nclock 1795291053.553920409\nsandbox true\nsandbox-fallback false\nbuilders \nlocks 0\n";

    #[test]
    fn all_is_well() {
        let answer = Answer::of(SAID);
        assert_eq!(answer.nix, Some((0o755, 0)));
        assert_eq!(answer.wrong(1_795_291_052.0, 1_795_291_054.0), [""; 0]);
        // What it does not tell is not held against it.
        assert_eq!(Answer::of("noise\n").wrong(0.0, 1.0), [""; 0]);
        // A file system without a number of files.
        let other = Answer::of("files 0 0\n");
        assert_eq!(other.wrong(0.0, 0.0), [""; 0]);
    }

    #[test]
    fn each_thing_that_can_be_wrong() {
        let said = "terminals no\nkvm 660\nnix 1777 0\nspace 100 4096\nfiles 5 7340032\nclock 100.5\nsandbox relaxed\nsandbox-fallback true\nbuilders @/etc/nix/machines\nlocks 3\n";
        let wrong = Answer::of(said).wrong(200.0, 201.0);
        assert_eq!(wrong.len(), 10, "{wrong:#?}");
        assert!(
            wrong.contains(&"its clock is 100 s off".to_owned()),
            "{wrong:#?}"
        );
    }

    #[test]
    fn a_nixos_is_mended_where_it_is_made() {
        let [ours, _] = Answer::of(SAID).mends("linux");
        assert!(ours.starts_with("machinist builder stop linux; the next build"));
        let nixos = Answer::of("system /nix/store/x-nixos-system\n");
        let [theirs, _] = nixos.mends("linux");
        assert!(theirs.contains("(/nix/store/x-nixos-system): change them there"));
        assert!(theirs.ends_with("create linux --keep --system TOPLEVEL"));
    }

    #[test]
    fn builders_of_ours() {
        let found = own("/usr/bin/machinist connect linux").unwrap();
        assert_eq!(found, ("/usr/bin/machinist".into(), "linux".into()));
        assert_eq!(own("/usr/bin/ssh -F /x builder nix-daemon"), None);
        assert_eq!(own("machinist connect linux"), None);
    }
}
