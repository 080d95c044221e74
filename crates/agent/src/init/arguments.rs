//! The kernel's command line.

use std::fs;
use std::path::PathBuf;

use super::BootError;

/// Where a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disk {
    /// A file in `/dev`.
    Path(PathBuf),
    /// The serial number that a virtio disk was given.
    Serial(String),
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    /// An erofs on a disk.
    Erofs(Disk),
    /// A folder that the host shares.
    Plan9(String),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    /// `machinist.root=erofs:SERIAL`, `erofs:/dev/...` or `9p:TAG`.
    pub(super) root: Root,
    /// `machinist.modules=SERIAL`: an erofs for `/lib/modules`.
    pub(super) modules: Option<Disk>,
    /// `machinist.init=agent`: there is no other init.
    pub(super) stays: bool,
    /// `init=`: the image's init, if it is not `/sbin/init`.
    pub(super) init: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn read() -> Result<Self, BootError> {
        let line = fs::read_to_string("/proc/cmdline")
            .map_err(|error| BootError::io("cannot read /proc/cmdline", error))?;
        Self::parse(&line)
    }

    fn parse(line: &str) -> Result<Self, BootError> {
        let value = |name: &str| {
            let mut words = line.split_whitespace().rev();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let root = value("machinist.root")
            .ok_or_else(|| BootError::new("the kernel was given no machinist.root="))?;
        let root = match root.split_once(':') {
            Some(("erofs", disk)) => Root::Erofs(disk_of(disk)),
            Some(("9p", tag)) => Root::Plan9(tag.to_owned()),
            _ => {
                return Err(BootError::new(format!(
                    "machinist.root={root} is neither erofs:DISK nor 9p:TAG"
                )));
            }
        };
        Ok(Self {
            root,
            modules: value("machinist.modules").map(disk_of),
            stays: value("machinist.init") == Some("agent"),
            init: value("init").map(PathBuf::from),
        })
    }
}

fn disk_of(text: &str) -> Disk {
    match text.starts_with('/') {
        true => Disk::Path(text.into()),
        false => Disk::Serial(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let line = "quiet machinist.root=9p:old machinist.root=erofs:root machinist.init=agent\n";
        let arguments = Arguments::parse(line).unwrap();
        assert_eq!(arguments.root, Root::Erofs(Disk::Serial("root".into())));
        assert!(arguments.stays);
        assert_eq!(arguments.init, None);
        assert!(Arguments::parse("quiet").is_err());
        assert!(Arguments::parse("machinist.root=ext4:/dev/vda").is_err());
    }
}
