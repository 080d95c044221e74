//! The variables that start scripts find, which a test may change while it runs.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// The environment of start scripts: our own, and what has been changed of it since.
///
/// A test's script sets variables before it starts a VM, as if the VM's start script were its own
/// child: `NIX_DISK_IMAGE` is the usual one.
#[derive(Debug, Default)]
pub struct Variables {
    own: BTreeMap<String, String>,
    changed: RwLock<BTreeMap<String, Option<String>>>,
}

impl Variables {
    /// Those of our own process, as far as they are text.
    #[must_use]
    pub fn new(own: BTreeMap<String, String>) -> Self {
        Self {
            own,
            changed: RwLock::default(),
        }
    }

    /// Sets variables for scripts that start from now on; those without a value are taken away.
    pub fn change(&self, variables: BTreeMap<String, Option<String>>) {
        let mut changed = self.changed.write().unwrap_or_else(PoisonError::into_inner);
        changed.extend(variables);
    }

    /// What a script finds under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let changed = self.changed.read().unwrap_or_else(PoisonError::into_inner);
        match changed.get(name) {
            Some(value) => value.clone(),
            None => self.own.get(name).cloned(),
        }
    }

    /// What is not as in our own process.
    pub(crate) fn changed(&self) -> BTreeMap<String, Option<String>> {
        let changed = self.changed.read().unwrap_or_else(PoisonError::into_inner);
        changed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_counts() {
        let text = |value: &str| Some(value.to_owned());
        let own = [("A", "1"), ("B", "2")].map(|(name, value)| (name.into(), value.into()));
        let variables = Variables::new(own.into());
        variables.change([("A".into(), None), ("C".into(), text("3"))].into());
        assert_eq!(variables.get("A"), None);
        assert_eq!(variables.get("B"), text("2"));
        assert_eq!(variables.get("C"), text("3"));
        variables.change([("A".into(), text("4"))].into());
        assert_eq!(variables.get("A"), text("4"));
        assert_eq!(variables.changed().len(), 2);
    }
}
