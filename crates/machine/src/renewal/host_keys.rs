//! SSH host keys for a restored machine, made by the host's `ssh-keygen`: a machine would take
//! seconds for one where it is emulated.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::future::join_all;
use machinist_guest::{HostKey, HostKeyFile, Lack, Settled};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Keys that are being made. They are given up with this.
pub(crate) struct HostKeys {
    making: Option<JoinHandle<Made>>,
}

/// Keys that are made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub keys: Vec<HostKey>,
    pub lacks: Vec<Lack>,
}

impl HostKeys {
    /// Begins to make a key for each that the machine has. `search` is where programs are, `dir` a
    /// directory that nobody else reads.
    pub(crate) fn begin(settled: &Settled, name: &str, dir: &Path, search: &OsStr) -> Self {
        let files = settled.agent.host_keys.clone();
        if files.is_empty() {
            return Self { making: None };
        }
        let maker = Maker {
            comment: format!("root@{name}"),
            dir: dir.to_owned(),
            program: find(search),
        };
        let making = tokio::spawn(async move { maker.make(files).await });
        Self {
            making: Some(making),
        }
    }

    /// Waits for them.
    pub(crate) async fn made(mut self) -> Made {
        match &mut self.making {
            Some(making) => making.await.unwrap_or_default(),
            None => Made::default(),
        }
    }
}

impl Drop for HostKeys {
    fn drop(&mut self) {
        if let Some(making) = &self.making {
            making.abort();
        }
    }
}

fn find(search: &OsStr) -> Option<PathBuf> {
    let places = std::env::split_paths(search);
    places
        .map(|dir| dir.join("ssh-keygen"))
        .find(|it| it.is_file())
}

struct Maker {
    comment: String,
    dir: PathBuf,
    program: Option<PathBuf>,
}

impl Maker {
    async fn make(self, files: Vec<HostKeyFile>) -> Made {
        let results = join_all(files.iter().map(|file| self.one(file))).await;
        let mut made = Made::default();
        for (file, result) in files.into_iter().zip(results) {
            // A key that others have as well is worse than none.
            let (private, public) = result.unwrap_or_else(|error| {
                made.lacks.push(Lack {
                    what: format!("SSH host key {}", file.kind),
                    why: format!("none can be made, so the machine has none of that kind: {error}"),
                });
                (Vec::new(), Vec::new())
            });
            made.keys.push(HostKey {
                path: file.path,
                private: private.into(),
                public: public.into(),
            });
        }
        made
    }

    /// The private and the public part of a new key.
    async fn one(&self, file: &HostKeyFile) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let program = self.program.as_ref();
        let program = program.ok_or_else(|| io::Error::other("the host has no ssh-keygen"))?;
        let dir = tempfile::tempdir_in(&self.dir)?;
        let path = dir.path().join("key");
        let output = Command::new(program)
            .args(words(file, &self.comment))
            .arg(&path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("ssh-keygen failed");
            return Err(io::Error::other(last.to_owned()));
        }
        let private = tokio::fs::read(&path).await?;
        let public = tokio::fs::read(path.with_extension("pub")).await?;
        Ok((private, public))
    }
}

/// Arguments of `ssh-keygen` up to that for the file.
fn words(file: &HostKeyFile, comment: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["-q", "-N", "", "-C", comment, "-t", &file.kind]
        .map(OsString::from)
        .to_vec();
    if file.bits != 0 {
        words.extend(["-b".into(), file.bits.to_string().into()]);
    }
    words.push("-f".into());
    words
}

#[cfg(test)]
mod tests {
    use machinist_guest::Settled;

    use super::*;

    fn settled(kinds: &[(&str, u32)]) -> Settled {
        let mut settled = Settled::default();
        settled.agent.host_keys = kinds
            .iter()
            .map(|(kind, bits)| HostKeyFile {
                path: (&format!("/etc/ssh/ssh_host_{kind}_key")).into(),
                kind: (*kind).to_owned(),
                bits: *bits,
            })
            .collect();
        settled
    }

    async fn made(kinds: &[(&str, u32)], search: &OsStr) -> Made {
        let dir = tempfile::tempdir().unwrap();
        HostKeys::begin(&settled(kinds), "probe", dir.path(), search)
            .made()
            .await
    }

    #[tokio::test]
    async fn keys_are_of_the_kinds_that_were_there() {
        let search = std::env::var_os("PATH").unwrap();
        if find(&search).is_none() {
            eprintln!("skipped: this needs ssh-keygen");
            return;
        }
        let kinds = [("ecdsa", 384), ("ed25519", 0), ("rsa", 2048)];
        let (one, two) = tokio::join!(made(&kinds, &search), made(&kinds, &search));
        assert_eq!((one.lacks, two.lacks), (vec![], vec![]));
        for ((one, two), begin) in
            one.keys
                .iter()
                .zip(&two.keys)
                .zip(["ecdsa-sha2-nistp384 ", "ssh-ed25519 ", "ssh-rsa "])
        {
            assert!(one.private.0.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY"));
            assert!(one.public.0.starts_with(begin.as_bytes()), "{one:?}");
            assert!(one.public.0.ends_with(b" root@probe\n"), "{one:?}");
            assert!(one.private != two.private && one.public != two.public);
        }
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_made_goes() {
        let made = made(&[("ed25519", 0)], OsStr::new("/no/such/place")).await;
        assert!(made.keys[0].private.0.is_empty());
        assert!(made.lacks[0].why.ends_with("the host has no ssh-keygen"));
    }
}
