//! What is asked for.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// An image as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Where the root file system comes from.
    pub source: Source,
    /// Files to put into it, after everything else, owned by root.
    pub files: Vec<AddedFile>,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Debian, made by mmdebstrap.
    Debian {
        /// Such as `bookworm`.
        suite: String,
        /// Packages beyond our base set. Order and repetition make no difference.
        packages: Vec<String>,
    },
    /// This machine's own root, read-only.
    Host,
    /// A directory, used in place, read-only.
    Dir(PathBuf),
    /// A tar archive, plain or compressed.
    Tar(PathBuf),
}

/// A file to put into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedFile {
    /// Where, absolute. Directories above it are made.
    pub path: PathBuf,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// What is in it.
    pub contents: Vec<u8>,
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory is enough.
    Container,
    /// A kernel, an initrd and a root disk as well.
    Vm {
        /// Whether the kernel must know 9p.
        shared_folders: bool,
    },
}

/// A specification that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The suite cannot be one.
    #[error("{0:?} is no Debian suite: only lower-case letters, digits and hyphens")]
    Suite(String),
    /// The package cannot be one.
    #[error("{0:?} is no name of a Debian package")]
    Package(String),
    /// A file would be put outside of the image.
    #[error("the file {} cannot be added: its path must be absolute, without `..`", .0.display())]
    FilePath(PathBuf),
    /// The host's root belongs to the host.
    #[error("files cannot be added to the image `host`, which is this machine's own root")]
    FilesOnHost,
}

impl ImageSpec {
    /// A Debian image without files.
    #[must_use]
    pub fn debian(suite: &str, packages: &[&str]) -> Self {
        Self {
            source: Source::Debian {
                suite: suite.to_owned(),
                packages: packages.iter().map(|&name| name.to_owned()).collect(),
            },
            files: Vec::new(),
        }
    }

    /// The same image, written in the one way that all equal ones are written.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn normalised(&self) -> Result<Self, SpecError> {
        let mut spec = self.clone();
        if let Source::Debian { suite, packages } = &mut spec.source {
            if !is_suite(suite) {
                return Err(SpecError::Suite(suite.clone()));
            }
            if let Some(bad) = packages.iter().find(|name| !is_package(name)) {
                return Err(SpecError::Package(bad.clone()));
            }
            packages.sort();
            packages.dedup();
        }
        if spec.source == Source::Host && !spec.files.is_empty() {
            return Err(SpecError::FilesOnHost);
        }
        for file in &mut spec.files {
            let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
            if !file.path.is_absolute()
                || !file.path.components().all(plain)
                || file.path == Path::new("/")
            {
                return Err(SpecError::FilePath(file.path.clone()));
            }
            file.mode &= 0o7777;
        }
        Ok(spec)
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Debian { suite, packages } => {
                write!(f, "debian:{suite}")?;
                if !packages.is_empty() {
                    write!(f, " with {}", packages.join(", "))?;
                }
            }
            Source::Host => f.write_str("host")?,
            Source::Dir(path) => write!(f, "dir:{}", path.display())?,
            Source::Tar(path) => write!(f, "tar:{}", path.display())?,
        }
        match self.files.len() {
            0 => Ok(()),
            1 => write!(f, " and 1 file"),
            count => write!(f, " and {count} files"),
        }
    }
}

fn is_suite(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.bytes().all(inner) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// As apt takes it: a name, perhaps with `:architecture`, and `=version` or `/suite`. No patterns,
/// which could say anything.
fn is_package(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-:=~/".contains(&byte);
    name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && !name.ends_with(['-', '+']) | name.ends_with("++")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_packages_makes_no_difference() {
        let a = ImageSpec::debian("bookworm", &["nginx", "curl", "nginx"]);
        let b = ImageSpec::debian("bookworm", &["curl", "nginx"]);
        assert_eq!(a.normalised(), b.normalised());
    }

    #[test]
    fn names_that_are_options_or_patterns_are_refused() {
        for bad in [
            "",
            "-x",
            "a b",
            "a,b",
            "?installed",
            "~n.*",
            "a;b",
            "$(a)",
            "curl-",
        ] {
            assert!(
                ImageSpec::debian("bookworm", &[bad]).normalised().is_err(),
                "{bad}"
            );
        }
        for good in [
            "g++",
            "libstdc++6",
            "curl:amd64",
            "curl=7.88.1-10",
            "curl/bookworm-backports",
        ] {
            assert!(
                ImageSpec::debian("bookworm", &[good]).normalised().is_ok(),
                "{good}"
            );
        }
        for bad in ["", "Bookworm", "--help", "../x", "a/b"] {
            assert!(ImageSpec::debian(bad, &[]).normalised().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_stay_inside() {
        for bad in ["etc/x", "/../x", "/etc/../../x", "/"] {
            let mut spec = ImageSpec::debian("bookworm", &[]);
            spec.files.push(AddedFile {
                path: bad.into(),
                mode: 0o644,
                contents: Vec::new(),
            });
            assert!(spec.normalised().is_err(), "{bad}");
        }
    }
}
