//! Kernels that images bring.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{At, PathError};

/// A kernel that an image brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnKernel {
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// The directory that has `modules.dep`.
    pub(crate) modules: PathBuf,
    /// As `uname -r` says.
    pub(crate) version: String,
}

/// The newest kernel in the root that has modules with an index.
pub(super) fn own_kernel(root: &Path) -> Result<Option<OwnKernel>, PathError> {
    let mut found: Vec<OwnKernel> = Vec::new();
    let mut add = |image: PathBuf, version: &str| {
        let modules = modules_directory(root, version);
        if let Some(modules) = modules.filter(|path| path.join("modules.dep").exists())
            && image.is_file()
        {
            found.push(OwnKernel {
                image,
                modules,
                version: version.to_owned(),
            });
        }
    };
    for name in names(&root.join("boot"))? {
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            add(root.join("boot").join(&name), version);
        }
    }
    // Debian since forky, and others, keep the kernel with its modules.
    for version in names(&root.join("usr/lib/modules"))? {
        add(
            root.join("usr/lib/modules").join(&version).join("vmlinuz"),
            &version,
        );
    }
    found.sort_by(|a, b| compare_versions(&a.version, &b.version));
    Ok(found.pop())
}

/// `/lib` may be a link whose target counts from the root's own `/`; so both places are tried.
pub(super) fn modules_directory(root: &Path, version: &str) -> Option<PathBuf> {
    let merged = root.join("usr/lib/modules").join(version);
    let old = root.join("lib/modules").join(version);
    [merged, old].into_iter().find(|path| path.is_dir())
}

pub(super) fn names(directory: &Path) -> Result<Vec<String>, PathError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("list", directory),
    }
}

/// Numbers as numbers, the rest as text: 6.1.9 is older than 6.1.56.
pub(super) fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<Result<u64, String>> {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .map(|part| part.parse().map_err(|_| part.to_owned()))
            .collect()
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let mut versions = ["6.1.0-9-amd64", "6.12.117+deb13-amd64", "6.1.0-56-amd64"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.117+deb13-amd64"]
        );
    }

    #[test]
    fn the_newest_own_kernel_with_modules_is_chosen() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(own_kernel(root).unwrap(), None);
        fs::create_dir_all(root.join("boot")).unwrap();
        for version in ["6.1.0-9-amd64", "6.1.0-56-amd64", "7.0-without-modules"] {
            fs::write(root.join("boot").join(format!("vmlinuz-{version}")), "").unwrap();
        }
        for version in ["6.1.0-9-amd64", "6.1.0-56-amd64"] {
            let modules = root.join("lib/modules").join(version);
            fs::create_dir_all(&modules).unwrap();
            fs::write(modules.join("modules.dep"), "").unwrap();
        }
        let own = own_kernel(root).unwrap().unwrap();
        assert_eq!(own.version, "6.1.0-56-amd64");
    }
}
