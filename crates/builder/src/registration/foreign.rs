//! A builder that is somebody else's machine, reached by SSH, perhaps through a bastion.
//!
//! Nix's own way of calling `ssh` takes options from root's files and the daemon's environment, where
//! nobody looks for them. So Nix runs `ssh` as a plain program here, with one file that says all: names,
//! ports, keys, and which host keys are right.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::machines_file::StoreUri;
use crate::path_error::{At as _, PathError};

/// A host that is reached by SSH: `[USER@]HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    user: Option<String>,
    host: String,
    port: u16,
}

/// The public key of a host: `ssh-ed25519 AAAA...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey(String);

/// A builder that is reached by SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    address: Address,
    host_key: HostKey,
    jump: Option<(Address, HostKey)>,
    identity: Option<PathBuf>,
}

/// It is no host, or no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// No address.
    #[error("'{0}' is no [USER@]HOST[:PORT]")]
    Address(String),
    /// No key.
    #[error("'{0}' is no host key: it has the form 'ssh-ed25519 AAAA...'")]
    HostKey(String),
    /// The private key's path.
    #[error("{0} cannot be the private key: an absolute path without blanks can")]
    Identity(String),
}

impl HostKey {
    /// A key as `ssh-keyscan` or a host's `.pub` file has it, with or without the names around it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, ForeignError> {
        let wrong = || ForeignError::HostKey(text.to_owned());
        let mut words = text.split_ascii_whitespace();
        let kinds = ["ssh-", "ecdsa-", "sk-"];
        let kind = words.find(|word| kinds.iter().any(|it| word.starts_with(it)));
        let (kind, key) = kind.zip(words.next()).ok_or_else(wrong)?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(key)
            .map_err(|_| wrong())?;
        // The kind is in the key once more, after its length.
        let named = bytes.get(4..4 + kind.len()) == Some(kind.as_bytes());
        named
            .then(|| Self(format!("{kind} {key}")))
            .ok_or_else(wrong)
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, ForeignError> {
        let wrong = || ForeignError::Address(text.to_owned());
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|it| it.split_once(']')) {
            Some((host, "")) => (host, "22"),
            Some((host, port)) => (host, port.strip_prefix(':').ok_or_else(wrong)?),
            None => rest.split_once(':').unwrap_or((rest, "22")),
        };
        let plain = |word: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
            !word.is_empty() && !word.starts_with('-') && word.chars().all(fine)
        };
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?;
        if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
            return Err(wrong());
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
        })
    }

    /// As a file of known hosts names it, which knows it by this alone.
    fn block(&self, alias: &str, f: &mut String) {
        let lines = [
            format!("Host {alias}"),
            format!("  HostName {}", self.host),
            format!("  Port {}", self.port),
            format!("  HostKeyAlias {alias}"),
        ];
        for line in lines {
            *f += &line;
            f.push('\n');
        }
        if let Some(user) = &self.user {
            *f += &format!("  User {user}\n");
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Foreign {
    /// A host, with its key.
    ///
    /// # Errors
    /// It has no such form.
    pub fn new(address: &str, host_key: HostKey) -> Result<Self, ForeignError> {
        Ok(Self {
            address: Address::parse(address)?,
            host_key,
            jump: None,
            identity: None,
        })
    }

    /// Through a bastion, with that one's key.
    ///
    /// # Errors
    /// It has no such form.
    pub fn through(mut self, address: &str, host_key: HostKey) -> Result<Self, ForeignError> {
        self.jump = Some((Address::parse(address)?, host_key));
        Ok(self)
    }

    /// With this private key. Else those are tried that root has.
    ///
    /// # Errors
    /// It is no absolute path, or has blanks.
    pub fn with_identity(mut self, path: &Path) -> Result<Self, ForeignError> {
        let text = path
            .to_str()
            .filter(|text| !text.contains([' ', '\t', '"', '%', '#']));
        if text.is_none() || !path.is_absolute() {
            return Err(ForeignError::Identity(path.display().to_string()));
        }
        self.identity = Some(path.to_owned());
        Ok(self)
    }

    /// Where it is, for people.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Writes what `ssh` needs into `directory`, which is the builder's: `config` and `known_hosts`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self, directory: &Path) -> Result<(), PathError> {
        fs::create_dir_all(directory).at("make the directory", directory)?;
        for (name, text) in [
            ("known_hosts", self.known_hosts()),
            ("config", self.config(directory)),
        ] {
            let path = directory.join(name);
            fs::write(&path, text).at("write", &path)?;
            // ssh refuses configuration that others can write.
            let mode = Permissions::from_mode(0o644);
            fs::set_permissions(&path, mode).at("change the rights of", &path)?;
        }
        Ok(())
    }

    fn known_hosts(&self) -> String {
        let mut text = format!("builder {}\n", self.host_key.0);
        if let Some((_, key)) = &self.jump {
            text += &format!("bastion {}\n", key.0);
        }
        text
    }

    fn config(&self, directory: &Path) -> String {
        let mut text = "# Written by `machinist builder register`.\n".to_owned();
        self.address.block("builder", &mut text);
        if let Some((address, _)) = &self.jump {
            text += "  ProxyJump bastion\n";
            address.block("bastion", &mut text);
        }
        text += "Host *\n";
        if let Some(identity) = &self.identity {
            text += &format!(
                "  IdentityFile {}\n  IdentitiesOnly yes\n",
                identity.display()
            );
        }
        text += &format!(
            "  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            directory.join("known_hosts").display()
        );
        // Nobody is there to be asked, and nothing may wait for ever.
        text += "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 20\n";
        text += "  ServerAliveInterval 15\n  ServerAliveCountMax 4\n  RequestTTY no\n";
        text
    }

    /// How Nix reaches it, by the program `ssh` and the files in `directory`.
    #[must_use]
    pub fn uri(&self, ssh: &Path, directory: &Path) -> StoreUri {
        let command = format!(
            "{} -F {} builder nix-daemon",
            ssh.display(),
            directory.join("config").display()
        );
        StoreUri::new("ssh-ng", "localhost", &[("remote-program", &command)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJBWcxb/Blaqt1auOtE+F8QUWrUotiC5qBJ+UuEWdVCb";

    #[test]
    fn keys_as_people_have_them() {
        for text in [
            KEY.to_owned(),
            format!("{KEY} root@host"),
            format!("[host]:22 {KEY}"),
        ] {
            assert_eq!(HostKey::parse(&text), Ok(HostKey(KEY.into())), "{text}");
        }
        for text in [
            "",
            "ssh-ed25519",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJBWcxb/Blaqt1auOtE+F8QUWrUotiC5qBJ+UuEWdVCb",
            "ssh-ed25519 AAAA$",
        ] {
            assert!(HostKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let shown = |text| Address::parse(text).map(|it| it.to_string());
        assert_eq!(shown("me@host").unwrap(), "me@host:22");
        assert_eq!(shown("[fe80::1]:2222").unwrap(), "fe80::1:2222");
        for text in [
            "",
            "@h",
            "-oProxyCommand=x",
            "me@-x",
            "h:0",
            "h:x",
            "h h",
            "[::1]x",
        ] {
            assert!(shown(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_builder_behind_a_bastion() {
        let key = || HostKey::parse(KEY).unwrap();
        let foreign = Foreign::new("me@build:2222", key())
            .and_then(|it| it.through("gate", key()))
            .and_then(|it| it.with_identity(Path::new("/var/root/.ssh/key")))
            .unwrap();
        let directory = Path::new("/etc/machinist/ssh/b");
        let config = foreign.config(directory);
        for line in [
            "Host builder\n  HostName build\n  Port 2222\n  HostKeyAlias builder\n  User me\n  ProxyJump bastion\n",
            "Host bastion\n  HostName gate\n  Port 22\n",
            "  IdentityFile /var/root/.ssh/key\n  IdentitiesOnly yes\n",
            "  UserKnownHostsFile /etc/machinist/ssh/b/known_hosts\n",
            "  StrictHostKeyChecking yes\n",
        ] {
            assert!(config.contains(line), "{config}");
        }
        assert_eq!(
            foreign.known_hosts(),
            format!("builder {KEY}\nbastion {KEY}\n")
        );
        assert_eq!(
            foreign
                .uri(Path::new("/usr/bin/ssh"), directory)
                .to_string(),
            "ssh-ng://localhost?remote-program=/usr/bin/ssh%20-F%20/etc/machinist/ssh/b/config%20builder%20nix-daemon"
        );
    }
}
