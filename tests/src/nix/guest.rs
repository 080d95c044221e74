//! What machines in the sandbox boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::Image;
use crate::images;
use crate::start_script::VmSystem;

/// Where derivations see their guests.
const SEEN: &str = "/guest";

/// The guests of derivations: `/guest/root.tar`, and what a VM boots beside it.
///
/// What is bound into the sandbox is owned by nobody there, so a root comes as an archive, and is
/// unpacked inside.
#[derive(Debug)]
pub struct Guest {
    directory: PathBuf,
    image: Image,
}

impl Guest {
    /// In a directory of the host.
    pub(super) fn new(directory: PathBuf, image: Image) -> Result<Self> {
        let root = images::root(image.0, image.1)?;
        fs::create_dir_all(&directory).context("cannot make a directory")?;
        let status = std::process::Command::new("tar")
            .args([
                "--create",
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                // Nobody in a sandbox may make device nodes.
                "--exclude=./dev/*",
            ])
            .arg("--file")
            .arg(directory.join("root.tar"))
            .arg("--directory")
            .arg(&root)
            .arg(".")
            .stdin(Stdio::null())
            .status()
            .context("cannot run tar")?;
        ensure!(status.success(), "tar: {status}");
        Ok(Self { directory, image })
    }

    /// What a VM boots, as files of the host. Start scripts that were written for these are made fit
    /// for the sandbox by [`Self::fit`].
    ///
    /// # Errors
    /// The image cannot be built, or not be copied.
    pub fn system(&self) -> Result<VmSystem> {
        let system = images::system(self.image.0, self.image.1)?;
        let copy = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = self.directory.join(name);
            if !to.exists() {
                fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            }
            Ok(to)
        };
        Ok(VmSystem {
            kernel: copy(&system.kernel, "vmlinuz")?,
            disk: copy(&system.disk, "root.erofs")?,
            ..system
        })
    }

    /// Puts `/guest/vm.tar` there: the root as an archive, with a kernel in it.
    ///
    /// # Errors
    /// The kernel cannot be built, or the archive not be written.
    pub fn add_vm_archive(&self) -> Result<()> {
        let kernel = images::kernel(self.image.0)?;
        let version = fs::read_to_string(kernel.join("version")).context("a kernel's version")?;
        let archive = self.directory.join("vm.tar");
        fs::copy(self.directory.join("root.tar"), &archive).context("cannot copy an archive")?;
        let status = std::process::Command::new("tar")
            .arg("--append")
            .arg("--file")
            .arg(&archive)
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .arg("--transform=s,^modules,./usr/lib/modules,")
            .arg(format!(
                "--transform=s,^vmlinuz,./boot/vmlinuz-{},",
                version.trim()
            ))
            .arg("--directory")
            .arg(&kernel)
            .args(["modules", "vmlinuz"])
            .stdin(Stdio::null())
            .status()
            .context("cannot run tar")?;
        ensure!(status.success(), "tar: {status}");
        Ok(())
    }

    /// The directory for files that derivations see in `/guest`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Exchanges the directory's path in the text of a file for the one that derivations see.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn fit(&self, file: &Path) -> Result<()> {
        let failed = || format!("cannot change {}", file.display());
        let text = fs::read_to_string(file).with_context(failed)?;
        let own = self.directory.display().to_string();
        fs::write(file, text.replace(&own, SEEN)).with_context(failed)
    }
}
