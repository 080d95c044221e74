//! What is in the cache, and throwing it away.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::cache::Record;
use crate::error::{At, ImageError};
use crate::key::ImageId;
use crate::store::Store;

/// What kind of thing is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtefactKind {
    /// A root file system, as a directory.
    Image,
    /// A root file system, as a disk.
    Disk,
    /// A kernel with its modules.
    Kernel,
    /// An initrd.
    Initrd,
}

impl ArtefactKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Image, Self::Disk, Self::Kernel, Self::Initrd];

    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Disk => "disks",
            Self::Kernel => "kernels",
            Self::Initrd => "initrds",
        }
    }
}

/// Something in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: ArtefactKind,
    /// Its content key. For an image this is [`crate::Image::id`].
    pub id: ImageId,
    /// For people, such as `debian:bookworm with nginx`.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes on disk.
    pub size: u64,
    /// When it was built.
    #[serde(with = "seconds")]
    pub created: SystemTime,
    /// When it was last asked for.
    #[serde(with = "seconds")]
    pub last_used: SystemTime,
    /// Whether a running process uses it.
    pub in_use: bool,
}

/// What to throw away: everything that any of these matches, but never what is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Everything.
    pub all: bool,
    /// What has not been used for this long.
    pub unused_for: Option<Duration>,
    /// What was used longest ago, until this many bytes are left.
    pub to_size: Option<u64>,
    /// Only tells what would go.
    pub dry_run: bool,
}

/// What was thrown away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// What is gone, or would be.
    pub removed: Vec<Entry>,
    /// What would have gone, but is in use.
    pub in_use: Vec<Entry>,
    /// Bytes that are free again, or would be.
    pub freed: u64,
}

impl Store {
    /// Everything in the cache, the last used first.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, ImageError> {
        let mut entries = Vec::new();
        for kind in ArtefactKind::ALL {
            let directory = self.cache.kind_path(kind);
            for entry in fs::read_dir(&directory).at("list", &directory)? {
                let name = entry.at("list", &directory)?.file_name();
                let id = name.to_str().and_then(|name| name.parse().ok());
                if let Some(id) = id
                    && let Some(entry) = self.entry(kind, id)?
                {
                    entries.push(entry);
                }
            }
        }
        entries.sort_by(|a, b| (b.last_used, &b.id).cmp(&(a.last_used, &a.id)));
        Ok(entries)
    }

    /// What is in the cache whose id begins with `id`, or whose name is that.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn show(&self, id: &str) -> Result<Vec<Entry>, ImageError> {
        let mut entries = self.list()?;
        entries.retain(|entry| {
            entry.name == id || (!id.is_empty() && entry.id.as_str().starts_with(id))
        });
        Ok(entries)
    }

    /// Throws away what `prune` says.
    ///
    /// # Errors
    /// The cache cannot be read or changed. What was thrown away until then is gone.
    pub fn prune(&self, prune: &Prune) -> Result<Pruned, ImageError> {
        let entries = self.list()?;
        let mut pruned = Pruned::default();
        for entry in select(entries, prune, SystemTime::now()) {
            let gone = if prune.dry_run {
                !entry.in_use
            } else {
                self.cache.remove(entry.kind, &entry.id)?
            };
            if gone {
                pruned.freed += entry.size;
                pruned.removed.push(entry);
            } else {
                pruned.in_use.push(entry);
            }
        }
        Ok(pruned)
    }

    /// `None` if it has vanished meanwhile.
    fn entry(&self, kind: ArtefactKind, id: ImageId) -> Result<Option<Entry>, ImageError> {
        let path = self.cache.path(kind, &id);
        let file = path.join(crate::cache::RECORD);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Ok(Err(error).at("read", &file)?),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(io::Error::other)
            .at("read", &file)?;
        let last_used = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .at("read", &path)?;
        Ok(Some(Entry {
            in_use: self.cache.in_use(kind, &id)?,
            kind,
            id,
            name: record.name,
            path,
            size: record.size,
            created: record.created,
            last_used,
        }))
    }
}

/// What goes, given everything, the last used first.
fn select(entries: Vec<Entry>, prune: &Prune, now: SystemTime) -> Vec<Entry> {
    let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut selected = Vec::new();
    for entry in entries.into_iter().rev() {
        // A clock that was set back makes nothing old.
        let age = now.duration_since(entry.last_used).unwrap_or_default();
        let old = prune.unused_for.is_some_and(|limit| age >= limit);
        let too_much = prune.to_size.is_some_and(|limit| total > limit);
        if prune.all || old || too_much {
            // What is in use stays, and so counts on.
            if !entry.in_use {
                total -= entry.size;
            }
            selected.push(entry);
        }
    }
    selected
}

/// Times as seconds since 1970.
mod seconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<SystemTime, D::Error> {
        // Beyond any date that a file system knows: then it has just been.
        let seconds = Duration::from_secs(u64::deserialize(input)?);
        Ok(UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Recipe;

    fn entry(name: &str, size: u64, age: u64, in_use: bool, now: SystemTime) -> Entry {
        let mut recipe = Recipe::new("test", 1);
        recipe.field("name", name.as_bytes());
        Entry {
            kind: ArtefactKind::Image,
            id: recipe.key(),
            name: name.to_owned(),
            path: PathBuf::from("/cache").join(name),
            size,
            created: now,
            last_used: now - Duration::from_secs(age),
            in_use,
        }
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_used_counts_but_stays() {
        let now = SystemTime::now();
        let entries = vec![
            entry("new", 10, 1, false, now),
            entry("old", 10, 100, false, now),
            entry("used", 10, 200, true, now),
        ];
        let names = |prune: Prune| -> Vec<String> {
            let selected = select(entries.clone(), &prune, now);
            selected.into_iter().map(|entry| entry.name).collect()
        };
        assert!(names(Prune::default()).is_empty());
        let to_size = |bytes| Prune {
            to_size: Some(bytes),
            ..Prune::default()
        };
        assert_eq!(names(to_size(20)), ["used", "old"]);
        assert!(names(to_size(30)).is_empty());
        let unused = Prune {
            unused_for: Some(Duration::from_secs(100)),
            ..Prune::default()
        };
        assert_eq!(names(unused), ["used", "old"]);
        let all = Prune {
            all: true,
            ..Prune::default()
        };
        assert_eq!(names(all).len(), 3);
    }

    #[test]
    fn entries_survive_json() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let entry = entry("debian:bookworm", 1, 2, false, now);
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}
