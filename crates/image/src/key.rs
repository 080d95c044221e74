//! Content keys: what an artefact was made from, as a hash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The content key of an image: SHA-256 over everything that went into it, as 64 hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

/// Text that is no image id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no image id, which has 64 lower-case hex digits")]
pub struct ImageIdError(String);

impl ImageId {
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

impl FromStr for ImageId {
    type Err = ImageIdError;

    fn from_str(text: &str) -> Result<Self, ImageIdError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ImageIdError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = ImageIdError;

    fn try_from(text: String) -> Result<Self, ImageIdError> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageId({})", self.short())
    }
}

/// Hashes a recipe. Every field goes in with its name and its length, so that no two recipes can
/// look alike by running one field into the next.
pub(crate) struct Recipe(Sha256);

impl Recipe {
    /// A recipe of this kind. `version` changes whenever the same recipe would give something else.
    pub(crate) fn new(kind: &str, version: u32) -> Self {
        let mut recipe = Self(Sha256::new());
        recipe.field("kind", kind.as_bytes());
        recipe.field("version", &version.to_be_bytes());
        recipe.field("architecture", std::env::consts::ARCH.as_bytes());
        recipe
    }

    /// Adds a field. The order of fields counts.
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
        self
    }

    /// The key.
    pub(crate) fn key(self) -> ImageId {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        ImageId(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(fields: &[(String, Vec<u8>)]) -> ImageId {
        let mut recipe = Recipe::new("test", 1);
        for (name, value) in fields {
            recipe.field(name, value);
        }
        recipe.key()
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_for_equal_recipes(
            a in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..2, 0..3)), 0..3),
            b in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..2, 0..3)), 0..3),
        ) {
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }

        #[test]
        fn ids_survive_text(fields in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(any::<u8>(), 0..3)), 0..3)) {
            let id = key(&fields);
            prop_assert_eq!(&id.to_string().parse::<ImageId>().unwrap(), &id);
        }
    }

    #[test]
    fn an_id_is_no_path() {
        assert!("../../etc".parse::<ImageId>().is_err());
        assert!("A".repeat(64).parse::<ImageId>().is_err());
    }
}
