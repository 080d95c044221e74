//! What Nix on the host knows of a system.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use crate::registration::find_nix;

/// Nix on the host does not know a system.
#[derive(Debug, Error)]
pub enum NixError {
    /// There is no Nix.
    #[error(
        "--system needs Nix on this host, which knows what belongs to a system: there is no nix-store"
    )]
    None,
    /// It cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("--system {}: Nix does not know it as a valid path of its store: {said}", path.display())]
    Said {
        /// The path.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

/// The host's `nix-store`.
pub(super) struct Nix {
    program: PathBuf,
}

impl Nix {
    pub(super) fn find(search: &Path) -> Result<Self, NixError> {
        let program = find_nix(search.as_os_str(), "nix-store").ok_or(NixError::None)?;
        Ok(Self { program })
    }

    /// All paths that belong to `path` of the store whose `/` is `root`.
    pub(super) fn closure(&self, root: &Path, path: &Path) -> Result<Vec<String>, NixError> {
        let output = self.ask(root, path, &["--query", "--requisites"], &[path])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// What another Nix is told of these paths, for `nix-store --load-db`.
    pub(super) fn registration(
        &self,
        root: &Path,
        path: &Path,
        closure: &[String],
    ) -> Result<Vec<u8>, NixError> {
        let paths: Vec<&Path> = closure.iter().map(Path::new).collect();
        Ok(self.ask(root, path, &["--dump-db"], &paths)?.stdout)
    }

    /// Keeps the closure of `path` on the host, for as long as there is the `link`.
    pub(super) fn keep(&self, root: &Path, path: &Path, link: &Path) -> Result<(), NixError> {
        let link = link.to_string_lossy();
        let words = ["--realise", "--add-root", &link, "--indirect"];
        self.ask(root, path, &words, &[path]).map(drop)
    }

    fn ask(
        &self,
        root: &Path,
        about: &Path,
        words: &[&str],
        paths: &[&Path],
    ) -> Result<Output, NixError> {
        let mut command = Command::new(&self.program);
        command.args(words).args(paths).stdin(Stdio::null());
        if root != Path::new("/") {
            command.arg("--store").arg(root);
        }
        let output = command.output().map_err(|source| NixError::Run {
            program: self.program.clone(),
            source,
        })?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(NixError::Said {
            path: about.to_owned(),
            said: said.trim().replace('\n', "; "),
        })
    }
}
