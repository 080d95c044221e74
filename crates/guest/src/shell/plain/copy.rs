//! Files from the host and to it.

use machinist_wire::message::Put;
use machinist_wire::tree::{Decoder, Entry, Item, Meta};
use machinist_wire::{Blob, Lane, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, timeout_at};

use super::super::Break;
use super::super::bring::Nonce;
use super::super::quote::word;
use super::job::Outcome;
use super::{Pending, Plain, files};

/// How long the guest may take for one piece.
const PIECE: Duration = Duration::from_secs(60);

/// A tree on its way into the guest. What is typed for it runs in the shell itself, one thing after
/// another, and not in its background.
pub(super) struct Putting {
    put: Put,
    decoder: Decoder,
    began: bool,
    file: Option<File>,
    /// Directories get their modes last, so that a read-only one can be filled.
    finish: Vec<Vec<u8>>,
}

/// The file that is being written.
struct File {
    path: Blob,
    meta: Meta,
    size: u64,
    written: u64,
}

impl Putting {
    pub(super) fn new(put: Put) -> Self {
        Self {
            put,
            decoder: Decoder::default(),
            began: false,
            file: None,
            finish: Vec::new(),
        }
    }

    /// The target of an entry, for the shell; `$t` is that of the whole.
    fn target(path: &Blob) -> Vec<u8> {
        if path.0.is_empty() {
            return b"\"$t\"".to_vec();
        }
        [b"\"$t\"/".as_slice(), &word(&path.0)].concat()
    }

    fn attributes(&self, path: &Blob, meta: &Meta) -> Vec<u8> {
        let target = Self::target(path);
        let mut line = Vec::new();
        if self.put.owners {
            line.extend_from_slice(format!("chown {}:{} ", meta.uid, meta.gid).as_bytes());
            line.extend_from_slice(&target);
            line.extend_from_slice(b" && ");
        }
        line.extend_from_slice(format!("chmod {:o} ", meta.mode & 0o7777).as_bytes());
        line.extend_from_slice(&target);
        line.extend_from_slice(format!(" && touch -c -d @{} ", meta.mtime).as_bytes());
        line.extend_from_slice(&target);
        line
    }
}

/// Why a tree does not arrive: the guest's reason, or the way there is cut.
enum Stop {
    Guest(String),
    Break(Break),
}

impl From<Break> for Stop {
    fn from(reason: Break) -> Self {
        Self::Break(reason)
    }
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Plain<'_, T> {
    /// Takes the next bytes of a tree.
    pub(super) async fn put(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), Break> {
        let Some(Pending::Put(mut putting)) = self.pending.remove(&stream) else {
            return Ok(());
        };
        putting.decoder.push(bytes);
        match self.put_items(&mut putting).await {
            Ok(true) => self.done(stream),
            Ok(false) => {
                self.endpoint.consumed(stream, Lane::Main, bytes.len());
                self.pending.insert(stream, Pending::Put(putting));
            }
            Err(Stop::Guest(reason)) => self.fail(stream, reason),
            Err(Stop::Break(reason)) => return Err(reason),
        }
        Ok(())
    }

    /// Writes all that has arrived. Whether that was all.
    async fn put_items(&mut self, putting: &mut Putting) -> Result<bool, Stop> {
        if !std::mem::replace(&mut putting.began, true) {
            let (path, name) = (word(&putting.put.path.0), word(&putting.put.name.0));
            let mut line = [b"t=".as_slice(), &path].concat();
            line.extend_from_slice(b"; if [ -d \"$t\" ]; then t=$t/");
            line.extend_from_slice(&name);
            line.extend_from_slice(b"; fi; mkdir -p -- \"$(dirname -- \"$t\")\"");
            self.act(&line).await?;
        }
        loop {
            let item = putting.decoder.next_item();
            let item = item.map_err(|error| Stop::Guest(error.to_string()))?;
            match item {
                None => return Ok(false),
                Some(Item::Contents(bytes)) => self.append(putting, &bytes).await?,
                Some(Item::Entry(Entry::Data { offset, .. })) => {
                    self.fill(putting, offset).await?;
                }
                Some(Item::Entry(entry)) => {
                    self.end_file(putting).await?;
                    if !self.put_entry(putting, entry).await? {
                        continue;
                    }
                    for line in std::mem::take(&mut putting.finish).into_iter().rev() {
                        self.act(&line).await?;
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Makes an entry. Whether it is the end.
    async fn put_entry(&mut self, putting: &mut Putting, entry: Entry) -> Result<bool, Stop> {
        match entry {
            Entry::Directory { path, meta } => {
                let line = [b"mkdir -p -- ".as_slice(), &Putting::target(&path)].concat();
                self.act(&line).await?;
                let last = putting.attributes(&path, &meta);
                putting.finish.push(last);
            }
            Entry::File { path, meta, size } => {
                let target = Putting::target(&path);
                let line = [b"rm -f -- ".as_slice(), &target, b" && : >", &target].concat();
                self.act(&line).await?;
                putting.file = Some(File {
                    path,
                    meta,
                    size,
                    written: 0,
                });
            }
            Entry::Link { path, target, .. } => {
                let place = Putting::target(&path);
                let text = word(&target.0);
                let line = [b"ln -sfn -- ".as_slice(), &text, b" ", &place].concat();
                self.act(&line).await?;
            }
            Entry::HardLink { path, original } => {
                let (new, old) = (Putting::target(&path), Putting::target(&original));
                let line = [b"ln -f -- ".as_slice(), &old, b" ", &new].concat();
                self.act(&line).await?;
            }
            Entry::Special { .. } | Entry::Data { .. } => {}
            Entry::End => return Ok(true),
        }
        Ok(false)
    }

    /// Writes zeros up to `offset`.
    async fn fill(&mut self, putting: &mut Putting, offset: u64) -> Result<(), Stop> {
        let Some(file) = &mut putting.file else {
            return Ok(());
        };
        let hole = offset.saturating_sub(file.written);
        if hole > 0 {
            file.written = offset;
            let mut line = format!("head -c {hole} /dev/zero >>").into_bytes();
            line.extend(Putting::target(&file.path));
            self.act(&line).await?;
        }
        Ok(())
    }

    async fn append(&mut self, putting: &mut Putting, bytes: &[u8]) -> Result<(), Stop> {
        let Some(file) = &mut putting.file else {
            return Ok(());
        };
        file.written += bytes.len() as u64;
        let nonce = Nonce::new();
        let target = Putting::target(&file.path);
        let mut line = nonce.assignment().into_bytes();
        let length = bytes.len();
        line.extend_from_slice(
            format!("; echo \"$n send\"; e=$(head -c {length} | {{ cat 2>&1 >>").as_bytes(),
        );
        line.extend_from_slice(&target);
        // What cannot be written must still be read: the shell would take it for commands.
        line.extend_from_slice(b" || { cat >/dev/null; echo \"cannot write\"; }; }); ");
        line.extend_from_slice(b"echo \"$n ${e:-ok}\"\n");
        self.shell.send(&line).await?;
        if self.hear(&nonce).await? != "send" {
            return Err(Stop::Guest("the machine's shell takes no file".to_owned()));
        }
        self.shell.send(bytes).await?;
        match self.hear(&nonce).await?.as_str() {
            "ok" => Ok(()),
            reason => Err(Stop::Guest(reason.to_owned())),
        }
    }

    async fn end_file(&mut self, putting: &mut Putting) -> Result<(), Stop> {
        let size = putting.file.as_ref().map(|file| file.size);
        if let Some(size) = size {
            self.fill(putting, size).await?;
        }
        if let Some(file) = putting.file.take() {
            self.act(&putting.attributes(&file.path, &file.meta))
                .await?;
        }
        Ok(())
    }

    /// Has the shell execute something at once.
    async fn act(&mut self, command: &[u8]) -> Result<(), Stop> {
        let nonce = Nonce::new();
        let mut line = nonce.assignment().into_bytes();
        // Not in a subshell: it may set a variable.
        line.extend_from_slice(b"; { ");
        line.extend_from_slice(command);
        line.extend_from_slice(b"; } 2>/dev/null && echo \"$n ok\" || echo \"$n no\"\n");
        self.shell.send(&line).await?;
        match self.hear(&nonce).await?.as_str() {
            "ok" => Ok(()),
            _ => Err(Stop::Guest(format!(
                "the machine cannot do this: {}",
                String::from_utf8_lossy(command)
            ))),
        }
    }

    /// What is said under this number. Meanwhile jobs are heard, and the host is not.
    async fn hear(&mut self, nonce: &Nonce) -> Result<String, Stop> {
        let deadline = Instant::now() + PIECE;
        loop {
            let line = timeout_at(deadline, self.shell.line()).await;
            let line = line.map_err(|_| Stop::Break(Break::Silent))??;
            if let Some(said) = nonce.answer(&line) {
                return Ok(said.to_owned());
            }
            self.line(&line)?;
        }
    }

    /// What the guest printed of a tree.
    pub(super) fn got(&mut self, stream: StreamId, outcome: &Outcome) {
        if outcome.status != 0 {
            let reason = String::from_utf8_lossy(&outcome.stderr).trim().to_owned();
            return self.fail(stream, format!("cannot read: {reason}"));
        }
        match files::records(&outcome.stdout) {
            Some(records) => self.outbox.put(stream, records, Vec::new(), None),
            None => self.fail(stream, "the machine sent a tree that is none".to_owned()),
        }
    }
}
