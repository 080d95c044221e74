//! Why a builder is not registered, and what helps.

use std::path::PathBuf;

use super::block::BrokenBlock;
use crate::machines_file::{Machine, MachinesError, Place};
use crate::nix_conf::NixConfError;
use crate::path_error::PathError;

/// What the user can do, one line each.
pub type Mend = Vec<String>;

/// Why a builder is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A word that the file's grammar would take for something else.
    #[error("'{0}' cannot stand in Nix's list of machines: letters, digits and -_. can")]
    Word(String),
    /// A machine without slots.
    #[error("a machine with 0 jobs would be waited for, and never be free")]
    NoJobs,
    /// Nix names files after the URI.
    #[error(
        "the machine's URI is {over} bytes too long for Nix, which names files after it: {uri}"
    )]
    TooLong {
        /// The URI.
        uri: String,
        /// How much too long.
        over: usize,
    },
    /// The program that Nix would run.
    #[error("{} cannot be the program that Nix runs: {why}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nix's own configuration is broken.
    #[error("Nix cannot read its configuration")]
    Conf(#[from] NixConfError),
    /// Nix does not look into the file.
    #[error("Nix would not see it: builders is '{builders}'{}, and has no @{}", by(set_by.as_ref()), file.display())]
    NotIncluded {
        /// The file.
        file: PathBuf,
        /// What `builders` is.
        builders: String,
        /// Who set it.
        set_by: Option<Place>,
    },
    /// The file is made by Nix's own modules.
    #[error("{} is made by a module of Nix's: it is {}", file.display(), real.display())]
    InStore {
        /// The file.
        file: PathBuf,
        /// Where it really lies.
        real: PathBuf,
        /// The line that would have been written.
        entry: Option<String>,
        /// The same for the module.
        snippet: Option<String>,
    },
    /// Nix's list of machines is broken already.
    #[error("Nix cannot read its list of machines, and builds nothing until that is mended")]
    Broken(#[source] MachinesError),
    /// Somebody has edited our marks.
    #[error("{}", file.display())]
    Block {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        error: BrokenBlock,
    },
    /// It is there already, by somebody else's hand.
    #[error("the machine is there already, at {place}: {entry}")]
    Twice {
        /// Where.
        place: Place,
        /// As what.
        entry: String,
    },
    /// What was to be written would be read as something else.
    #[error("Nix would read another machine than is meant: {0}")]
    NotRead(String),
    /// The file system refuses.
    #[error(transparent)]
    Path(#[from] PathError),
}

fn by(place: Option<&Place>) -> String {
    place.map_or_else(String::new, |place| format!(" (set by {place})"))
}

impl RegisterError {
    /// What the user can do.
    #[must_use]
    pub fn mend(&self) -> Mend {
        match self {
            Self::NotIncluded {
                file,
                builders,
                set_by,
            } => {
                // What is there already is to stay.
                let include = match builders.as_str() {
                    "" => format!("builders = @{}", file.display()),
                    builders => format!("builders = {builders} ; @{}", file.display()),
                };
                match set_by {
                    Some(place) if place.origin.starts_with('/') => vec![format!(
                        "write '{include}' at {place}, or remove that line; then restart Nix's daemon"
                    )],
                    Some(place) => vec![format!(
                        "take builders out of {place}, or add @{} there; then restart Nix's daemon",
                        file.display()
                    )],
                    None => vec![format!(
                        "write '{include}' to nix.conf; then restart Nix's daemon"
                    )],
                }
            }
            Self::InStore { snippet, entry, .. } => {
                let mut mend: Mend = Vec::new();
                if let Some(snippet) = snippet {
                    mend.push(format!("let the module write it:\n{snippet}"));
                }
                if entry.is_some() {
                    mend.push("or let Nix look into a second file: nix.settings.builders = lib.mkForce \"@/etc/nix/machines ; @/etc/machinist/machines\", then --file /etc/machinist/machines".to_owned());
                }
                mend
            }
            Self::Program { .. } => vec![
                "install machinist where it stays, such as /usr/local/bin, or name it by --program"
                    .to_owned(),
            ],
            Self::TooLong { .. } => {
                vec!["give the builder, or the program's directory, a shorter name".to_owned()]
            }
            Self::Twice { .. } => vec!["remove that line".to_owned()],
            Self::Broken(_) => vec!["mend or remove what is named above; `machinist doctor --for builder` shows all of it".to_owned()],
            Self::Block { .. } => vec!["put the mark back, or remove what is left of those lines".to_owned()],
            Self::Path(error) if error.io().kind() == std::io::ErrorKind::PermissionDenied => {
                vec!["run it again with sudo".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// A machine for the modules of NixOS and nix-darwin.
pub(super) fn snippet(machine: &Machine) -> String {
    let list = |words: &std::collections::BTreeSet<String>| {
        let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        format!("[ {} ]", words.join(" "))
    };
    let uri = machine.uri.to_string();
    let (protocol, host) = uri.split_once("://").unwrap_or(("ssh-ng", &uri));
    format!(
        "nix.distributedBuilds = true;\nnix.buildMachines = [ {{\n  protocol = \"{protocol}\";\n  hostName = \"{host}\";\n  systems = {};\n  maxJobs = {};\n  speedFactor = {};\n  supportedFeatures = {};\n  mandatoryFeatures = {};\n}} ];",
        list(&machine.systems),
        machine.max_jobs,
        machine.speed.round().max(1.0),
        list(&machine.features),
        list(&machine.mandatory),
    )
}
