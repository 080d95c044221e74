//! What containers need of a host, and what a host may lack.

use serde::{Deserialize, Serialize};

/// Something that containers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// User id 0, if only of a user namespace.
    Root,
    /// The user and group ids of a whole system.
    Ids,
    /// Mount and network namespaces of our own.
    Namespaces,
    /// A `/run` to write to, also known as `/var/run`.
    Run,
    /// A sysfs that shows a network namespace of our own.
    Sysfs,
    /// A cgroup2 with cgroups of our own in it.
    Cgroup,
    /// `/etc/os-release` and `/etc/machine-id`.
    Etc,
    /// Terminal devices: an instance of devpts.
    Terminals,
    /// A process-id namespace of our own, and a procfs that shows it.
    Processes,
}

impl Need {
    /// What it is, in a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ids => "the ids of a whole system",
            Self::Namespaces => "namespaces of our own",
            Self::Run => "a writable /run",
            Self::Sysfs => "a sysfs of our own",
            Self::Cgroup => "cgroup2",
            Self::Etc => "/etc/os-release and /etc/machine-id",
            Self::Terminals => "terminal devices",
            Self::Processes => "a process-id namespace with its own /proc",
        }
    }

    /// What the user can do where it is lacking.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Root => {
                "run as root; in a Nix build ask for requiredSystemFeatures = [ \"uid-range\" ]"
            }
            Self::Ids => {
                "map 65536 user and group ids; in a Nix build ask for requiredSystemFeatures = [ \"uid-range\" ]"
            }
            Self::Cgroup => "mount cgroup2, or let this process make cgroups below its own",
            Self::Terminals => "mount devpts on /dev/pts",
            Self::Namespaces | Self::Run | Self::Sysfs | Self::Etc | Self::Processes => {
                "allow mounts and namespaces here (CAP_SYS_ADMIN, CAP_NET_ADMIN), or use a VM"
            }
        }
    }
}

/// Something that containers need and this host, or this sandbox, does not give. It was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} ({why})", what.words())]
pub struct Lack {
    /// What is lacking.
    pub what: Need,
    /// What was seen.
    pub why: String,
}

/// All that containers need and lack here: one or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacks(pub Vec<Lack>);

impl std::error::Error for Lacks {}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("containers cannot run here; lacking: ")?;
        for (number, lack) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{lack}")?;
        }
        self.0
            .first()
            .map_or(Ok(()), |lack| write!(f, "; {}", lack.what.remedy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_named_and_one_remedy_given() {
        let lacks = Lacks(vec![
            Lack {
                what: Need::Cgroup,
                why: "Permission denied".into(),
            },
            Lack {
                what: Need::Terminals,
                why: "no /dev/pts".into(),
            },
        ]);
        assert_eq!(
            lacks.to_string(),
            "containers cannot run here; lacking: cgroup2 (Permission denied), terminal devices (no /dev/pts); mount cgroup2, or let this process make cgroups below its own"
        );
    }
}
