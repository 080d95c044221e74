//! Kernels: an artefact of their own, shared by all images that have none.

mod bzimage;
mod debian;
mod own;

use std::fs;
use std::path::{Path, PathBuf};

use self::debian::Flavour;
use self::own::OwnKernel;
use crate::error::{At, ImageError, PathError};
use crate::initrd;
use crate::key::{ImageId, Recipe};
use crate::progress::Job;

/// Changes whenever the same choice would give something else.
const RECIPE: u32 = 1;

/// The suite whose kernel images get that are no Debian.
const FALLBACK_SUITE: &str = "trixie";

/// Where kernels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// From Debian.
    Debian { suite: String, flavour: Flavour },
    /// The image's own.
    Own(OwnKernel),
}

/// No kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Debian's package has none where we look.
    #[error("the package {package} of {suite} has no kernel that we can find")]
    NotFound {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
    },
    /// The list of modules is not complete.
    #[error("depmod cannot read the modules of kernel {version}: {message}")]
    Depmod {
        /// The kernel.
        version: String,
        /// The first thing it complained about.
        message: String,
    },
    /// We know no name for Debian's kernels of this processor.
    #[error("virtual machines need an x86-64 or arm64 host")]
    Architecture,
}

impl KernelError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::Depmod { .. } => Some(
                "put a `linux-image-...` package into the image's packages, and its kernel is used"
                    .to_owned(),
            ),
            Self::Architecture => None,
        }
    }
}

/// The kernel for an image with this root: its own, if it has one that is able, or Debian's.
pub(crate) fn choose(
    root: &Path,
    suite: Option<&str>,
    shared_folders: bool,
) -> Result<Choice, PathError> {
    if let Some(own) = own::own_kernel(root)?
        && (!shared_folders || initrd::can_share(&own.modules)?)
    {
        return Ok(Choice::Own(own));
    }
    Ok(from_debian(root, suite, shared_folders))
}

/// Debian's kernel of the suite that the root is of.
pub(crate) fn from_debian(root: &Path, suite: Option<&str>, shared_folders: bool) -> Choice {
    let suite = suite.map(str::to_owned).or_else(|| debian::suite_of(root));
    Choice::Debian {
        suite: suite.unwrap_or_else(|| FALLBACK_SUITE.to_owned()),
        flavour: if shared_folders {
            Flavour::Generic
        } else {
            Flavour::Cloud
        },
    }
}

impl Choice {
    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Debian {
                suite,
                flavour: Flavour::Cloud,
            } => format!("kernel of debian:{suite}"),
            Self::Debian {
                suite,
                flavour: Flavour::Generic,
            } => format!("generic kernel of debian:{suite}"),
            Self::Own(own) => format!("kernel {}", own.version),
        }
    }

    /// Bytes that building it takes, at least.
    pub(crate) fn needs(&self) -> u64 {
        match self {
            Self::Debian { flavour, .. } => match flavour {
                Flavour::Cloud => 250_000_000,
                Flavour::Generic => 700_000_000,
            },
            Self::Own(_) => 80_000_000,
        }
    }

    /// The key of the artefact. Debian's kernel of a suite is the newest at the time; it stays until
    /// it is pruned.
    pub(crate) fn key(&self, mirror: Option<&str>) -> Result<ImageId, PathError> {
        let mut recipe = Recipe::new("kernel", RECIPE);
        match self {
            Self::Debian { suite, flavour } => {
                recipe.field("suite", suite.as_bytes());
                recipe.field("flavour", format!("{flavour:?}").as_bytes());
                recipe.field("mirror", mirror.unwrap_or_default().as_bytes());
            }
            Self::Own(own) => {
                let image = fs::read(&own.image).at("read", &own.image)?;
                recipe.field("version", own.version.as_bytes());
                recipe.field("image", &image);
                let index = own.modules.join("modules.dep");
                let index = fs::read(&index).at("read", &index)?;
                recipe.field("modules", &index);
            }
        }
        Ok(recipe.key())
    }

    /// Makes the artefact in `dir`.
    pub(crate) fn build(
        &self,
        dir: &Path,
        mirror: Option<&str>,
        job: &Job<'_>,
    ) -> Result<(), ImageError> {
        match self {
            Self::Own(own) => {
                let text = fs::read(&own.image).at("read", &own.image)?;
                keep(dir, &text, &own.version)?;
                Ok(())
            }
            Self::Debian { suite, flavour } => debian::build(suite, *flavour, mirror, dir, job),
        }
    }
}

/// Writes the kernel, packed and unpacked, and its version.
fn keep(dir: &Path, image: &[u8], version: &str) -> Result<(), PathError> {
    let write = |name: &str, data: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, data).at("write", &path)
    };
    write("vmlinuz", image)?;
    write("version", version.as_bytes())?;
    if let Some(elf) = bzimage::vmlinux(image) {
        write("vmlinux", &elf)?;
    }
    Ok(())
}

/// The files of a kernel artefact.
#[derive(Debug)]
pub(crate) struct KernelFiles {
    /// What to boot.
    pub(crate) image: PathBuf,
    /// The directory that has `modules.dep`.
    pub(crate) modules: PathBuf,
    /// The disk with the modules, unless the root has them.
    pub(crate) disk: Option<PathBuf>,
    /// As `uname -r` says.
    pub(crate) version: String,
}

impl KernelFiles {
    /// What is in the artefact at `dir` that `choice` made.
    pub(crate) fn read(dir: &Path, choice: &Choice) -> Result<Self, PathError> {
        let path = dir.join("version");
        let version = fs::read_to_string(&path).at("read", &path)?;
        let unpacked = dir.join("vmlinux");
        let image = if unpacked.exists() {
            unpacked
        } else {
            dir.join("vmlinuz")
        };
        let (modules, disk) = match choice {
            Choice::Own(own) => (own.modules.clone(), None),
            Choice::Debian { .. } => (
                dir.join("modules").join(&version),
                Some(dir.join("modules.erofs")),
            ),
        };
        Ok(Self {
            image,
            modules,
            disk,
            version,
        })
    }
}
