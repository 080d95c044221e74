//! Whether containers can run here. Asked once, before there are threads, by verbs that may start
//! some: an ordinary user's process becomes root of a user namespace then.

use machinist_lab::{ContainerLimits, Machine, RunsAs};
use machinist_machine::rootless::{self, Caller, Rights};

use crate::environment::{Environment, is_build_log};

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Containers {
    /// What keeps them from running.
    pub limits: ContainerLimits,
    /// What the user can do about it, each one line.
    pub remedies: Vec<String>,
}

impl Containers {
    /// Sees to it that they can run, where that can be had.
    fn prepare(environment: &Environment) -> Self {
        let caller = Caller {
            exe: &environment.exe,
            search: &environment.search,
            login: environment.login.as_deref(),
        };
        let mut limits = ContainerLimits::default();
        let mut remedies = Vec::new();
        match rootless::prepare(caller) {
            Ok(Rights::Root) => {}
            Ok(Rights::Mapped) => {
                limits.host_image = Some(
                    "a container with the image `host`, whose files are root's, needs root".into(),
                );
                remedies.push("run it again with sudo, or make it a VM".into());
            }
            Err(lack) => {
                limits.any = Some(lack.why);
                remedies = lack.remedies;
                if is_build_log() {
                    // A build's user can be given nothing else.
                    let features = "requiredSystemFeatures = [ \"uid-range\" ]";
                    remedies = vec![format!("ask for {features}")];
                }
            }
        }
        Self { limits, remedies }
    }
}

impl Environment {
    /// What keeps containers from running here, if one of the machines would be one. The first call
    /// has to come before this process makes threads.
    pub fn containers<'a>(&self, machines: impl IntoIterator<Item = &'a Machine>) -> &Containers {
        let mut machines = machines.into_iter();
        if machines.any(|machine| machine.resolve().0 == RunsAs::Container) {
            self.containers_at_all();
        }
        self.known_containers()
    }

    /// The same, for whoever has containers that are no lab's.
    pub fn containers_at_all(&self) -> &Containers {
        self.containers.get_or_init(|| Containers::prepare(self))
    }

    /// What is known by now: no limits, if nobody has asked.
    pub fn known_containers(&self) -> &Containers {
        static UNKNOWN: Containers = Containers {
            limits: ContainerLimits {
                any: None,
                host_image: None,
            },
            remedies: Vec::new(),
        };
        self.containers.get().unwrap_or(&UNKNOWN)
    }
}
