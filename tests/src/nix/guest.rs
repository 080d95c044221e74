//! What machines in the sandbox boot.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

/// An image, as derivations see it in `/guest`. What is bound into the sandbox is owned by nobody
/// there, so a root comes as an archive and is unpacked inside.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// A source of the image store.
    pub image: &'static str,
    /// Packages on top.
    pub packages: &'static [&'static str],
}

impl Guest {
    /// What the tests of machines boot, too.
    pub const SMALL: Self = Self {
        image: "debian:bookworm",
        packages: &["curl", "nginx-light"],
    };

    /// Makes `root.tar` in `directory`.
    pub(super) fn lay(&self, directory: &Path) -> Result<()> {
        let root = crate::images::root(self.image, self.packages)?;
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
        Ok(())
    }
}
