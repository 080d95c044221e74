//! Bringing the agent through a shell.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{Break, READY, Shell};

/// How long the shell may take for an answer, and how long between two pieces of the agent.
const ANSWER: Duration = Duration::from_secs(60);

/// Bytes that are sent at once.
const PIECE: usize = 16 * 1024;

/// What is to be brought, and where it is to speak.
#[derive(Debug, Clone)]
pub struct Bring {
    /// The program.
    pub agent: &'static [u8],
    /// The name of the virtio-serial port that is the agent's.
    pub port: String,
    /// A directory that both sides see, if there is one.
    pub shared: Option<Shared>,
}

/// A directory that host and guest share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: PathBuf,
}

/// A number by which an answer is known. It is never sent in one piece, so that a terminal that
/// echoes what is typed answers nothing.
pub(super) struct Nonce {
    left: String,
    right: String,
    whole: String,
}

impl Nonce {
    pub(super) fn new() -> Self {
        let number = |_| format!("{:016x}", RandomState::new().hash_one(()));
        let [left, right] = std::array::from_fn(number);
        let whole = format!("{left}{right}");
        Self { left, right, whole }
    }

    /// Makes it the shell's variable `n`.
    pub(super) fn assignment(&self) -> String {
        format!("n={}; n=${{n}}{}", self.left, self.right)
    }

    pub(super) fn text(&self) -> &str {
        &self.whole
    }

    /// What stands behind it in a line; none where it is not there.
    pub(super) fn answer<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, after) = line.split_once(&self.whole)?;
        Some(after.trim())
    }
}

/// How an attempt ended: the agent runs, or it does not for this reason.
type Attempt = Result<(), String>;

/// The sum of a program: FNV-1a with 64 bits. The agent has the same function.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Shell<T> {
    /// Brings the agent by the shared directory, else through the shell itself.
    pub(super) async fn bring_agent(&mut self) -> Result<Attempt, Break> {
        if let Some(shared) = self.bring.shared.clone() {
            let name = format!(".machinist-agent-{}", Nonce::new().text());
            let host = shared.host.join(&name);
            let (agent, file) = (self.bring.agent, host.clone());
            let put = tokio::task::spawn_blocking(move || put(&file, agent)).await;
            let attempt = match put {
                Ok(Ok(())) => self.by_shared(&shared.guest.join(&name)).await,
                // Then the other way.
                _ => Ok(Err(String::new())),
            };
            // The agent runs from its memory.
            drop(std::fs::remove_file(&host));
            if attempt?.is_ok() {
                return Ok(Ok(()));
            }
        }
        self.through_shell().await
    }

    async fn by_shared(&mut self, program: &Path) -> Result<Attempt, Break> {
        let nonce = Nonce::new();
        let run = self.run_of(&nonce, &program.display().to_string());
        self.say(&format!("{}; {run}\n", nonce.assignment()))
            .await?;
        self.outcome(&nonce).await
    }

    /// Starts the agent that lies at `program`, for the shell.
    fn run_of(&self, nonce: &Nonce, program: &str) -> String {
        format!(
            "{program} bring {}\"\"{} {} {:016x} </dev/null 2>/dev/null || echo \"$n no it does not run there\"",
            nonce.left,
            nonce.right,
            self.bring.port,
            sum(self.bring.agent),
        )
    }

    async fn through_shell(&mut self) -> Result<Attempt, Break> {
        let nonce = Nonce::new();
        // A place where files can be written and executed. What is tried there is removed by a shell of
        // its own, also where this one ends meanwhile.
        let ask = format!(
            "{}; d=-; for c in /run /dev/shm /tmp /var/tmp /root \"$PWD\"; do f=$c/.machinist-agent-$n; \
             (printf '#!/bin/sh\\nexit 7\\n' >$f && chmod 700 $f && $f; r=$?; rm -f $f; [ $r = 7 ]) 2>/dev/null \
             && d=$f && break; done; \
             z=raw; command -v gzip >/dev/null 2>&1 && z=gzip; echo \"$n $(uname -m) $z $d\"\n",
            nonce.assignment()
        );
        self.say(&ask).await?;
        let said = self.answer(&nonce).await?;
        let mut words = said.splitn(3, ' ');
        let (arch, packing) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let place = words.next().unwrap_or("-");
        if arch != std::env::consts::ARCH {
            return Ok(Err(format!("its processor is a {arch}")));
        }
        if place == "-" {
            let reason = "there is no directory in which a file can be written and executed";
            return Ok(Err(reason.to_owned()));
        }
        self.upload(place, packing == "gzip").await
    }

    async fn upload(&mut self, place: &str, gzip: bool) -> Result<Attempt, Break> {
        let agent = self.bring.agent;
        let (bytes, unpack) = if gzip {
            (packed(agent), "gzip -dc")
        } else {
            (agent, "cat")
        };
        let nonce = Nonce::new();
        let run = self.run_of(&nonce, "\"$f\"");
        // Where it cannot be written, the rest must still be read: the shell would take it for
        // commands.
        let receive = format!(
            "{}; f={place}; echo \"$n send\"; head -c {} | {{ {unpack} >\"$f\"; r=$?; cat >/dev/null; [ $r = 0 ]; }} && chmod 700 \"$f\" && {{ {run}; }} || echo \"$n no it cannot be written\"; rm -f \"$f\"\n",
            nonce.assignment(),
            bytes.len(),
        );
        self.say(&receive).await?;
        let said = self.answer(&nonce).await?;
        if said != "send" {
            return Ok(Err(reason(&said)));
        }
        self.send(bytes).await?;
        self.outcome(&nonce).await
    }

    async fn outcome(&mut self, nonce: &Nonce) -> Result<Attempt, Break> {
        let said = self.answer(nonce).await?;
        Ok(match said.as_str() {
            "up" => Ok(()),
            said => Err(reason(said)),
        })
    }

    /// What the shell says under this number.
    pub(super) async fn answer(&mut self, nonce: &Nonce) -> Result<String, Break> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let line = timeout_at(deadline, self.line()).await;
            let line = line.map_err(|_| Break::Silent)??;
            if let Some(said) = nonce.answer(&line) {
                return Ok(said.to_owned());
            }
            if line.contains(READY) {
                return Err(Break::Anew);
            }
        }
    }

    /// Sends bytes, as fast as the guest takes them.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Break> {
        for piece in bytes.chunks(PIECE) {
            let sent = tokio::time::timeout(ANSWER, self.write.write_all(piece)).await;
            match sent {
                Ok(Ok(())) => {}
                // A console that nobody reads is full at some time.
                Err(_) => return Err(Break::Silent),
                Ok(Err(_)) => return Err(Break::Over),
            }
        }
        Ok(())
    }
}

/// Why not, in the words of whoever said `no`.
fn reason(said: &str) -> String {
    said.strip_prefix("no").unwrap_or(said).trim().to_owned()
}

fn put(path: &Path, agent: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    file.write_all(agent)
}

/// The agent, packed once for all machines.
pub(super) fn packed(agent: &'static [u8]) -> &'static [u8] {
    static PACKED: OnceLock<Vec<u8>> = OnceLock::new();
    PACKED.get_or_init(|| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory cannot fail.
        drop(packer.write_all(agent));
        packer.finish().unwrap_or_default()
    })
}
