//! Hardware of the host that a container may use.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::SyntaxError;

/// A device node of the host that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(pub PathBuf);

impl FromStr for Device {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let plain = text.split('/').all(|part| part != "..") && !text.contains(char::is_control);
        match text.strip_prefix("/dev/") {
            Some(rest) if !rest.is_empty() && plain => Ok(Self(text.into())),
            _ => Err(SyntaxError::new(
                format!("`{text}` is not a device node"),
                "name a path below /dev, such as `/dev/fuse`",
            )),
        }
    }
}

/// The name of a device that the host describes by the Container Device Interface:
/// `vendor.com/class=name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiName {
    /// Vendor and class: `vendor.com/class`.
    pub kind: String,
    /// The device among those of its kind.
    pub device: String,
}

impl FromStr for CdiName {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let word = |text: &str, also: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
        };
        let parts = text.split_once('=').and_then(|(kind, device)| {
            let (vendor, class) = kind.split_once('/')?;
            (word(vendor, "_-.") && word(class, "_-") && word(device, "_-.:")).then(|| Self {
                kind: kind.to_owned(),
                device: device.to_owned(),
            })
        });
        parts.ok_or_else(|| {
            SyntaxError::new(
                format!("`{text}` is not the name of a CDI device"),
                "write it as `vendor.com/class=name`, such as `nvidia.com/gpu=0`",
            )
        })
    }
}

impl fmt::Display for CdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// All graphics processors of one vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gpu {
    /// NVIDIA's.
    Nvidia,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_cdi() {
        let name: CdiName = "nvidia.com/gpu=all".parse().unwrap();
        assert_eq!(
            (name.kind.as_str(), name.device.as_str()),
            ("nvidia.com/gpu", "all")
        );
        for bad in [
            "", "a", "a/b", "a=b", "/b=c", "a/=c", "a/b=", "a/b/c=d", "a/b=c d", "a/../b=c",
        ] {
            assert!(bad.parse::<CdiName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z./=:0-]*|.*") {
            drop(text.parse::<Device>());
            if let Ok(name) = text.parse::<CdiName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
