//! What went into a snapshot, and the key that this gives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Changes whenever the same parts would give another snapshot: the files in it, or what is done to
/// a machine before it is saved and after it is restored.
const FORMAT: u32 = 1;

/// One thing that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it is, such as `kernel` or `-device`.
    pub name: String,
    /// Its value, or the hash of its contents.
    pub value: String,
}

/// Everything that went into a machine up to the moment in which it was saved, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(Vec<Part>);

impl Default for Parts {
    fn default() -> Self {
        let mut parts = Self(Vec::new());
        parts.add("format", FORMAT.to_string());
        parts
    }
}

impl Parts {
    /// Adds a part. The order counts, and a name may come again.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(Part {
            name: name.into(),
            value: value.into(),
        });
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Part] {
        &self.0
    }

    /// The key: equal only where all parts are.
    #[must_use]
    pub fn key(&self) -> SnapshotKey {
        let mut hash = Sha256::new();
        for Part { name, value } in &self.0 {
            // With its length, so that no part can run into the next.
            for text in [name, value] {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            use fmt::Write;
            // Writing to a string cannot fail.
            _ = write!(text, "{byte:02x}");
        }
        SnapshotKey(text)
    }

    /// The first part in which `theirs` differs.
    #[must_use]
    pub fn difference(&self, theirs: &Self) -> Option<Difference> {
        let length = self.0.len().max(theirs.0.len());
        let number = (0..length).find(|&number| self.0.get(number) != theirs.0.get(number))?;
        let (ours, theirs) = (self.0.get(number), theirs.0.get(number));
        let name = ours.or(theirs)?.name.clone();
        let value = |part: Option<&Part>| match part {
            Some(part) if part.name == name => Some(part.value.clone()),
            _ => None,
        };
        Some(Difference {
            ours: value(ours),
            theirs: value(theirs),
            name,
        })
    }
}

/// A part in which two machines differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub name: String,
    /// Its value here, if it is there at all.
    pub ours: Option<String>,
    /// Its value there.
    pub theirs: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        let (ours, theirs) = (value(&self.ours), value(&self.theirs));
        write!(f, "{}: {ours} here, {theirs} there", self.name)
    }
}

/// A snapshot's key: SHA-256 over its [`Parts`], as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotKey(String);

/// Text that is no key of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no snapshot's key, which has 64 lower-case hex digits")]
pub struct SnapshotKeyError(String);

impl SnapshotKey {
    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve, to show people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for SnapshotKey {
    type Err = SnapshotKeyError;

    fn from_str(text: &str) -> Result<Self, SnapshotKeyError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SnapshotKeyError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for SnapshotKey {
    type Error = SnapshotKeyError;

    fn try_from(text: String) -> Result<Self, SnapshotKeyError> {
        text.parse()
    }
}

impl From<SnapshotKey> for String {
    fn from(key: SnapshotKey) -> Self {
        key.0
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotKey({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(list: &[(String, String)]) -> Parts {
        let mut parts = Parts::default();
        for (name, value) in list {
            parts.add(name.clone(), value.clone());
        }
        parts
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_for_equal_parts(
            a in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3),
            b in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3),
        ) {
            let (one, other) = (parts(&a), parts(&b));
            prop_assert_eq!(one.key() == other.key(), a == b);
            prop_assert_eq!(one.difference(&other).is_none(), a == b);
        }
    }

    #[test]
    fn a_difference_has_a_name() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let ours = parts(&[pair("kernel", "k1"), pair("-smp", "2")]);
        let theirs = parts(&[pair("kernel", "k1"), pair("-smp", "4")]);
        assert_eq!(
            ours.difference(&theirs).unwrap().to_string(),
            "-smp: 2 here, 4 there"
        );
        let fewer = parts(&[pair("kernel", "k1")]);
        assert_eq!(
            fewer.difference(&ours).unwrap().to_string(),
            "-smp: nothing here, 2 there"
        );
    }

    #[test]
    fn a_key_is_no_path() {
        assert!("../../etc".parse::<SnapshotKey>().is_err());
        let key = Parts::default().key();
        assert_eq!(key.to_string().parse::<SnapshotKey>().unwrap(), key);
    }
}
