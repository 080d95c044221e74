//! What keeps containers from running on a host. Whoever knows the host says so; nothing here looks.

use super::{Machine, Source};

/// What keeps containers from running on a host, each as half a sentence. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerLimits {
    /// Why no container can run.
    pub any: Option<String>,
    /// Why none can have the host's own root as its image.
    pub host_image: Option<String>,
}

impl ContainerLimits {
    /// Why this machine cannot be a container here.
    #[must_use]
    pub fn against(&self, machine: &Machine) -> Option<&str> {
        let of_image = match machine.image.source {
            Source::Host => self.host_image.as_deref(),
            _ => None,
        };
        self.any.as_deref().or(of_image)
    }
}
