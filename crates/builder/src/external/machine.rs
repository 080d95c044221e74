//! Commands in the builder's machine, by way of its session.

use std::path::PathBuf;

use machinist_session::protocol::{Command, Program};
use machinist_session::stream::Frame as Piece;
use machinist_session::{Client, Shell};
use tokio::sync::mpsc;

use super::frame::Frame;
use crate::service::chain;

/// What an external build has of the machine.
const BUILD: &str = include_str!("build.sh");
/// Where the builds' directories are, in the machine.
const DIRECTORIES: &str = "/nix/machinist/external";

/// The builder's machine, with the directory of one build in it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// The socket of its session.
    pub(super) session: PathBuf,
    /// Its name there.
    pub(super) name: String,
    /// The build's directory, below [`DIRECTORIES`].
    pub(super) directory: String,
}

/// What [`BUILD`] reads first, apart.
pub(super) struct Input<'a> {
    pub(super) closure: &'a [u8],
    pub(super) environment: &'a [u8],
    pub(super) program: &'a [u8],
    pub(super) files: &'a [u8],
}

impl Machine {
    /// Begins a build, whose directory is to be at `seen`. What follows on its standard input is for
    /// `nix-store --serve`.
    pub(super) async fn build(&self, input: &Input<'_>, seen: &str) -> Result<Shell, String> {
        let parts = [input.closure, input.environment, input.program, input.files];
        let mut words = vec!["sh", "-c", BUILD, "build", &self.directory];
        let sizes = parts.map(|part| part.len().to_string());
        words.extend(sizes.iter().map(String::as_str));
        words.push(seen);
        let mut shell = self.start(&words).await?;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            shell.writer.input(part).await.map_err(chain)?;
        }
        Ok(shell)
    }

    /// An output, as an archive of Nix's. `name` is its own in the store.
    pub(super) async fn output(
        &self,
        name: &str,
        tell: &mpsc::Sender<Frame>,
    ) -> Result<(), String> {
        let path = format!("{DIRECTORIES}/{}/store/{name}", self.directory);
        self.carry(&["nix-store", "--dump", &path], tell).await
    }

    /// The directory of a build that has failed, as an archive of `tar`'s. Empty where it is gone.
    pub(super) async fn failed(&self, tell: &mpsc::Sender<Frame>) -> Result<(), String> {
        let script = "cd \"$1\"/var/nix/builds/*/build && exec tar --create .";
        let path = format!("{DIRECTORIES}/{}", self.directory);
        self.carry(&["sh", "-c", script, "failed", &path], tell)
            .await
    }

    /// Removes the build's directory. What cannot be removed now goes with the next build.
    pub(super) async fn clean(&self) {
        let path = format!("{DIRECTORIES}/{}", self.directory);
        let (tell, _) = mpsc::channel(1);
        drop(self.carry(&["rm", "-rf", &path], &tell).await);
    }

    /// Runs a command to its end; its output goes on as data.
    async fn carry(&self, words: &[&str], tell: &mpsc::Sender<Frame>) -> Result<(), String> {
        let mut shell = self.start(words).await?;
        // One that has ended already says why.
        drop(shell.writer.input(&[]).await);
        let mut said = String::new();
        loop {
            match shell.reader.next().await.map_err(chain)? {
                Some(Piece::Output(bytes)) => {
                    // Nobody listens any more: this is dropped with the rest.
                    drop(tell.send(Frame::Data(bytes)).await);
                }
                Some(Piece::Error(bytes)) => said.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Piece::Exit(0)) => return Ok(()),
                Some(Piece::Exit(code)) => {
                    return Err(format!("{} ended with {code}: {}", words[0], said.trim()));
                }
                Some(Piece::Failed(why)) => return Err(why),
                Some(_) => {}
                None => return Err("its machine is gone".into()),
            }
        }
    }

    async fn start(&self, words: &[&str]) -> Result<Shell, String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let command = Command::of(Program::Argv(words));
        let client = Client::connect(&self.session).await.map_err(chain)?;
        let shell = client.shell(&self.name, Some(command), None).await;
        shell.map_err(chain)
    }
}
