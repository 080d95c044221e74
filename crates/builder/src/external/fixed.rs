//! A fixed output: its hash, as Nix tells it to another Nix. Only what has one gets a network, and Nix
//! in the machine looks whether it was true, so nothing has to be believed here.

use serde::{Deserialize, Serialize};

/// The hash functions that Nix has, with the bytes of their results.
const FUNCTIONS: [(&str, usize); 5] = [
    ("md5", 16),
    ("sha1", 20),
    ("sha256", 32),
    ("sha512", 64),
    ("blake3", 32),
];
/// Nix's own letters for hashes: no `e`, `o`, `t`, `u`.
const LETTERS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// What an output has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// What is hashed, and by which function: `r:sha256`.
    pub(super) method: String,
    /// The hash, in hexadecimal.
    pub(super) hash: String,
}

impl Fixed {
    /// From a derivation's attributes. `None`: they fix no output.
    pub(super) fn new(hash: &str, function: &str, mode: &str) -> Option<Self> {
        let (function, text) = match hash.split_once(['-', ':']) {
            Some((named, text)) if FUNCTIONS.iter().any(|(name, _)| *name == named) => {
                (named, text)
            }
            _ => (function, hash),
        };
        let (_, length) = FUNCTIONS.iter().find(|(name, _)| *name == function)?;
        let prefix = match mode {
            "" | "flat" => "",
            "recursive" | "nar" => "r:",
            "text" => "text:",
            "git" => "git:",
            _ => return None,
        };
        let bytes = decode(text, *length)?;
        let hash = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self {
            method: format!("{prefix}{function}"),
            hash,
        })
    }
}

/// The bytes of a hash in any of Nix's spellings: its length tells which one it is.
fn decode(text: &str, length: usize) -> Option<Vec<u8>> {
    use base64::Engine as _;
    if text.len() == length * 2 {
        let pairs = text.as_bytes().chunks_exact(2);
        return pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
    }
    if text.len() == (length * 8).div_ceil(5) {
        return letters(text, length);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.ok().filter(|bytes| bytes.len() == length)
}

/// Five bits for each letter, the last letter's first.
fn letters(text: &str, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    for (index, letter) in text.bytes().rev().enumerate() {
        let digit = LETTERS.iter().position(|it| *it == letter)?;
        let digit = u16::try_from(digit).ok()?;
        let (byte, shift) = (index * 5 / 8, index * 5 % 8);
        let [low, high] = (digit << shift).to_le_bytes();
        *bytes.get_mut(byte)? |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high == 0 => {}
            None => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "hello", by Nix itself.
    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const NIX32: &str = "094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic";
    const BASE64: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";

    #[test]
    fn all_spellings_are_one() {
        let sri = format!("sha256-{BASE64}");
        let prefixed = format!("sha256:{NIX32}");
        for (hash, function) in [
            (HEX, "sha256"),
            (NIX32, "sha256"),
            (BASE64, "sha256"),
            (&sri, ""),
            (&sri, "sha256"),
            (&prefixed, ""),
        ] {
            let fixed = Fixed::new(hash, function, "recursive").unwrap();
            assert_eq!(
                (fixed.method.as_str(), fixed.hash.as_str()),
                ("r:sha256", HEX)
            );
        }
        assert_eq!(Fixed::new(HEX, "sha256", "").unwrap().method, "sha256");
    }

    #[test]
    fn what_fixes_nothing() {
        for (hash, function, mode) in [
            ("", "", ""),
            (HEX, "", ""),
            (HEX, "sha512", ""),
            (HEX, "sha256", "other"),
            (&NIX32.replace('0', "e"), "sha256", ""),
            (&"z".repeat(52), "sha256", ""),
        ] {
            assert_eq!(Fixed::new(hash, function, mode), None, "{hash}");
        }
    }
}
