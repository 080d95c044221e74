//! Lines of a configuration file, with those of included files in their places.

use std::io;
use std::path::{Path, PathBuf};

use super::{Assignment, NixConf};
use crate::machines_file::{Files, HostFiles, Place};

/// So many files may include one another. Nix has no limit, and dies of a circle.
const DEEPEST: usize = 32;

/// What keeps Nix from starting.
#[derive(Debug, thiserror::Error)]
pub enum NixConfError {
    /// A line is neither an assignment nor an inclusion.
    #[error("{place}: this sets nothing, for want of ' = ': {line}")]
    Syntax {
        /// Where it stands.
        place: Place,
        /// The line.
        line: String,
    },
    /// An included file is not there.
    #[error("{place}: {}, which is included, is not there", path.display())]
    Missing {
        /// Where it is included.
        place: Place,
        /// The file.
        path: PathBuf,
    },
    /// Files include one another.
    #[error("{place}: {} includes itself, or too many files include one another", path.display())]
    Circle {
        /// Where it is included.
        place: Place,
        /// The file.
        path: PathBuf,
    },
}

/// Adds what a file has to `conf`. One that cannot be read adds nothing.
pub(super) fn file(
    path: &Path,
    files: &HostFiles,
    depth: usize,
    conf: &mut NixConf,
) -> Result<(), NixConfError> {
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                conf.unreadable.push(path.to_owned());
            }
            return Ok(());
        }
    };
    conf.files.push(path.to_owned());
    let content = String::from_utf8_lossy(&bytes);
    let parent = path.parent().unwrap_or(Path::new("/"));
    text(
        &content,
        &path.display().to_string(),
        parent,
        files,
        depth,
        conf,
    )
}

/// Adds what a text has. `parent` is where the files lie that it includes.
pub(super) fn text(
    text: &str,
    origin: &str,
    parent: &Path,
    files: &HostFiles,
    depth: usize,
    conf: &mut NixConf,
) -> Result<(), NixConfError> {
    for (number, line) in text.split('\n').enumerate() {
        let place = Place {
            origin: origin.to_owned(),
            line: number + 1,
        };
        let code = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = code
            .split([' ', '\t', '\n', '\r'])
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            [] => {}
            ["include" | "!include", name] => {
                let required = words[0] == "include";
                include(&parent.join(name), required, place, files, depth, conf)?;
            }
            [name, "=", ref value @ ..] if !matches!(name, "include" | "!include") => {
                conf.assignments.push(Assignment {
                    name: name.to_owned(),
                    value: value.join(" "),
                    place,
                });
            }
            _ => {
                let line = code.trim().to_owned();
                return Err(NixConfError::Syntax { place, line });
            }
        }
    }
    Ok(())
}

fn include(
    path: &Path,
    required: bool,
    place: Place,
    files: &HostFiles,
    depth: usize,
    conf: &mut NixConf,
) -> Result<(), NixConfError> {
    let path = path.to_owned();
    // A link that leads nowhere is there, but cannot be read.
    if files.find(&path).symlink_metadata().is_err() {
        return match required {
            true => Err(NixConfError::Missing { place, path }),
            false => Ok(()),
        };
    }
    if depth == DEEPEST {
        return Err(NixConfError::Circle { place, path });
    }
    file(&path, files, depth + 1, conf)
}
