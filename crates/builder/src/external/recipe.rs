//! A build in the words of `nix-store --serve`: the derivation goes in, how it ended comes out.
//!
//! Numbers are eight bytes, little endian; text is its length, its bytes, and zeros to a multiple of
//! eight. The version that we speak has been understood since Nix 2.4.

use std::collections::BTreeMap;

use super::asked::{Asked, Build};

/// What the client says first, and what it hears.
const CLIENT: u64 = 0x390c_9deb;
const SERVER: u64 = 0x5452_eecb;
/// 2.7: the first that can keep the directories of failed builds.
const VERSION: u64 = 0x207;
/// "Build this derivation", which needs no file of its own.
const BUILD_DERIVATION: u64 = 8;
/// The derivation's path, of which only the name counts: its store has no other.
const DERIVATION: &str = "/nix/store/00000000000000000000000000000000-";
/// How Nix tells that a build has succeeded: built, substituted, there already.
const SUCCESSES: [u64; 4] = [0, 1, 2, 13];

/// How a build in the machine has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Built,
    Exit(i32),
    Signal(i32),
    /// Nix could not, or would not, build it.
    Failed(String),
}

/// The request. Nix runs `program` in its sandbox, with the words that follow; what the build's own
/// program, environment and files are, that one knows.
pub(super) fn request(asked: &Asked, program: &[&str]) -> Vec<u8> {
    let build = &asked.build;
    let mut to = Words::default();
    to.number(CLIENT);
    to.number(VERSION);
    to.number(BUILD_DERIVATION);
    let name = name(build);
    to.text(&format!("{DERIVATION}{name}.drv"));
    to.count(build.outputs.len());
    for (name, path) in &build.outputs {
        to.text(name);
        to.text(path);
        let fixed = asked.fixed.as_ref();
        to.text(fixed.map_or("", |it| &it.method));
        to.text(fixed.map_or("", |it| &it.hash));
    }
    to.count(build.input_paths.len());
    build.input_paths.iter().for_each(|path| to.text(path));
    to.text(&build.system);
    // What Nix builds by itself is no program, and takes its orders from the environment.
    let program = if is_builtin(build) { &[] } else { program };
    let own = program.iter().copied().map(str::to_owned);
    let words: Vec<String> = own
        .chain([build.builder.clone()])
        .chain(build.args.clone())
        .collect();
    to.text(&words[0]);
    to.count(words.len() - 1);
    words[1..].iter().for_each(|word| to.text(word));
    let mut env = BTreeMap::from([("name", name)]);
    if is_builtin(build) {
        let set = build.env.iter();
        env.extend(set.map(|(name, value)| (name.as_str(), value.as_str())));
    }
    to.count(env.len());
    for (name, value) in env {
        to.text(name);
        to.text(value);
    }
    // No limits of time, silence and log: those are kept outside. Build once.
    for number in [0, 0, 0, 0, 0] {
        to.number(number);
    }
    // Keep the directory of a build that fails.
    to.number(1);
    to.0
}

fn is_builtin(build: &Build) -> bool {
    build.builder.starts_with("builtin:")
}

/// The derivation's name: that of its first output, which has nothing after it. A fixed output's path
/// is made of it.
fn name(build: &Build) -> &str {
    let path = build.outputs.get("out");
    let path = path.or_else(|| build.outputs.values().next());
    path.and_then(|path| path.rsplit('/').next()?.split_once('-'))
        .map_or("build", |(_, name)| name)
}

/// How it ended, once enough of the answer has come.
///
/// # Errors
/// The answer is none.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Ended>, String> {
    let mut from = bytes;
    let Some(magic) = number(&mut from) else {
        return Ok(None);
    };
    if magic != SERVER {
        return Err("its Nix says something that is not its protocol".into());
    }
    let answer = number(&mut from).and_then(|_version| {
        let status = number(&mut from)?;
        let length = usize::try_from(number(&mut from)?).ok()?;
        let text = String::from_utf8_lossy(from.get(..length)?).into_owned();
        Some((status, text))
    });
    Ok(answer.map(|(status, text)| ended(status, &text)))
}

fn ended(status: u64, text: &str) -> Ended {
    if SUCCESSES.contains(&status) {
        return Ended::Built;
    }
    let text = without_colours(text);
    let after = |words: &str| -> Option<i32> {
        let (_, rest) = text.split_once(words)?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit());
        rest[..digits.unwrap_or(rest.len())].parse().ok()
    };
    if let Some(code) = after("failed with exit code ") {
        Ended::Exit(code)
    } else if let Some(signal) = after("failed due to signal ") {
        Ended::Signal(signal)
    } else {
        Ended::Failed(text)
    }
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let (head, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*head))
}

#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u64, text: &str) -> Vec<u8> {
        let mut words = Words::default();
        words.number(SERVER);
        words.number(VERSION);
        words.number(status);
        words.text(text);
        words.0
    }

    #[test]
    fn answers() {
        let failed = "Cannot build '/nix/store/x.drv'.\nReason: \u{1b}[31;1mbuilder failed with exit code \u{1b}[35;1m7\u{1b}[0m.";
        let whole = said(3, failed);
        assert_eq!(answer(&whole), Ok(Some(Ended::Exit(7))));
        for length in 0..whole.len() - 8 {
            assert_eq!(answer(&whole[..length]), Ok(None), "{length}");
        }
        assert_eq!(answer(&said(0, "")), Ok(Some(Ended::Built)));
        let killed = "builder failed due to signal 9 (Killed)";
        assert_eq!(answer(&said(3, killed)), Ok(Some(Ended::Signal(9))));
        let other = answer(&said(9, "no such system"));
        assert_eq!(other, Ok(Some(Ended::Failed("no such system".into()))));
        assert!(answer(b"error: what").is_err());
    }

    #[test]
    fn text_is_filled_up() {
        let mut words = Words::default();
        words.text("abc");
        assert_eq!(words.0, b"\x03\0\0\0\0\0\0\0abc\0\0\0\0\0");
        words.text("12345678");
        assert_eq!(words.0.len(), 32);
    }
}
