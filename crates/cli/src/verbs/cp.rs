//! `machinist cp`

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use machinist_session::ClientError;
use machinist_session::protocol::{FaultKind, Verb};

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::sessions;

/// Copy a file or a tree into or out of a machine of a live session
///
/// One of the two is MACHINE:PATH. A target that ends with `/`, or that is a directory of the
/// host, gets the source under its own name.
#[derive(Debug, Args)]
pub struct Cp {
    /// The session, or the beginning of its id; may be left out where there is only one
    #[arg(short, long)]
    session: Option<String>,
    /// What to copy: a path of the host, or MACHINE:PATH
    source: Place,
    /// Where to: a path of the host, or MACHINE:PATH
    target: Place,
}

/// A path, here or in a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Host(PathBuf),
    Machine { machine: String, path: String },
}

impl FromStr for Place {
    type Err = String;

    /// A colon before the first slash means a machine; `./a:b` is a file of the host.
    fn from_str(text: &str) -> Result<Self, String> {
        let before_slash = text.split('/').next().unwrap_or("");
        let Some((machine, _)) = before_slash.split_once(':') else {
            return Ok(Self::Host(text.into()));
        };
        let path = text[machine.len() + 1..].to_owned();
        if !path.starts_with('/') {
            return Err("paths in a machine begin with `/`".into());
        }
        Ok(Self::Machine {
            machine: machine.to_owned(),
            path,
        })
    }
}

impl Cp {
    /// Copies.
    pub fn run(self, environment: &Environment) -> Outcome {
        let found = sessions::find(environment, self.session.as_deref())?;
        let here = &environment.here;
        block_on(async {
            let mut client = sessions::connect(&found).await?;
            let verb = match (self.source, self.target) {
                (Place::Host(source), Place::Machine { machine, path }) => {
                    let host = here.join(source);
                    let guest = into(&path, &host)?;
                    let machine = sessions::machine(&client, Some(&machine))?;
                    Verb::CopyIn {
                        machine,
                        host,
                        guest,
                    }
                }
                (Place::Machine { machine, path }, Place::Host(target)) => {
                    let host = out(&path, &here.join(&target), ends_with_slash(&target))?;
                    let machine = sessions::machine(&client, Some(&machine))?;
                    Verb::CopyOut {
                        machine,
                        guest: path,
                        host,
                    }
                }
                _ => return Err(CliError::usage("one of the two must be MACHINE:PATH")),
            };
            client.ask(verb).await.map_err(not_a_test)?;
            Ok(Exit::Passed)
        })
    }
}

/// What would make a test fail is here a path that was named in vain.
fn not_a_test(error: ClientError) -> CliError {
    match error {
        ClientError::Fault(fault) if fault.kind == FaultKind::Test => CliError::usage(fault),
        other => other.into(),
    }
}

/// The target in a machine itself.
fn into(path: &str, source: &Path) -> Result<String, CliError> {
    if !path.ends_with('/') {
        return Ok(path.to_owned());
    }
    let name = source.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| CliError::usage("the source has no name: name the target"))?;
    Ok(format!("{path}{name}"))
}

/// The target on the host itself.
fn out(path: &str, target: &Path, slash: bool) -> Result<PathBuf, CliError> {
    if !slash && !target.is_dir() {
        return Ok(target.to_owned());
    }
    let name = Path::new(path).file_name();
    let name = name.ok_or_else(|| CliError::usage("the source has no name: name the target"))?;
    Ok(target.join(name))
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |text: &str| text.parse::<Place>();
        let machine = |machine: &str, path: &str| Place::Machine {
            machine: machine.into(),
            path: path.into(),
        };
        assert_eq!(place("web:/etc/x:y").unwrap(), machine("web", "/etc/x:y"));
        assert_eq!(place("./a:b").unwrap(), Place::Host("./a:b".into()));
        assert_eq!(place("a/b").unwrap(), Place::Host("a/b".into()));
        assert!(place("web:etc").is_err());
    }

    #[test]
    fn targets_that_are_directories_get_the_name() {
        assert_eq!(into("/srv/", Path::new("/a/b")).unwrap(), "/srv/b");
        assert_eq!(into("/srv", Path::new("/a/b")).unwrap(), "/srv");
        assert!(into("/srv/", Path::new("/")).is_err());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            out("/x/y", dir.path(), false).unwrap(),
            dir.path().join("y")
        );
        let file = dir.path().join("new");
        assert_eq!(out("/x/y", &file, false).unwrap(), file);
    }
}
