//! Kernels: an artefact of their own, shared by all images that have none.

mod bzimage;

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{At, ImageError, PathError};
use crate::initrd;
use crate::key::{ImageId, Recipe};
use crate::progress::Job;
use crate::tool::mmdebstrap::{self, Request, Variant};
use crate::tool::{self, depmod, mkfs_erofs};

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

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For virtual machines: small, and without 9p.
    Cloud,
    /// With everything.
    Generic,
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
    if let Some(own) = own_kernel(root)?
        && (!shared_folders || initrd::can_share(&own.modules)?)
    {
        return Ok(Choice::Own(own));
    }
    Ok(debian(root, suite, shared_folders))
}

/// Debian's kernel of the suite that the root is of.
pub(crate) fn debian(root: &Path, suite: Option<&str>, shared_folders: bool) -> Choice {
    let suite = suite.map(str::to_owned).or_else(|| debian_suite(root));
    Choice::Debian {
        suite: suite.unwrap_or_else(|| FALLBACK_SUITE.to_owned()),
        flavour: if shared_folders {
            Flavour::Generic
        } else {
            Flavour::Cloud
        },
    }
}

/// The suite of a root that says it is Debian.
fn debian_suite(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("usr/lib/os-release")).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.strip_prefix('=')?.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// The newest kernel in the root that has modules with an index.
fn own_kernel(root: &Path) -> Result<Option<OwnKernel>, PathError> {
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
fn modules_directory(root: &Path, version: &str) -> Option<PathBuf> {
    let merged = root.join("usr/lib/modules").join(version);
    let old = root.join("lib/modules").join(version);
    [merged, old].into_iter().find(|path| path.is_dir())
}

fn names(directory: &Path) -> Result<Vec<String>, PathError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("list", directory),
    }
}

/// Numbers as numbers, the rest as text: 6.1.9 is older than 6.1.56.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<Result<u64, String>> {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .map(|part| part.parse().map_err(|_| part.to_owned()))
            .collect()
    };
    parts(a).cmp(&parts(b))
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
            Self::Debian { suite, flavour } => from_debian(suite, *flavour, mirror, dir, job),
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

/// Debian's name of the package.
fn package(flavour: Flavour) -> Result<String, KernelError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return Err(KernelError::Architecture),
    };
    Ok(match flavour {
        Flavour::Cloud => format!("linux-image-cloud-{architecture}"),
        Flavour::Generic => format!("linux-image-{architecture}"),
    })
}

/// Unpacks the kernel's package with what it depends on (depmod is among that), indexes the modules
/// with the suite's own depmod, and keeps the kernel and the modules.
fn from_debian(
    suite: &str,
    flavour: Flavour,
    mirror: Option<&str>,
    dir: &Path,
    job: &Job<'_>,
) -> Result<(), ImageError> {
    let package = package(flavour)?;
    let tree = dir.join("tree");
    // depmod loads its decompressors at run time, so nothing depends on them.
    let packages = [&package, "kmod", "liblzma5", "libzstd1"].map(str::to_owned);
    let request = Request {
        variant: Variant::Extract,
        suite,
        packages: &packages,
        mirror,
        target: &tree,
    };
    tool::run(&mmdebstrap::tool(&request), job, &mut |line| {
        if let Some(step) = mmdebstrap::step(line) {
            job.doing(step);
        }
    })?;
    link_merged_directories(&tree)?;

    let not_found = || KernelError::NotFound {
        package: package.clone(),
        suite: suite.to_owned(),
    };
    let (image, version, modules) = find_unpacked(&tree)?.ok_or_else(not_found)?;
    job.doing("indexing modules");
    index_modules(&tree, &version, job)?;

    let image = fs::read(&image).at("read", &image)?;
    let kept = dir.join("modules");
    let target = kept.join(&version);
    fs::create_dir(&kept).at("create", &kept)?;
    fs::rename(&modules, &target).at("move", &modules)?;
    // A file in the modules' directory in newer suites; it has been read.
    let copy = target.join("vmlinuz");
    if copy.exists() {
        fs::remove_file(&copy).at("remove", &copy)?;
    }
    keep(dir, &image, &version)?;
    crate::tree::remove(&tree)?;
    job.doing("packing modules");
    let disk = dir.join("modules.erofs");
    tool::run(&mkfs_erofs::tool(&kept, &disk), job, &mut |_| ())
}

/// A tree that was only unpacked lacks the links of merged `/usr` that a package makes when it is
/// configured. depmod looks for modules in `/lib`, and its loader is in `/lib64`.
fn link_merged_directories(tree: &Path) -> Result<(), PathError> {
    for name in ["bin", "lib", "lib64", "sbin"] {
        let link = tree.join(name);
        let target = format!("usr/{name}");
        if !link.exists() && tree.join(&target).exists() {
            std::os::unix::fs::symlink(&target, &link).at("link", &link)?;
        }
    }
    Ok(())
}

/// The kernel in a freshly unpacked tree, before there is an index of its modules.
fn find_unpacked(tree: &Path) -> Result<Option<(PathBuf, String, PathBuf)>, PathError> {
    let mut versions = names(&tree.join("usr/lib/modules"))?;
    versions.extend(names(&tree.join("lib/modules"))?);
    versions.sort_by(|a, b| compare_versions(a, b));
    let newest = versions.pop().and_then(|version| {
        let modules = modules_directory(tree, &version)?;
        let images = [
            tree.join(format!("boot/vmlinuz-{version}")),
            modules.join("vmlinuz"),
        ];
        let image = images.into_iter().find(|path| path.is_file())?;
        Some((image, version, modules))
    });
    Ok(newest)
}

fn index_modules(tree: &Path, version: &str, job: &Job<'_>) -> Result<(), ImageError> {
    let program = if tree.join("usr/sbin/depmod").exists() {
        "/usr/sbin/depmod"
    } else {
        "/sbin/depmod"
    };
    let mut complaint = None;
    tool::run(&depmod::tool(tree, program, version), job, &mut |line| {
        if depmod::is_error(line) && complaint.is_none() {
            complaint = Some(line.to_owned());
        }
    })?;
    match complaint {
        None => Ok(()),
        Some(message) => Err(KernelError::Depmod {
            version: version.to_owned(),
            message,
        }
        .into()),
    }
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

    #[test]
    fn the_suite_is_read_from_the_root() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("usr/lib/os-release");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(debian_suite(root.path()), None);
        fs::write(&file, "ID=debian\nVERSION_CODENAME=forky\n").unwrap();
        assert_eq!(debian_suite(root.path()).as_deref(), Some("forky"));
        fs::write(&file, "ID=ubuntu\nVERSION_CODENAME=noble\n").unwrap();
        assert_eq!(debian_suite(root.path()), None);
    }
}
