//! VLANs.

use std::fmt;
use std::str::FromStr;

use crate::SyntaxError;

/// The number of a VLAN, 1 to 254: it becomes a byte of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u8);

impl VlanId {
    /// The VLAN of machines that name none.
    pub const DEFAULT: Self = Self(1);

    /// The VLAN with this number, if it is 1 to 254.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        match u8::try_from(number) {
            Ok(number @ 1..=254) => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VlanId {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        text.parse()
            .ok()
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0'))
            .and_then(Self::new)
            .ok_or_else(|| {
                let message = format!("`{text}` is not the number of a VLAN");
                SyntaxError::new(message, "VLANs are numbered 1 to 254")
            })
    }
}

/// What a lab says of a VLAN: that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vlan {}
