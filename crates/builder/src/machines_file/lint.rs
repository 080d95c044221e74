//! What Nix takes without a word though nobody can have meant it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Expanded, Listed, Place};

/// The longest name of a file.
const NAME_MAX: usize = 255;

/// So many bytes a key's line has, at least: that of an Ed25519 key has 80.
const SHORTEST_KEY: usize = 60;

/// Something suspicious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// What it is.
    pub kind: LintKind,
    /// Where it stands.
    pub place: Place,
    /// What is written there.
    pub text: String,
}

/// The kinds of suspicious things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LintKind {
    /// An included file is not there, which Nix passes over.
    MissingFile(String),
    /// The third column is a system: there is a blank after a comma.
    KeyIsSystem(String),
    /// The key's path is not absolute: connecting fails.
    RelativeKey(String),
    /// No slot, ever: a build that no other machine takes waits for ever.
    NoSlots,
    /// A speed that is no number: which machine is chosen is chance.
    Speed,
    /// A word in quotes, which are no syntax here.
    Quotes(String),
    /// An earlier machine has the same URI: they share their slots.
    Duplicate(Place),
    /// An earlier machine is on this host, too, and builds for the same systems: one builder by two
    /// names, as where a module has added a machine to those that another one has written.
    TwoOfThisHost(Place),
    /// `localhost` alone is reached by `ssh` to no other host: it builds here, for ever.
    BareLocalhost,
    /// `user@localhost`: Nix from 2.31.0 to 2.31.2 runs no `ssh` for it.
    UserAtLocalhost,
    /// What a Unix socket's machine builds does not come back.
    UnixSocket,
    /// A scheme's name before a name that has one.
    TwoSchemes,
    /// The name of a slot's file is too long: every build that the machine is considered for fails.
    TooLong(usize),
    /// The host key is no line of type and key: wrapped, cut off, or the wrong part of the file.
    HostKey,
    /// The entry is so short, and looks so much like base64, that it must be the rest of a wrapped key.
    WrappedKey,
}

impl fmt::Display for LintKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFile(path) => write!(f, "{path} is not there: Nix says nothing and has no machine from it"),
            Self::KeyIsSystem(word) => write!(f, "'{word}' is taken for the path of an SSH key: there is a blank after the comma between systems"),
            Self::RelativeKey(path) => write!(f, "the SSH key '{path}' is no absolute path: connecting fails"),
            Self::NoSlots => f.write_str("0 jobs: the machine is never free, and a build that only it could do waits for ever"),
            Self::Speed => f.write_str("a speed that is no finite number: which machine is chosen is left to chance"),
            Self::Quotes(word) => write!(f, "{word} has quotes, which are no syntax here but part of the word"),
            Self::Duplicate(place) => write!(f, "the same URI as at {place}: the two share their slots, the second adds nothing"),
            Self::TwoOfThisHost(place) => write!(f, "a second machine of this host for the same systems, after that at {place}: if it is the same builder by another name, Nix tries the one that fails for each build (nix.buildMachines adds to what modules have; lib.mkForce replaces it)"),
            Self::BareLocalhost => f.write_str("'localhost' without a program is this host itself, which builds nothing that it could not build anyway"),
            Self::UserAtLocalhost => f.write_str("Nix 2.31.0 to 2.31.2 take USER@localhost for this host itself; others run ssh to it, on port 22 unless it says otherwise"),
            Self::UnixSocket => f.write_str("a machine by Unix socket builds, but its outputs do not come back, and the host's settings replace its own"),
            Self::TwoSchemes => f.write_str("two schemes, one after the other: it cannot be reached"),
            Self::TooLong(length) => write!(f, "Nix names files after the URI, here of {length} bytes, and 255 are the most: every build fails with 'File name too long'"),
            Self::HostKey => f.write_str("the host key is not base64 of a line such as 'ssh-ed25519 AAAA...': cut off, wrapped, or only a part of it"),
            Self::WrappedKey => f.write_str("this looks like the rest of a host key that base64 wrapped: it is taken for a machine"),
        }
    }
}

/// All that is suspicious about machines that Nix can read, in order.
#[must_use]
pub fn lint(expanded: &Expanded, machines: &[Listed]) -> Vec<Lint> {
    let mut lints: Vec<Lint> = expanded
        .missing
        .iter()
        .map(|(path, place)| {
            let path = path.display().to_string();
            Lint {
                text: format!("@{path}"),
                kind: LintKind::MissingFile(path),
                place: place.clone(),
            }
        })
        .collect();
    let mut seen = BTreeMap::new();
    for listed in machines {
        let mut kinds = of_machine(listed);
        let uri = listed.machine.uri.to_string();
        match seen.get(&uri) {
            Some(place) => kinds.push(LintKind::Duplicate(Place::clone(place))),
            None => drop(seen.insert(uri, listed.entry.place.clone())),
        }
        if let Some(earlier) = twin(listed, machines) {
            kinds.push(LintKind::TwoOfThisHost(earlier.entry.place.clone()));
        }
        lints.extend(kinds.into_iter().map(|kind| Lint {
            kind,
            place: listed.entry.place.clone(),
            text: listed.entry.text.clone(),
        }));
    }
    lints
}

/// Names by which SSH reaches builders of this host: its own, and those that modules of others give.
const THIS_HOST: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "linux-builder",
    "rosetta-builder",
    "darwin-vz-nix",
];

/// An earlier machine that is reached by SSH on this host as well, for the same systems.
fn twin<'a>(listed: &Listed, machines: &'a [Listed]) -> Option<&'a Listed> {
    let is_here = |it: &Listed| {
        let authority = it.machine.uri.authority();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let name = |name: &&str| {
            let rest = host.strip_prefix(*name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        it.machine.uri.is_ssh() && THIS_HOST.iter().any(name)
    };
    if !is_here(listed) {
        return None;
    }
    let earlier = machines
        .iter()
        .take_while(|it| it.entry.place != listed.entry.place);
    earlier.filter(|it| is_here(it)).find(|it| {
        it.machine.uri != listed.machine.uri
            && !it.machine.systems.is_disjoint(&listed.machine.systems)
    })
}

fn of_machine(listed: &Listed) -> Vec<LintKind> {
    let machine = &listed.machine;
    let mut kinds = Vec::new();
    if looks_like_base64(&listed.entry.text) {
        return vec![LintKind::WrappedKey];
    }
    if let Some(key) = &machine.ssh_key {
        if looks_like_system(key) {
            kinds.push(LintKind::KeyIsSystem(key.clone()));
        } else if !Path::new(key).is_absolute() {
            kinds.push(LintKind::RelativeKey(key.clone()));
        }
    }
    if machine.max_jobs == 0 {
        kinds.push(LintKind::NoSlots);
    }
    if !machine.speed.is_finite() {
        kinds.push(LintKind::Speed);
    }
    let quoted = listed.entry.text.split_ascii_whitespace();
    for word in quoted.filter(|word| word.starts_with(['\'', '"']) || word.ends_with(['\'', '"'])) {
        kinds.push(LintKind::Quotes(word.to_owned()));
    }
    kinds.extend(of_uri(listed));
    if machine.slot_name_length() > NAME_MAX {
        kinds.push(LintKind::TooLong(machine.slot_name_length()));
    }
    if machine
        .host_key
        .as_deref()
        .is_some_and(|key| !is_key_line(key))
    {
        kinds.push(LintKind::HostKey);
    }
    kinds
}

fn of_uri(listed: &Listed) -> Option<LintKind> {
    let uri = &listed.machine.uri;
    let authority = uri.authority();
    match uri.scheme()? {
        "unix" => Some(LintKind::UnixSocket),
        "ssh" | "ssh-ng" => match authority.split_once('@') {
            _ if authority.contains("//") => Some(LintKind::TwoSchemes),
            None if authority == "localhost" => uri
                .local_program()
                .is_none()
                .then_some(LintKind::BareLocalhost),
            Some((_, "localhost")) => Some(LintKind::UserAtLocalhost),
            Some((_, host)) if host.starts_with("localhost:") => Some(LintKind::UserAtLocalhost),
            _ => None,
        },
        _ => None,
    }
}

fn looks_like_system(word: &str) -> bool {
    let systems = word.split(',').filter(|it| !it.is_empty());
    let mut known = systems.map(|it| {
        ["-linux", "-darwin", "-freebsd"]
            .iter()
            .any(|os| it.ends_with(os))
    });
    !word.contains('/') && known.next() == Some(true) && known.all(|it| it)
}

/// One word of letters of both sizes and digits, longer than a host's name would be without a dot.
fn looks_like_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let only = digits
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
    let has = |kind: fn(&u8) -> bool| digits.as_bytes().iter().any(kind);
    only && (text.ends_with('=') || digits.len() > 24)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
}

/// Whether it is base64 of a whole line of a public key.
fn is_key_line(base64: &str) -> bool {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let Ok(bytes) = GeneralPurpose::new(&STANDARD, config).decode(base64) else {
        return false;
    };
    let line = String::from_utf8_lossy(&bytes);
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| kind.starts_with(start));
    known && key.starts_with("AAAA") && line.trim().len() >= SHORTEST_KEY && is_whole(key)
}

/// Whether a key's own base64 is as long as its parts say: each has its length in front of it.
fn is_whole(key: &str) -> bool {
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(key) else {
        return false;
    };
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk() else {
            return false;
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(after) = after.get(length..) else {
            return false;
        };
        rest = after;
    }
    true
}
