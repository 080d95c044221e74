//! `machinist builder register`

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use machinist_builder::State;
use machinist_builder::machines_file::{Machine, StoreUri};
use machinist_builder::registration::{
    self, Change, Foreign, ForeignError, HostKey, NixHost, RegisterError, Registered, Request,
    Trial, TrialError, Way,
};

use super::{failed, find};
use crate::Outcome;
use crate::environment::{self, Environment};
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Where `ssh` finds what it needs to reach foreign builders.
pub const SSH: &str = "/etc/machinist/ssh";

/// Make a builder known to Nix, and build something on it
///
/// Writes one block to Nix's file of machines, where nothing else is changed. Nothing is written before
/// the builder has built something.
#[derive(Debug, Args)]
pub struct Register {
    /// The builder
    name: String,
    /// Give it only builds that ask for these features, such as `nixos-test`
    #[arg(long, value_name = "FEATURE,...", value_delimiter = ',')]
    mandatory_features: Vec<String>,
    /// The features that it is said to have, in the place of those that it has been seen to have
    #[arg(long, value_name = "FEATURE,...", value_delimiter = ',')]
    features: Option<Vec<String>>,
    /// The systems that it builds for
    #[arg(long, value_name = "SYSTEM,...", value_delimiter = ',')]
    systems: Option<Vec<String>>,
    /// How many builds it gets at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// How fast it is, compared with other machines
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    speed: f32,
    /// This program, by a path at which it stays
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The file to write to, where it is not Nix's usual one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not build anything
    #[arg(long)]
    no_test: bool,
    #[command(flatten)]
    ssh: Ssh,
}

/// A builder that is somebody else's machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "A machine that is reached by SSH")]
struct Ssh {
    /// The machine, in the place of a builder of machinist's
    #[arg(long = "ssh", value_name = "[USER@]HOST[:PORT]", requires = "host_key")]
    address: Option<String>,
    /// Its host key, or a file that has it
    #[arg(long, value_name = "KEY", requires = "address")]
    host_key: Option<String>,
    /// A bastion to go through
    #[arg(long, value_name = "[USER@]HOST[:PORT]", requires_all = ["address", "jump_host_key"])]
    jump: Option<String>,
    /// The bastion's host key, or a file that has it
    #[arg(long, value_name = "KEY", requires = "jump")]
    jump_host_key: Option<String>,
    /// The private key, which root must be able to read
    #[arg(long = "key", value_name = "FILE", requires = "address")]
    identity: Option<PathBuf>,
}

impl Register {
    /// Registers it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let host = environment::nix_host();
        let directory = Path::new(SSH).join(&self.name);
        let is_new = self.ssh.address.is_some() && !directory.exists();
        let outcome = self.register(environment, &host);
        if outcome.is_err() && is_new {
            let known = registration::registered(&host, self.file.as_deref());
            if !known.is_ok_and(|known| known.contains(&self.name)) {
                // It was for this alone.
                drop(fs::remove_dir_all(&directory));
            }
        }
        outcome
    }

    fn register(&self, environment: &Environment, host: &NixHost) -> Outcome {
        let request = Request {
            machine: self.machine(environment, host)?,
            name: self.name.clone(),
            file: self.file.clone(),
        };
        let would = registration::check(host, &request).map_err(refused)?;
        if would.change == Change::Same {
            ui::status(format_args!("{} is registered already", self.name));
        }
        if !self.no_test {
            let tried = self.try_it(environment, &request.machine, Way::Entry);
            tried.map_err(|error| self.with_words_of_ssh(environment, error))?;
        }
        let done = registration::register(host, &request).map_err(refused)?;
        tell(&self.name, &done);
        if !self.no_test {
            match self.try_it(environment, &request.machine, Way::Chosen) {
                // It has been seen to build.
                Err(error) if error.is_elsewhere => ui::warning(error.cli.chain().join(": ")),
                Err(error) => {
                    return Err(error.cli.hint(
                        "it is registered, but the daemon does not know it: restart Nix's daemon",
                    ));
                }
                Ok(()) => {}
            }
        }
        Ok(Exit::Passed)
    }

    /// What ssh has against it, which Nix keeps for itself.
    fn with_words_of_ssh(&self, environment: &Environment, error: NotTried) -> CliError {
        let error = CliError::from(error);
        let asked = self.ssh.address.is_some().then(|| {
            let config = Path::new(SSH).join(&self.name).join("config");
            let mut ssh = Command::new(environment.find_program("ssh")?);
            let ssh = ssh.arg("-F").arg(config).args(["builder", "true"]);
            ssh.stdin(Stdio::null()).output().ok()
        });
        let said = asked.flatten().map(|output| output.stderr);
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        match said.trim() {
            "" => error,
            said => error.hint(format!("ssh says: {said}")),
        }
    }

    fn machine(&self, environment: &Environment, host: &NixHost) -> Result<Machine, CliError> {
        let set = |words: &[String]| words.iter().cloned().collect::<BTreeSet<_>>();
        let (uri, systems, features, jobs) = match &self.ssh.address {
            Some(address) => {
                let uri = self.ssh.uri(environment, &self.name, address)?;
                (uri, vec![host.system.clone()], Vec::new(), 1)
            }
            None => {
                let state = find(&self.name)?;
                let config = state.config().map_err(failed)?;
                let proven = state.proven().map(|proven| proven.features);
                if proven.is_none() && config.system.is_some() {
                    // What it offers is its system's business.
                    return Err(CliError::usage(format!(
                        "nobody knows yet what the system of {} offers",
                        self.name
                    ))
                    .hint(format!(
                        "start it once: `machinist builder start {}`",
                        self.name
                    )));
                }
                let uri = self.own_uri(environment, host, &state)?;
                self.can_have(proven.as_deref())?;
                let features = super::status::features(&state);
                (uri, config.systems(), features, config.max_jobs)
            }
        };
        let mandatory = set(&self.mandatory_features);
        let features = set(self.features.as_ref().unwrap_or(&features));
        Ok(Machine {
            uri,
            systems: set(self.systems.as_ref().unwrap_or(&systems)),
            ssh_key: None,
            max_jobs: self.jobs.unwrap_or(jobs),
            speed: self.speed,
            features: features.difference(&mandatory).cloned().collect(),
            mandatory,
            host_key: None,
        })
    }

    /// Whether a builder of ours can have what it is said to have. What no builder has is a mistake that
    /// Nix would tell of in many more words.
    fn can_have(&self, proven: Option<&[String]>) -> Result<(), CliError> {
        let possible: Vec<&str> = match proven {
            Some(proven) => proven.iter().map(String::as_str).collect(),
            None => {
                let usual = machinist_builder::FEATURES.iter().copied();
                usual.chain(["kvm"]).collect()
            }
        };
        let mut said = self
            .mandatory_features
            .iter()
            .chain(self.features.iter().flatten());
        let Some(feature) = said.find(|feature| !possible.contains(&feature.as_str())) else {
            return Ok(());
        };
        let name = &self.name;
        let has = match proven {
            Some(_) => format!("has {}", possible.join(", ")),
            None => format!("can have {}", possible.join(", ")),
        };
        Err(CliError::usage(format!(
            "builder {name} has no feature {feature}; it {has}"
        )))
    }

    /// How Nix reaches a builder of ours: by this program.
    fn own_uri(
        &self,
        environment: &Environment,
        host: &NixHost,
        state: &State,
    ) -> Result<StoreUri, CliError> {
        let program = self.program.as_ref().unwrap_or(&environment.exe);
        registration::program(program, &host.files).map_err(refused)?;
        // The daemon has another environment, and looks for names where root's builders usually are.
        let usual = Path::new(environment::ROOTS_BUILDERS);
        let name = match environment::builders()? == usual {
            true => self.name.clone(),
            false => state.path().display().to_string(),
        };
        let command = format!("{} connect {name}", program.display());
        Ok(StoreUri::new(
            "ssh-ng",
            "localhost",
            &[("remote-program", &command)],
        ))
    }

    fn try_it(
        &self,
        environment: &Environment,
        machine: &Machine,
        way: Way,
    ) -> Result<(), NotTried> {
        if way == Way::Entry {
            ui::status(format_args!("building something on {}", self.name));
        }
        let nix_build =
            registration::find_nix(&environment.search, "nix-build").ok_or_else(|| {
                CliError::host("there is no nix-build to try it with")
                    .hint("install Nix, or leave it out by --no-test")
            })?;
        let system = machine.systems.first().map_or("", String::as_str);
        let trial = Trial {
            nix_build: &nix_build,
            machine,
            system,
        };
        trial.run(way).map_err(NotTried::from)
    }
}

impl Ssh {
    /// Writes what `ssh` needs.
    fn uri(
        &self,
        environment: &Environment,
        name: &str,
        address: &str,
    ) -> Result<StoreUri, CliError> {
        let usage = |error: ForeignError| CliError::usage(error);
        machinist_builder::check_name(name).map_err(CliError::usage)?;
        let key = host_key(self.host_key.as_deref())?;
        let mut foreign = Foreign::new(address, key).map_err(usage)?;
        if let Some(jump) = &self.jump {
            let key = host_key(self.jump_host_key.as_deref())?;
            foreign = foreign.through(jump, key).map_err(usage)?;
        }
        if let Some(identity) = &self.identity {
            foreign = foreign.with_identity(identity).map_err(usage)?;
        }
        let ssh = environment.find_program("ssh").ok_or_else(|| {
            CliError::host("ssh is not in PATH").hint("install the package openssh-client")
        })?;
        let directory = Path::new(SSH).join(name);
        foreign
            .write(&directory)
            .map_err(|error| refused(error.into()))?;
        Ok(foreign.uri(&ssh, &directory))
    }
}

/// A key, or the one that the file of that name has.
fn host_key(word: Option<&str>) -> Result<HostKey, CliError> {
    let word = word.unwrap_or_default();
    let key = match fs::read_to_string(word) {
        // What else is in there is not to be shown: it may be a private key, by mistake.
        Ok(text) => HostKey::parse(&text)
            .map_err(|_| CliError::usage(format!("{word} has no public host key"))),
        Err(_) => HostKey::parse(word).map_err(CliError::usage),
    };
    key.map_err(|error| {
        error.hint("on the machine it is in /etc/ssh/ssh_host_ed25519_key.pub; from here, `ssh-keyscan -t ed25519 HOST` shows what answers")
    })
}

/// A trial that failed.
struct NotTried {
    cli: CliError,
    is_elsewhere: bool,
}

impl From<CliError> for NotTried {
    fn from(cli: CliError) -> Self {
        Self {
            cli,
            is_elsewhere: false,
        }
    }
}

impl From<TrialError> for NotTried {
    fn from(error: TrialError) -> Self {
        Self {
            is_elsewhere: matches!(error, TrialError::Elsewhere { .. }),
            cli: CliError::machinery(error),
        }
    }
}

impl From<NotTried> for CliError {
    fn from(error: NotTried) -> Self {
        error
            .cli
            .context("the builder is not registered: it does not build")
            .hint(
                "`machinist builder logs` shows what it says; --no-test registers it all the same",
            )
    }
}

fn tell(name: &str, done: &Registered) {
    let file = done.file.display();
    match done.change {
        Change::Added => ui::status(format_args!("registered {name} in {file}")),
        Change::Changed => ui::status(format_args!("changed {name} in {file}")),
        Change::Same => {}
    }
    for remark in &done.remarks {
        ui::warning(remark);
    }
    ui::data(&done.entry);
}

/// Why it is not registered, with what helps.
pub fn refused(error: RegisterError) -> CliError {
    let mend = error.mend();
    let error = match error {
        RegisterError::Word(_)
        | RegisterError::NoJobs
        | RegisterError::TooLong { .. }
        | RegisterError::Program { .. } => CliError::usage(error),
        other => CliError::new(crate::error::Kind::Host, other),
    };
    mend.into_iter().fold(error, CliError::hint)
}
