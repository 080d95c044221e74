//! One external build: from what the client asks for to its outputs.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::OnceLock;

use machinist_guest::AGENT;
use machinist_session::stream::Frame as Piece;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::asked::Asked;
use super::frame::Frame;
use super::log_lines::LogLines;
use super::machine::{Input, Machine};
use super::recipe::{self, Ended};
use crate::connect::{Client, Launch};
use crate::machines_file::StoreUri;
use crate::protocol::{Asked as Wanted, Said};
use crate::service::chain;
use crate::state::State;

/// Frames that wait for a client that does not read.
const WAITING: usize = 16;
/// The most that the files of a build's directory may have, in bytes, before the build begins.
const MOST_FILES: usize = 256 << 20;
/// What Nix's sandbox in the machine runs: our own program, which then becomes the build's.
const PROGRAM: [&str; 3] = ["/.machinist/machinist", "build", "/.machinist"];

/// What a build needs of the host.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) state: State,
    /// How the builder's service is started.
    pub(super) launch: Launch,
    /// Where `nix` is looked for.
    pub(super) search: OsString,
    /// Of all builds in the machine, this one's.
    pub(super) directory: String,
}

/// The machine, which runs as long as this is there.
struct Held {
    machine: Machine,
    _hold: Client,
}

/// Ends a build, with the last thing that its client hears.
type Last = Result<Frame, String>;

impl Job {
    /// Builds for `client`, until it has heard the end, or is gone.
    pub(super) async fn serve(self, client: UnixStream) {
        let (mut from, mut to) = client.into_split();
        let Ok((asked, files)) = read(&mut from).await else {
            return;
        };
        let held = OnceLock::new();
        let (tell, mut told) = mpsc::channel(WAITING);
        let work = async {
            let ended = self.work(&asked, &files, &held, &tell).await;
            drop(tell.send(ended.unwrap_or_else(Frame::Failed)).await);
            drop(tell);
        };
        tokio::select! {
            _ = async { tokio::join!(work, pass_on(&mut told, &mut to)) } => {}
            // It says nothing more: whatever comes is its end. What was begun is dropped, and dies.
            _ = from.read_u8() => {}
        }
        if let Some(held) = held.into_inner() {
            held.machine.clean().await;
        }
    }

    async fn work(
        &self,
        asked: &Asked,
        files: &[u8],
        held: &OnceLock<Held>,
        tell: &mpsc::Sender<Frame>,
    ) -> Last {
        let name = self.state.name();
        asked.check(&name).map_err(chain)?;
        if AGENT.is_empty() {
            return Err("this machinist was built without the program for machines".into());
        }
        let machine = self.hold(tell.clone()).await?;
        let machine = &held.get_or_init(|| machine).machine;
        let has = self.state.proven().map_or_else(Vec::new, |it| it.features);
        asked.check_features(&name, &has).map_err(chain)?;
        self.copy(asked).await?;
        let ended = self.build(asked, files, machine, tell).await?;
        Ok(ended)
    }

    /// Has the machine started, if needed, and kept.
    async fn hold(&self, tell: mpsc::Sender<Frame>) -> Result<Held, String> {
        let (state, launch) = (self.state.clone(), self.launch.clone());
        let held = tokio::task::spawn_blocking(move || {
            let mut client = Client::connect_or_launch(&state, &launch).map_err(chain)?;
            let mut note = |text: &str| {
                // Who does not listen any more is gone, and this is dropped soon.
                drop(tell.blocking_send(Frame::Note(text.to_owned())));
            };
            match client.ask(&Wanted::Hold, &mut note).map_err(chain)? {
                Said::Held { session, .. } => Ok((client, session)),
                _ => Err("its service gave no session".to_owned()),
            }
        });
        let (hold, session) = held.await.map_err(chain)??;
        let machine = Machine {
            session,
            name: self.state.name(),
            directory: self.directory.clone(),
        };
        Ok(Held {
            machine,
            _hold: hold,
        })
    }

    /// Copies what the build may see into the machine's store, as Nix does that.
    async fn copy(&self, asked: &Asked) -> Result<(), String> {
        if asked.build.input_paths.is_empty() {
            return Ok(());
        }
        let nix = crate::registration::find_nix(&self.search, "nix")
            .ok_or("there is no program nix on this host, to copy its inputs with")?;
        let mut copy = Command::new(nix)
            .args(["--extra-experimental-features", "nix-command", "copy"])
            .args([
                "--no-check-sigs",
                "--stdin",
                "--to",
                &self.uri().to_string(),
            ])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(chain)?;
        let text = lines(asked.build.input_paths.iter());
        let input = copy.stdin.take();
        let given = async {
            if let Some(mut input) = input {
                // One that reads no further says why.
                drop(input.write_all(&text).await);
            }
        };
        let ((), copied) = tokio::join!(given, copy.wait_with_output());
        let copied = copied.map_err(chain)?;
        if copied.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&copied.stderr);
        Err(format!("cannot copy its inputs: {}", said.trim()))
    }

    /// How Nix here reaches the machine's.
    fn uri(&self) -> StoreUri {
        let program = self.launch.exe.display();
        let connect = format!("{program} connect {}", self.state.path().display());
        StoreUri::new("ssh-ng", "localhost", &[("remote-program", &connect)])
    }

    async fn build(
        &self,
        asked: &Asked,
        files: &[u8],
        machine: &Machine,
        tell: &mpsc::Sender<Frame>,
    ) -> Last {
        let build = &asked.build;
        let mut environment = Vec::new();
        for (name, value) in &build.env {
            environment.extend_from_slice(format!("{name}={value}\0").as_bytes());
        }
        let input = Input {
            closure: &lines(build.input_paths.iter()),
            environment: &environment,
            program: AGENT,
            files,
        };
        // Its directory is there until this is dropped.
        let mut shell = machine.build(&input, &build.tmp_dir_in_sandbox).await?;
        let request = recipe::request(asked, &PROGRAM);
        shell.writer.input(&request).await.map_err(chain)?;
        let ended = ended(&mut shell.reader, tell).await?;
        if ended == Ended::Built {
            for path in build.outputs.values() {
                let name = path.rsplit('/').next().unwrap_or(path);
                drop(tell.send(Frame::Output(name.to_owned())).await);
                machine.output(name, tell).await?;
                drop(tell.send(Frame::Data(Vec::new())).await);
            }
            return Ok(Frame::Exit(0));
        }
        drop(tell.send(Frame::Directory).await);
        // What is in it is for people; the build has failed for another reason.
        let brought = machine.failed(tell).await;
        drop(tell.send(Frame::Data(Vec::new())).await);
        if let Err(why) = brought {
            let text = format!("the build's directory does not come back: {why}");
            drop(tell.send(Frame::Note(text)).await);
        }
        Ok(match ended {
            Ended::Built => Frame::Exit(0),
            Ended::Exit(code) => Frame::Exit(code),
            Ended::Signal(signal) => Frame::Signal(signal),
            Ended::Failed(why) => Frame::Failed(why),
        })
    }
}

/// Waits for the end of a build; its log is told meanwhile.
async fn ended(
    from: &mut machinist_session::ShellReader,
    tell: &mpsc::Sender<Frame>,
) -> Result<Ended, String> {
    let mut answer = Vec::new();
    let mut log = LogLines::default();
    loop {
        match from.next().await.map_err(chain)? {
            Some(Piece::Output(bytes)) => {
                answer.extend_from_slice(&bytes);
                if let Some(ended) = recipe::answer(&answer)? {
                    let rest = log.rest();
                    drop(tell.send(Frame::Log(rest)).await);
                    return Ok(ended);
                }
            }
            Some(Piece::Error(bytes)) => {
                let lines = log.take(&bytes);
                drop(tell.send(Frame::Log(lines)).await);
            }
            Some(Piece::Failed(why)) => return Err(why),
            Some(Piece::Exit(code)) => {
                let said = String::from_utf8_lossy(&log.rest()).into_owned();
                return Err(format!(
                    "its Nix ended with {code} before the build: {said}"
                ));
            }
            Some(_) => {}
            None => return Err("its machine is gone".into()),
        }
    }
}

/// What is asked for, and the build's files.
async fn read(from: &mut OwnedReadHalf) -> io::Result<(Asked, Vec<u8>)> {
    let Frame::Asked(asked) = Frame::next(from).await? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let asked = serde_json::from_slice(&asked)?;
    let mut files = Vec::new();
    loop {
        match Frame::next(from).await? {
            Frame::Files(piece) if piece.is_empty() => return Ok((asked, files)),
            Frame::Files(piece) if files.len() + piece.len() <= MOST_FILES => files.extend(piece),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn pass_on(told: &mut mpsc::Receiver<Frame>, to: &mut OwnedWriteHalf) {
    while let Some(frame) = told.recv().await {
        if to.write_all(&frame.encode()).await.is_err() {
            return;
        }
    }
}

fn lines<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}
