//! What a machine is given of the host: disks, volumes, ports, device nodes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Bytes, SyntaxError};

/// A disk of a VM, `/dev/vdb` and on in the order of the lab file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What is on it.
    pub contents: DiskContents,
    /// Whether the machine cannot write to it.
    pub read_only: bool,
}

/// What is on a disk at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskContents {
    /// Zeros, as many as this. The disk goes with the machine.
    Empty(Bytes),
    /// A raw image of the host. What the machine writes stays in it.
    File(PathBuf),
}

/// A directory or file of the host that a machine sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host; a relative path is relative to the lab file.
    pub source: PathBuf,
    /// In the machine, absolute.
    pub target: PathBuf,
    /// Whether the machine may write to it.
    pub writable: bool,
}

impl FromStr for Volume {
    type Err = SyntaxError;

    /// Reads `SOURCE:TARGET`, `SOURCE:TARGET:ro` and `SOURCE:TARGET:rw`.
    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let help = "`SOURCE:TARGET`, read-only, or `SOURCE:TARGET:rw`";
        let wrong = |why: &str| {
            Err(SyntaxError::new(
                format!("`{text}` is not a volume: {why}"),
                help,
            ))
        };
        let (paths, writable) = match text.rsplit_once(':') {
            Some((paths, "rw")) => (paths, true),
            Some((paths, "ro")) => (paths, false),
            _ => (text, false),
        };
        // A source may contain colons (`/dev/disk/by-path/pci-0000:00`): the last one counts.
        let Some((source, target)) = paths.rsplit_once(':') else {
            return wrong("the target is missing");
        };
        if source.is_empty() {
            return wrong("the source is missing");
        }
        check_guest_path(target).map_err(|error| {
            SyntaxError::new(format!("`{text}` is not a volume: {error}"), error.help())
        })?;
        Ok(Self {
            source: source.into(),
            target: target.into(),
            writable,
        })
    }
}

/// A path in a machine: absolute, plain, and not the root itself.
pub(crate) fn check_guest_path(path: &str) -> Result<(), SyntaxError> {
    let wrong = |why: &str, help: &str| Err(SyntaxError::new(format!("`{path}` {why}"), help));
    if !path.starts_with('/') {
        return wrong(
            "is not an absolute path",
            "paths in a machine begin with `/`",
        );
    }
    if path.split('/').any(|part| part == "..") || path.contains(char::is_control) {
        return wrong("is not a plain path", "write the path without `..`");
    }
    if path.bytes().all(|b| b == b'/') {
        return wrong("is the root itself", "name something below it");
    }
    Ok(())
}

/// A TCP port of a machine that the host answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The host's address that listens.
    pub address: IpAddr,
    /// The host's port; none: a free one is chosen.
    pub host: Option<u16>,
    /// The machine's port.
    pub guest: u16,
}

impl Publish {
    /// Whether both want the same port of the host.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let everywhere = |a: IpAddr| a.is_unspecified();
        self.host.is_some()
            && self.host == other.host
            && (self.address == other.address
                || everywhere(self.address)
                || everywhere(other.address))
    }
}

impl FromStr for Publish {
    type Err = SyntaxError;

    /// Reads `HOST:GUEST`, `ADDRESS:HOST:GUEST` and `GUEST` (a free port of the host).
    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let help = "`8080:80` is the host's port 8080 for the machine's port 80; \
                    `0.0.0.0:8080:80` listens everywhere, `80` takes a free port";
        let wrong = || SyntaxError::new(format!("`{text}` does not name ports"), help);
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
            _ => Err(wrong()),
        };
        let (left, guest) = match text.rsplit_once(':') {
            Some((left, guest)) => (Some(left), port(guest)?),
            None => (None, port(text)?),
        };
        let (address, host) = match left {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), None),
            Some(left) if left.contains(':') => {
                let socket: SocketAddr = left.parse().map_err(|_| wrong())?;
                (socket.ip(), Some(socket.port()).filter(|port| *port > 0))
            }
            Some(left) => (IpAddr::V4(Ipv4Addr::LOCALHOST), Some(port(left)?)),
        };
        Ok(Self {
            address,
            host,
            guest,
        })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => write!(f, "{}:{}", SocketAddr::new(self.address, host), self.guest),
            None => write!(f, "{}:{}", SocketAddr::new(self.address, 0), self.guest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports() {
        let publish = |text: &str| text.parse::<Publish>();
        assert_eq!(publish("8080:80").unwrap().to_string(), "127.0.0.1:8080:80");
        assert_eq!(publish("0.0.0.0:1:2").unwrap().to_string(), "0.0.0.0:1:2");
        assert_eq!(publish("[::1]:1:2").unwrap().to_string(), "[::1]:1:2");
        assert_eq!(publish("80").unwrap().host, None);
        for bad in [
            "", ":", "0:80", "80:", "a:b", "70000:1", "x:1:2", "1:2:3", "::1:1:2", "+1:2",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
        }
        let clash = |a, b| publish(a).unwrap().clashes(&publish(b).unwrap());
        assert!(clash("80:1", "80:2"));
        assert!(clash("80:1", "0.0.0.0:80:2"));
        assert!(!clash("80:1", "127.0.0.2:80:2"));
        assert!(!clash("80", "80"));
    }

    #[test]
    fn volumes() {
        let volume: Volume = "./src:/src:rw".parse().unwrap();
        assert_eq!((volume.source, volume.writable), ("./src".into(), true));
        assert!(!"a:/b".parse::<Volume>().unwrap().writable);
        assert_eq!(
            "/x:y:/b:ro".parse::<Volume>().unwrap().source,
            PathBuf::from("/x:y")
        );
        for bad in ["", "a", ":/b", "a:b", "a:/", "a:/b/../c", "a:/b:xx"] {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9:./rwo\\[\\]]*|.*") {
            drop(text.parse::<Volume>());
            if let Ok(publish) = text.parse::<Publish>() {
                prop_assert_eq!(publish.to_string().parse::<Publish>().unwrap(), publish);
            }
        }
    }
}
