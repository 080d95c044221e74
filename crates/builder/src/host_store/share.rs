//! The host's store for a VM: a file system that its kernel asks for over the agent's channel.
//!
//! At its top are the paths that are shown, and nothing else: what is not among them is not there,
//! whatever the host's directory has. Nothing can be written, and no link is followed here.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fuse::{Answer, Asked, LARGEST, failed, operation};

/// The number of the top directory.
const TOP: u64 = 1;
/// As much as the agent reads at once. A kernel that makes room forgets as many files in one message as fit.
const LONGEST: u32 = 256 << 10;

/// The names that are shown. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Arc<RwLock<Names>>);

#[derive(Debug, Default)]
struct Names {
    now: BTreeSet<String>,
    /// The kernel need not ask again what it has asked once, so what is not shown any more never is again:
    /// it could be another by then.
    before: BTreeSet<String>,
}

impl Shown {
    /// Shows more, but for those that have been shown before: which are new, in their order.
    pub(super) fn add(&self, names: &[String]) -> Vec<String> {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for name in names {
            if !shown.before.contains(name) && shown.now.insert(name.clone()) {
                new.push(name.clone());
            }
        }
        new
    }

    /// Whether it was shown once, and never is again.
    pub(super) fn is_former(&self, name: &str) -> bool {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.before.contains(name)
    }

    pub(super) fn remove(&self, names: &[String]) {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if let Some(name) = shown.now.take(name) {
                shown.before.insert(name);
            }
        }
    }

    fn has(&self, name: &[u8]) -> bool {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        std::str::from_utf8(name).is_ok_and(|name| shown.now.contains(name))
    }

    fn all(&self) -> Vec<String> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.now.iter().cloned().collect()
    }
}

/// A file that the kernel knows.
#[derive(Debug)]
struct Node {
    /// Below the store; empty for the top.
    path: PathBuf,
    /// How often it has been told of it, and not yet forgotten that.
    told: u64,
}

/// One kernel's view.
#[derive(Debug)]
pub(super) struct Share {
    store: PathBuf,
    shown: Shown,
    nodes: HashMap<u64, Node>,
    numbers: HashMap<PathBuf, u64>,
    last: u64,
    /// What was read last: mostly it is read on.
    open: Option<(u64, File)>,
}

impl Share {
    pub(super) fn new(store: PathBuf, shown: Shown) -> Self {
        let top = Node {
            path: PathBuf::new(),
            told: 1,
        };
        Self {
            store,
            shown,
            nodes: HashMap::from([(TOP, top)]),
            numbers: HashMap::new(),
            last: TOP,
            open: None,
        }
    }

    /// Answers until the kernel asks no more.
    pub(super) async fn serve(
        mut self,
        mut asked: impl AsyncReadExt + Unpin,
        mut answers: impl AsyncWriteExt + Unpin,
    ) -> io::Result<()> {
        loop {
            let size = asked.read_u32_le().await?;
            if !(4..=LONGEST).contains(&size) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut message = vec![0; size as usize - 4];
            asked.read_exact(&mut message).await?;
            // It reads from disks.
            let answered = tokio::task::spawn_blocking(move || {
                let answer = self.answer(&message);
                (self, answer)
            });
            let answer;
            (self, answer) = answered.await.map_err(io::Error::other)?;
            if let Some(answer) = answer {
                answers.write_all(&answer).await?;
                answers.flush().await?;
            }
        }
    }

    /// The answer to a message, which comes without its length; some have none.
    fn answer(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let asked = Asked::read(message)?;
        match asked.operation {
            operation::FORGET => {
                self.forget(asked.node, asked.long(0)?);
                return None;
            }
            operation::BATCH_FORGET => {
                for at in 0..asked.word(0)? as usize {
                    let (node, times) = (8 + at * 16, 16 + at * 16);
                    self.forget(asked.long(node)?, asked.long(times)?);
                }
                return None;
            }
            operation::INTERRUPT | operation::DESTROY => return None,
            _ => {}
        }
        let answer = self.tell(&asked);
        Some(match answer {
            Ok(answer) => answer.done(asked.unique),
            Err(errno) => failed(asked.unique, errno),
        })
    }

    fn tell(&mut self, asked: &Asked<'_>) -> Result<Answer, Errno> {
        match asked.operation {
            operation::INIT => Answer::init(asked).ok_or(Errno::PROTO),
            operation::LOOKUP => self.lookup(asked),
            operation::GETATTR => Ok(Answer::about(self.look(asked.node)?.as_ref())),
            operation::READLINK => {
                let says = fs::read_link(self.path(asked.node)?).map_err(errno)?;
                Ok(Answer(says.into_os_string().into_vec()))
            }
            operation::READ => self.read(asked),
            operation::READDIR => self.list(asked),
            operation::STATFS => {
                let counts = (0..5).fold(Answer::default(), |answer, _| answer.long(0));
                Ok(counts.word(4096).word(255).word(4096).bytes(&[0; 28]))
            }
            // The kernel does not ask again.
            operation::OPEN
            | operation::OPENDIR
            | operation::FLUSH
            | operation::ACCESS
            | operation::GETXATTR
            | operation::LISTXATTR => Err(Errno::NOSYS),
            // All else would change something.
            _ => Err(Errno::ROFS),
        }
    }

    fn inside(&self, node: u64) -> Result<&Path, Errno> {
        let node = self.nodes.get(&node).ok_or(Errno::STALE)?;
        Ok(&node.path)
    }

    fn path(&self, node: u64) -> Result<PathBuf, Errno> {
        self.inside(node).map(|path| self.store.join(path))
    }

    /// What is there; none for the top.
    fn look(&self, node: u64) -> Result<Option<Metadata>, Errno> {
        if node == TOP {
            return Ok(None);
        }
        let found = fs::symlink_metadata(self.path(node)?);
        found.map(Some).map_err(errno)
    }

    fn lookup(&mut self, asked: &Asked<'_>) -> Result<Answer, Errno> {
        let name = asked.name().ok_or(Errno::PROTO)?;
        let plain = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
        if !plain || asked.node == TOP && !self.shown.has(name) {
            return Err(Errno::NOENT);
        }
        // A link leads nowhere: it has no entries.
        if self.look(asked.node)?.is_some_and(|above| !above.is_dir()) {
            return Err(Errno::NOTDIR);
        }
        let path = self.inside(asked.node)?.join(OsStr::from_bytes(name));
        let found = fs::symlink_metadata(self.store.join(&path)).map_err(errno)?;
        let number = *self.numbers.entry(path.clone()).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        let node = self.nodes.entry(number);
        node.or_insert(Node { path, told: 0 }).told += 1;
        Ok(Answer::entry(number, &found))
    }

    fn forget(&mut self, number: u64, times: u64) {
        if number == TOP {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.told = node.told.saturating_sub(times);
            if node.told == 0 {
                self.numbers.remove(&node.path);
                self.nodes.remove(&number);
                self.open.take_if(|(open, _)| *open == number);
            }
        }
    }

    fn read(&mut self, asked: &Asked<'_>) -> Result<Answer, Errno> {
        let from = asked.long(8).ok_or(Errno::PROTO)?;
        let most = asked.word(16).ok_or(Errno::PROTO)?.min(LARGEST);
        if self
            .open
            .as_ref()
            .is_none_or(|(open, _)| *open != asked.node)
        {
            // A link is not followed; the kernel never reads one so.
            if !self.look(asked.node)?.is_some_and(|found| found.is_file()) {
                return Err(Errno::INVAL);
            }
            let file = File::open(self.path(asked.node)?).map_err(errno)?;
            self.open = Some((asked.node, file));
        }
        let Some((_, file)) = &self.open else {
            return Err(Errno::BADF);
        };
        let mut bytes = vec![0; most as usize];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], from + length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(error)),
            }
        }
        bytes.truncate(length);
        Ok(Answer(bytes))
    }

    fn list(&self, asked: &Asked<'_>) -> Result<Answer, Errno> {
        let from = asked.long(8).ok_or(Errno::PROTO)?;
        let most = asked.word(16).ok_or(Errno::PROTO)?.min(LARGEST) as usize;
        let mut names = if asked.node == TOP {
            let shown = self.shown.all().into_iter();
            shown.map(String::into_bytes).collect()
        } else {
            let entries = fs::read_dir(self.path(asked.node)?).map_err(errno)?;
            let names = entries.map(|entry| Ok(entry?.file_name().into_vec()));
            names.collect::<io::Result<Vec<_>>>().map_err(errno)?
        };
        // It is read anew for each part.
        names.sort();
        let above = self.path(asked.node)?;
        let mut list = Answer::default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for (place, name) in names.iter().enumerate().skip(from) {
            let length = (24 + name.len()).next_multiple_of(8);
            if list.0.len() + length > most {
                break;
            }
            let found = fs::symlink_metadata(above.join(OsStr::from_bytes(name)));
            let Ok(found) = found else {
                continue;
            };
            let filling = length - 24 - name.len();
            let entry = list.long(found.ino()).long(place as u64 + 1);
            let entry = entry.word(u32::try_from(name.len()).unwrap_or_default());
            list = entry
                .word(found.mode() >> 12)
                .bytes(name)
                .bytes(&[0; 8][..filling]);
        }
        Ok(list)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share() -> (tempfile::TempDir, Share) {
        let place = tempfile::tempdir().unwrap();
        let store = place.path();
        fs::create_dir_all(store.join("a/sub")).unwrap();
        fs::write(store.join("a/sub/file"), "contents").unwrap();
        std::os::unix::fs::symlink("/etc", store.join("link")).unwrap();
        fs::write(store.join("hidden"), "no").unwrap();
        let shown = Shown::default();
        shown.add(&["a".into(), "link".into()]);
        let share = Share::new(store.to_owned(), shown);
        (place, share)
    }

    /// A question as the kernel asks it, without its length; the answer's body, or its error.
    fn ask(share: &mut Share, operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let header = Answer::default().word(operation).long(7).long(node);
        let message = header.bytes(&[0; 16]).bytes(body).0;
        let answer = share.answer(&message).unwrap();
        let length = u32::from_le_bytes(answer[..4].try_into().unwrap());
        assert_eq!(length as usize, answer.len());
        match i32::from_le_bytes(answer[4..8].try_into().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    fn lookup(share: &mut Share, node: u64, name: &str) -> Result<u64, Errno> {
        let name = format!("{name}\0");
        let entry = ask(share, operation::LOOKUP, node, name.as_bytes())?;
        assert_eq!(entry.len(), 128);
        Ok(u64::from_le_bytes(entry[..8].try_into().unwrap()))
    }

    fn part(from: u64, most: u32) -> Vec<u8> {
        let body = Answer::default().long(0).long(from).word(most);
        body.bytes(&[0; 20]).0
    }

    #[test]
    fn only_what_is_shown_is_there() {
        let (_place, mut share) = share();
        for name in ["hidden", "..", ".", "a/sub", "a.lock", ""] {
            assert_eq!(lookup(&mut share, TOP, name), Err(Errno::NOENT), "{name}");
        }
        // A link is what it is, and leads nowhere.
        let link = lookup(&mut share, TOP, "link").unwrap();
        assert_eq!(lookup(&mut share, link, "passwd"), Err(Errno::NOTDIR));
        let says = ask(&mut share, operation::READLINK, link, &[]);
        assert_eq!(says.unwrap(), b"/etc");
        let read = ask(&mut share, operation::READ, link, &part(0, 9));
        assert_eq!(read, Err(Errno::INVAL));
        let list = ask(&mut share, operation::READDIR, TOP, &part(0, 4096)).unwrap();
        let seen = |name: &[u8]| list.windows(name.len()).any(|part| part == name);
        assert!(seen(b"link") && !seen(b"hidden"));
        // What is not shown any more is not found any more.
        share.shown.remove(&["link".into()]);
        assert_eq!(lookup(&mut share, TOP, "link"), Err(Errno::NOENT));
        assert_eq!(
            share
                .shown
                .add(&["a".into(), "hidden".into(), "link".into()]),
            ["hidden"]
        );
        assert_eq!(lookup(&mut share, TOP, "link"), Err(Errno::NOENT));
        assert!(share.shown.is_former("link") && !share.shown.is_former("hidden"));
        lookup(&mut share, TOP, "hidden").unwrap();
    }

    #[test]
    fn what_is_shown_is_read_and_never_written() {
        let (_place, mut share) = share();
        let sub = lookup(&mut share, TOP, "a").unwrap();
        let sub = lookup(&mut share, sub, "sub").unwrap();
        let file = lookup(&mut share, sub, "file").unwrap();
        assert_eq!(lookup(&mut share, sub, "file"), Ok(file));
        let read = ask(&mut share, operation::READ, file, &part(3, 100));
        assert_eq!(read.unwrap(), b"tents");
        assert_eq!(
            ask(&mut share, operation::GETATTR, file, &[])
                .unwrap()
                .len(),
            104
        );
        assert_eq!(
            ask(&mut share, operation::STATFS, TOP, &[]).unwrap().len(),
            80
        );
        assert_eq!(
            ask(&mut share, operation::INIT, TOP, &[0; 16])
                .unwrap()
                .len(),
            64
        );
        // SETATTR, SYMLINK, MKDIR, UNLINK, RENAME, LINK, WRITE, CREATE
        for operation in [4, 6, 9, 10, 12, 13, 16, 35] {
            assert_eq!(ask(&mut share, operation, file, &[0; 64]), Err(Errno::ROFS));
        }
        share.forget(file, 2);
        let gone = ask(&mut share, operation::READ, file, &part(0, 1));
        assert_eq!(gone, Err(Errno::STALE));
    }

    /// A kernel that makes room has ten thousand files to forget at once.
    #[tokio::test]
    async fn what_is_forgotten_at_once_may_be_much() {
        let (_place, share) = share();
        let (mut kernel, asked) = tokio::io::duplex(1 << 20);
        let (answers, mut answered) = tokio::io::duplex(1 << 10);
        let served = tokio::spawn(share.serve(asked, answers));
        let header = |operation| Answer::default().word(operation).long(7).long(TOP);
        let files = (0..10_000).fold(Answer::default(), |files, node| {
            files.long(node + 9).long(1)
        });
        let forget = header(operation::BATCH_FORGET).bytes(&[0; 16]);
        let forget = forget.word(10_000).word(0).bytes(&files.0).0;
        let lookup = header(operation::LOOKUP).bytes(&[0; 16]).bytes(b"a\0").0;
        for message in [forget, lookup] {
            let length = u32::try_from(message.len() + 4).unwrap();
            kernel.write_u32_le(length).await.unwrap();
            kernel.write_all(&message).await.unwrap();
        }
        assert_eq!(answered.read_u32_le().await.unwrap(), 16 + 128);
        drop(kernel);
        let end = served.await.unwrap().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn nonsense_is_answered(messages in proptest::collection::vec(
            (0_u32..50, 0_u64..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
        ) {
            let (_place, mut share) = share();
            for (operation, node, body) in messages {
                let header = Answer::default().word(operation).long(7).long(node);
                drop(share.answer(&header.bytes(&[0; 16]).bytes(&body).0));
            }
            prop_assert!(share.answer(&[]).is_none());
        }
    }
}
