//! Paths inside a tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use machinist_wire::Blob;

use crate::TreeError;

/// The longest name of a file, as all usual file systems have it.
const MAX_NAME: usize = 255;

/// The components of a path as it came in a record; none for the root.
pub(crate) fn components(path: &Blob) -> Result<Vec<&OsStr>, TreeError> {
    if path.0.is_empty() {
        return Ok(Vec::new());
    }
    path.0
        .split(|byte| *byte == b'/')
        .map(|name| match name {
            b"" | b"." | b".." => None,
            name if name.contains(&0) || name.len() > MAX_NAME => None,
            name => Some(OsStr::from_bytes(name)),
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| TreeError::BadPath { path: path.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for bad in ["/etc", "..", "a/..", "a//b", ".", "a/./b", "a/", "a\0b"] {
            assert!(components(&bad.into()).is_err(), "{bad:?}");
        }
        assert_eq!(components(&"a/..b/c".into()).unwrap().len(), 3);
    }
}
