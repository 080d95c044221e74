//! Snapshots that others made, and that are of no use here.

use std::fs;
use std::path::{Path, PathBuf};

use super::parts::Parts;
use super::saved::Saved;
use super::store::SnapshotStore;

impl SnapshotStore {
    /// Why the snapshot that somebody made of the machine called `machine` is not one of the
    /// machine that `parts` make, as one sentence; none where nobody made one. Blocks.
    pub(crate) fn why_not_theirs(&self, machine: &str, parts: &Parts) -> Option<String> {
        let made = self.sources.iter().flat_map(|source| within(source));
        let mut made = made.filter_map(|dir| Saved::open(&dir).ok());
        let saved = made.find(|saved| saved.manifest().machine == machine)?;
        let difference = parts.difference(&saved.manifest().parts)?;
        let path = saved.dir().display();
        Some(format!(
            "the snapshot in {path} is of another machine or host ({difference})"
        ))
    }
}

/// The directories in which there may be a snapshot.
fn within(source: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(source).into_iter().flatten().flatten();
    let mut directories: Vec<_> = entries.map(|entry| entry.path()).collect();
    directories.push(source.to_owned());
    directories
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::snapshot::{Draft, MEMORY};

    #[test]
    fn what_differs_is_named() {
        let parts = |memory: &str| {
            let mut parts = Parts::default();
            parts.add("qemu version", "10.0");
            parts.add("-m", memory);
            parts
        };
        let place = tempfile::tempdir().unwrap();
        let theirs = place.path().join("theirs");
        let dir = theirs.join(parts("512M").key().as_str());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(MEMORY), "memory").unwrap();
        let draft = Draft {
            machine: "web".into(),
            image: "debian".into(),
            system_ready: true,
            settled: machinist_guest::Settled::default(),
            parts: parts("512M"),
            digests: BTreeMap::new(),
        };
        Saved::seal(&dir, draft, "this boot").unwrap();
        let store = SnapshotStore::open(&place.path().join("ours"), u64::MAX).unwrap();
        assert_eq!(store.why_not_theirs("web", &parts("1024M")), None);
        let store = store.with_source(&theirs);
        let why = store.why_not_theirs("web", &parts("1024M")).unwrap();
        assert!(why.ends_with("(-m: 1024M here, 512M there)"), "{why}");
        assert_eq!(store.why_not_theirs("web", &parts("512M")), None);
        assert_eq!(store.why_not_theirs("db", &parts("1024M")), None);
    }
}
