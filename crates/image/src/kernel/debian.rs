//! Debian's kernels.

use std::fs;
use std::path::{Path, PathBuf};

use super::own::{compare_versions, modules_directory, names};
use super::{KernelError, keep};
use crate::error::{At, ImageError, PathError};
use crate::progress::Job;
use crate::tool::mmdebstrap::{self, Request, Variant};
use crate::tool::{self, depmod, mkfs_erofs};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For virtual machines: small, and without 9p.
    Cloud,
    /// With everything.
    Generic,
}

/// The suite of a root that says it is Debian.
pub(super) fn suite_of(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("usr/lib/os-release")).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.strip_prefix('=')?.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
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
pub(super) fn build(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_read_from_the_root() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("usr/lib/os-release");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(suite_of(root.path()), None);
        fs::write(&file, "ID=debian\nVERSION_CODENAME=forky\n").unwrap();
        assert_eq!(suite_of(root.path()).as_deref(), Some("forky"));
        fs::write(&file, "ID=ubuntu\nVERSION_CODENAME=noble\n").unwrap();
        assert_eq!(suite_of(root.path()), None);
    }
}
