//! How Nix comes to know a builder: one block in the file `machines`.
//!
//! The file is shared with everybody else who writes machines, and one wrong byte in it ends all builds
//! of the host. So nothing is written before all of what would be there was read by Nix's own rules, and
//! nothing but our block is changed.

mod block;
mod check;
mod error;
mod file;
mod foreign;
mod trial;

use std::path::{Path, PathBuf};

pub use block::BrokenBlock;
pub use check::program;
pub use error::{Mend, RegisterError};
pub use foreign::{Foreign, ForeignError, HostKey};
pub use trial::{Trial, TrialError, Way, find_nix};

use crate::machines_file::{HostFiles, Machine, Place};
use crate::nix_conf::{self, Daemon, NixConf, Process};
use crate::path_error::At as _;

/// Where the daemon of Nix listens.
const DAEMON: &str = "/nix/var/nix/daemon-socket/socket";

/// The Nix of a host.
#[derive(Debug, Clone)]
pub struct NixHost {
    /// Its files.
    pub files: HostFiles,
    /// The directory of its configuration.
    pub directory: PathBuf,
    /// The system that it builds for by itself.
    pub system: String,
    /// Whose settings count for builds: the daemon's; where there is none, those of whoever calls Nix.
    pub builds: Process,
    /// Who calls Nix, where a daemon builds for them.
    pub client: Option<Process>,
}

/// A machine to be known to Nix.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The builder's name.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// The file to write it to, where it is not `machines` of Nix's configuration.
    pub file: Option<PathBuf>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It was there, with something else.
    Changed,
    /// It was there.
    Same,
}

/// A machine that Nix knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The file that has it.
    pub file: PathBuf,
    /// What was done to it.
    pub change: Change,
    /// The line.
    pub entry: String,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// The system of this host, as Nix calls it.
#[must_use]
pub fn this_system() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    format!("{}-{os}", std::env::consts::ARCH)
}

impl NixHost {
    /// This one. `caller` is who asks: a user whose builds the daemon makes, if there is one.
    #[must_use]
    pub fn this(caller: Process) -> Self {
        let mut host = Self::below("/");
        match Daemon::find(&host.files) {
            Some(daemon) => {
                host.builds = daemon.process(&host.files);
                host.client = Some(caller);
            }
            None if host.files.find(Path::new(DAEMON)).exists() => host.client = Some(caller),
            None => host.builds = caller,
        }
        if let Some(directory) = host.builds.directory() {
            host.directory = directory;
        }
        host
    }

    /// One whose files lie below `root`.
    #[must_use]
    pub fn below(root: &str) -> Self {
        Self {
            files: HostFiles::below(root),
            directory: nix_conf::DIRECTORY.into(),
            system: this_system(),
            builds: Process::default(),
            client: None,
        }
    }

    /// The file that has machines where nobody says otherwise.
    #[must_use]
    pub fn machines(&self) -> PathBuf {
        self.directory.join("machines")
    }

    /// Its configuration, as far as it counts for builds.
    ///
    /// # Errors
    /// Nix itself cannot read it.
    pub fn conf(&self) -> Result<NixConf, nix_conf::NixConfError> {
        NixConf::of(&self.builds, &self.directory, &self.files)
    }

    /// What the caller's own settings make of `builders`, where a daemon builds and they say
    /// something: an empty text is heeded by every daemon, any other one if it trusts the caller.
    #[must_use]
    pub fn asked_for(&self) -> Option<(String, Place)> {
        let own = self.client.as_ref()?.read(&self.files).ok()?;
        let (builders, place) = own.builders(&self.directory);
        place.map(|place| (builders, place))
    }

    fn root(&self) -> PathBuf {
        self.files.find(Path::new("/"))
    }
}

/// Says what [`register`] would do, and does nothing, but that the directory is there then.
///
/// # Errors
/// As [`register`].
pub fn check(host: &NixHost, request: &Request) -> Result<Registered, RegisterError> {
    prepare(host, request).map(|prepared| prepared.done)
}

/// Makes a machine known to Nix: writes its block, unless it is there already. Waits for others who do
/// the same.
///
/// # Errors
/// It cannot be written, or Nix would not find or not understand it. Then nothing is changed.
pub fn register(host: &NixHost, request: &Request) -> Result<Registered, RegisterError> {
    let prepared = prepare(host, request)?;
    if prepared.done.change != Change::Same {
        prepared.held.write(&prepared.text)?;
    }
    Ok(prepared.done)
}

/// The file, held, and what it is to have.
struct Prepared {
    held: file::Held,
    text: Vec<u8>,
    done: Registered,
}

fn prepare(host: &NixHost, request: &Request) -> Result<Prepared, RegisterError> {
    check::words(&request.name, &request.machine)?;
    let file = request.file.clone().unwrap_or_else(|| host.machines());
    check::is_included(host, &file)?;
    file::make_directory(&host.files.find(&file))?;
    let held = hold(host, &file, Some(&request.machine))?;
    let before = held.read()?;
    let entry = request.machine.entry();
    let broken = |error| RegisterError::Block {
        file: file.clone(),
        error,
    };
    let known = block::names(&before).map_err(broken)?;
    let text = block::with(&before, &request.name, &entry).map_err(broken)?;
    let others = block::without(&before, &request.name).map_err(broken)?;
    let others = others.as_deref().unwrap_or(&before);
    let remarks = check::result(host, &file, request, &text, others)?;
    let change = if text == before {
        Change::Same
    } else if known.contains(&request.name) {
        Change::Changed
    } else {
        Change::Added
    };
    let done = Registered {
        file,
        change,
        entry,
        remarks,
    };
    Ok(Prepared { held, text, done })
}

/// Takes a builder's block out again. True if there was one.
///
/// # Errors
/// The file cannot be read or written, or somebody has edited the block's marks.
pub fn unregister(host: &NixHost, name: &str, file: Option<&Path>) -> Result<bool, RegisterError> {
    let usual = host.machines();
    let file = file.unwrap_or(&usual);
    if !host.files.find(file).parent().is_some_and(Path::exists) {
        return Ok(false);
    }
    let held = hold(host, file, None)?;
    let before = held.read()?;
    let after = block::without(&before, name).map_err(|error| RegisterError::Block {
        file: file.to_owned(),
        error,
    })?;
    match after {
        Some(after) => held.write(&after).map(|()| true).map_err(Into::into),
        None => Ok(false),
    }
}

/// The builders that have a block in the file.
///
/// # Errors
/// As [`unregister`].
pub fn registered(host: &NixHost, file: Option<&Path>) -> Result<Vec<String>, RegisterError> {
    let usual = host.machines();
    let file = file.unwrap_or(&usual);
    let text = match std::fs::read(host.files.find(file)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.at("read", file)?,
    };
    block::names(&text).map_err(|error| RegisterError::Block {
        file: file.to_owned(),
        error,
    })
}

fn hold(
    host: &NixHost,
    file: &Path,
    machine: Option<&Machine>,
) -> Result<file::Held, RegisterError> {
    let real = file::real(&host.files.find(file))?;
    if file::is_in_store(&real, &host.root()) {
        return Err(RegisterError::InStore {
            file: file.to_owned(),
            real,
            entry: machine.map(Machine::entry),
            snippet: machine.map(error::snippet),
        });
    }
    file::may_write(&real)?;
    Ok(file::Held::new(real)?)
}

#[cfg(test)]
mod tests;
