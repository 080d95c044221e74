//! A place where a test works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Before, Command, wait_until};

/// How long the kernel may take to end what has been killed, and the guard to clean up after it; and
/// how long another test, beside this one, may have something mounted.
const GRACE: Duration = Duration::from_secs(120);

/// The cache of whoever runs the tests, which keeps the images of all.
///
/// # Errors
/// There is no place for one.
pub fn users_cache() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    named("MACHINIST_CACHE")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("machinist")))
        .or_else(|| Some(named("HOME")?.join(".cache/machinist")))
        .context("there is no cache")
}

/// A directory with a lab; sessions and temporary files have places of their own, so that what is
/// left there is this test's. The image cache is the user's: images are built once for all.
#[derive(Debug)]
pub struct Bench {
    directory: TempDir,
    before: Before,
}

impl Bench {
    /// A place with nothing in it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn new() -> Result<Self> {
        // Short: the paths of sockets are limited.
        let directory = tempfile::Builder::new()
            .prefix("mt-")
            .tempdir_in("/tmp")
            .context("cannot make a directory in /tmp")?;
        for name in ["lab", "run", "tmp"] {
            std::fs::create_dir(directory.path().join(name)).context("cannot make a directory")?;
        }
        let before = Before::look(&directory.path().join("run"))?;
        Ok(Self { directory, before })
    }

    /// The same with a lab file.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn with_lab(text: &str) -> Result<Self> {
        let bench = Self::new()?;
        bench.write("lab.toml", text)?;
        Ok(bench)
    }

    /// The directory of the lab, where the program runs.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("lab")
    }

    /// The directory of sessions.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Writes a file beside the lab.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads a file beside the lab.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path().join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The program with these arguments, here.
    #[must_use]
    pub fn machinist(&self, args: &[&str]) -> Command {
        self.machinist_in("", args)
    }

    /// The program with these arguments, in a folder beside the lab.
    #[must_use]
    pub fn machinist_in(&self, folder: &str, args: &[&str]) -> Command {
        Command::new(&self.path().join(folder))
            .env("MACHINIST_RUNTIME", self.runtime())
            .env("TMPDIR", self.directory.path().join("tmp"))
            .args(args)
    }

    /// Checks that nothing is left, or at least not for long: no process, mount, interface, control
    /// group, session, or file.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_left(&self) -> Result<()> {
        let mut left = Vec::new();
        let gone = wait_until(GRACE, || {
            left = self.left_now();
            left.is_empty().then_some(())
        });
        if gone.is_none() {
            bail!("left behind:\n  {}", left.join("\n  "));
        }
        Ok(())
    }

    fn left_now(&self) -> Vec<String> {
        let mut left = self.before.left_now();
        left.extend(files(&self.runtime(), &|name| name != ".gate"));
        left.extend(files(&self.directory.path().join("tmp"), &|_| true));
        left
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let state = self.path().join("state");
        if state.is_dir() {
            // A start script that was killed leaves its container's var/empty immutable, as NixOS
            // has it; no directory around it could be removed.
            let mut chattr = std::process::Command::new("chattr");
            drop(chattr.args(["-R", "-f", "-i"]).arg(state).status());
        }
    }
}

/// What lies in a directory, but for what is expected there.
fn files(directory: &Path, unexpected: &dyn Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| unexpected(&entry.file_name().to_string_lossy()))
        .map(|entry| format!("file {}", entry.path().display()))
        .collect()
}
