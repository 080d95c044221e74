//! What a service did, in the builder's directory; and what its machine's console shows.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::path_error::{At, PathError};
use crate::state::private_file;

/// A log that is longer is put aside at the next start of the service, in the place of the one
/// before.
const LONG: u64 = 8 << 20;

/// Gets every line that the log gets.
pub type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// A service's log. Clones write to the same one.
#[derive(Clone)]
pub(crate) struct Log(Arc<Inner>);

struct Inner {
    file: Mutex<File>,
    listener: Listener,
}

impl Log {
    /// Opens the one at `path`.
    pub(crate) fn open(path: &Path, listener: Listener) -> Result<Self, PathError> {
        if std::fs::metadata(path).is_ok_and(|found| found.len() > LONG) {
            let old = path.with_extension("old");
            std::fs::rename(path, &old).at("rename", path)?;
        }
        let file = private_file().append(true).create(true).open(path);
        let file = Mutex::new(file.at("open", path)?);
        Ok(Self(Arc::new(Inner { file, listener })))
    }

    /// Writes a line.
    pub(crate) fn say(&self, text: &str) {
        (self.0.listener)(text);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = stamp(now.unwrap_or_default().as_secs());
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            // A full disk must not stop builds.
            drop(writeln!(file, "{time} {line}"));
        }
    }
}

/// Seconds since the Unix epoch as people write them, in UTC.
fn stamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    time.map_or_else(String::new, |time| {
        time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let log = Log::open(&path, Arc::new(|_| {})).unwrap();
        log.say("one\ntwo");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].ends_with("Z one") && lines[0].starts_with("20"),
            "{text}"
        );
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
    }
}
