//! One entry: a machine.

use std::collections::BTreeSet;

use super::BLANKS;
use super::number;
use super::uri::{StoreUri, UriError};

/// The system that every machine supports: that of what Nix builds by itself.
const BUILTIN: &str = "builtin";

/// A machine that Nix may build on.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// How it is reached.
    pub uri: StoreUri,
    /// The systems that it builds for.
    pub systems: BTreeSet<String>,
    /// The private key for SSH. Nix refuses it, when it connects, unless it is absolute.
    pub ssh_key: Option<String>,
    /// How many builds it gets at once, from this host. 0: none, ever.
    pub max_jobs: u32,
    /// How fast it is, compared with others: above 0, or no number at all (`nan`).
    pub speed: f32,
    /// The features that it has, beside the mandatory ones.
    pub features: BTreeSet<String>,
    /// The features that a build must ask for to be given to it.
    pub mandatory: BTreeSet<String>,
    /// The key of the host for SSH, as base64 of a line such as `ssh-ed25519 AAAA...`.
    pub host_key: Option<String>,
}

/// Why an entry is no machine. Columns are counted from 0, as in Nix's own messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Column 0 is `-`.
    #[error("there is no store URI in the first column")]
    NoUri,
    /// Column 0 is no URI.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Column 3.
    #[error("column 3, the number of jobs, is no number from 0 to 4294967295: '{0}'")]
    Jobs(String),
    /// Column 4.
    #[error("column 4, the speed, is no number: '{0}'")]
    Speed(String),
    /// Column 4, too.
    #[error("column 4, the speed, is less than 0: '{0}'")]
    NegativeSpeed(String),
    /// Column 7.
    #[error("column 7, the host key, is not base64, which has no character '{0}'")]
    HostKey(char),
}

/// Why a machine does not take a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It does not build for the system.
    System,
    /// It lacks these features.
    Lacks(Vec<String>),
    /// It takes only builds that ask for these features, and this one does not.
    Mandatory(Vec<String>),
    /// It has no slots.
    NoSlots,
}

impl Machine {
    /// Reads an entry. `host` is the system of the host, which counts where the entry names none.
    ///
    /// # Errors
    /// What would end Nix's build hook.
    pub fn parse(entry: &str, host: &str) -> Result<Self, MachineError> {
        let words: Vec<&str> = entry
            .split(BLANKS)
            .filter(|word| !word.is_empty())
            .collect();
        let word = |column: usize| words.get(column).copied().filter(|word| *word != "-");
        let uri = StoreUri::parse(word(0).ok_or(MachineError::NoUri)?)?;
        let max_jobs = match word(3) {
            None => 1,
            Some(text) => number::unsigned(text).ok_or_else(|| MachineError::Jobs(text.into()))?,
        };
        Ok(Self {
            uri,
            systems: word(1).map_or_else(|| [host.to_owned()].into(), list),
            ssh_key: word(2).map(str::to_owned),
            max_jobs,
            speed: word(4).map_or(Ok(1.0), speed)?,
            features: word(5).map(list).unwrap_or_default(),
            mandatory: word(6).map(list).unwrap_or_default(),
            host_key: word(7).map(host_key).transpose()?,
        })
    }

    /// Why it does not take a build for `system` that asks for `features`; none if it does.
    #[must_use]
    pub fn refuses(&self, system: &str, features: &BTreeSet<String>) -> Option<Refusal> {
        if system != BUILTIN && !self.systems.contains(system) {
            return Some(Refusal::System);
        }
        let has =
            |name: &&String| !self.features.contains(*name) && !self.mandatory.contains(*name);
        let lacks: Vec<_> = features.iter().filter(has).cloned().collect();
        if !lacks.is_empty() {
            return Some(Refusal::Lacks(lacks));
        }
        let wanted: Vec<_> = self.mandatory.difference(features).cloned().collect();
        if !wanted.is_empty() {
            return Some(Refusal::Mandatory(wanted));
        }
        (self.max_jobs == 0).then_some(Refusal::NoSlots)
    }

    /// All features that it is said to have.
    #[must_use]
    pub fn all_features(&self) -> BTreeSet<String> {
        self.features.union(&self.mandatory).cloned().collect()
    }

    /// The longest name of a file that Nix makes for one of its slots, in bytes. Above 255, every build
    /// that it is considered for fails.
    #[must_use]
    pub fn slot_name_length(&self) -> usize {
        let last = self.max_jobs.saturating_sub(1);
        self.uri.to_string().len() + "-".len() + last.to_string().len()
    }

    /// Its entry. What [`Machine::parse`] makes of that is this machine again.
    #[must_use]
    pub fn entry(&self) -> String {
        let list = |set: &BTreeSet<String>| match set.is_empty() {
            true => "-".to_owned(),
            false => set.iter().cloned().collect::<Vec<_>>().join(","),
        };
        format!(
            "{} {} {} {} {} {} {} {}",
            self.uri,
            list(&self.systems),
            self.ssh_key.as_deref().unwrap_or("-"),
            self.max_jobs,
            self.speed,
            list(&self.features),
            list(&self.mandatory),
            self.host_key.as_deref().unwrap_or("-"),
        )
    }
}

fn list(text: &str) -> BTreeSet<String> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn speed(text: &str) -> Result<f32, MachineError> {
    let speed = number::float(text).ok_or_else(|| MachineError::Speed(text.into()))?;
    if speed < 0.0 {
        return Err(MachineError::NegativeSpeed(text.into()));
    }
    Ok(if speed == 0.0 { 1.0 } else { speed })
}

/// What follows `=` is not looked at, and that there is too little of it is no mistake.
fn host_key(text: &str) -> Result<String, MachineError> {
    let digits = text.split('=').next().unwrap_or_default();
    let wrong = digits
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == '+' || *c == '/'));
    match wrong {
        Some(c) => Err(MachineError::HostKey(c)),
        None => Ok(text.to_owned()),
    }
}
