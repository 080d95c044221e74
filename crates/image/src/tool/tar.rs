//! tar(1), which unpacks archives: it knows every format and compression that people have.

use std::ffi::OsString;
use std::path::Path;

use rustix::fs::{Mode, XattrFlags, chmod, removexattr, setxattr};
use rustix::io::Errno;

use super::Tool;

/// The tool that unpacks `archive` into the directory `target`, which is there.
pub(crate) fn unpack(archive: &Path, target: &Path) -> Tool {
    Tool {
        program: "tar",
        package: "tar",
        args: unpack_args(archive, target, Powers::probe(target)),
        temporary: None,
        isolated: false,
        hint: |_| None,
    }
}

/// What may be done to files. The sandbox of a Nix build refuses both, by a filter of system calls,
/// and there an image without them is better than none.
#[derive(Debug, Clone, Copy)]
struct Powers {
    /// Extended attributes, and with them access control lists.
    attributes: bool,
    /// The set-user-id bit, and its kin.
    special_bits: bool,
}

impl Powers {
    /// Tries it on the directory `target`.
    fn probe(target: &Path) -> Self {
        let refused = |name: &str| {
            let set = setxattr(target, name, b"", XattrFlags::empty());
            // It was ours, and empty.
            _ = removexattr(target, name);
            set == Err(Errno::OPNOTSUPP)
        };
        let mode = rustix::fs::stat(target).map_or(0o755, |stat| stat.st_mode & 0o7777);
        let special_bits = chmod(target, Mode::from_raw_mode(mode | 0o4000)).is_ok();
        if special_bits {
            // As it was: what could be changed can be changed back.
            _ = chmod(target, Mode::from_raw_mode(mode));
        }
        Self {
            // Some file systems have no names of users, but those of root.
            attributes: !(refused("user.machinist") && refused("trusted.machinist")),
            special_bits,
        }
    }
}

fn unpack_args(archive: &Path, target: &Path, powers: Powers) -> Vec<OsString> {
    // Numbers, because the names of users are the host's; the archive's own device nodes stay out,
    // because every machine brings its own /dev.
    let mut options = "--extract --numeric-owner --same-owner --sparse --exclude=./dev/* \
                       --exclude=dev/*"
        .to_owned();
    options += if powers.special_bits {
        " --preserve-permissions"
    } else {
        " --no-same-permissions"
    };
    if powers.attributes {
        options += " --xattrs --xattrs-include=* --acls";
    }
    let mut args: Vec<OsString> = options.split_whitespace().map(OsString::from).collect();
    for (option, value) in [("--file", archive), ("--directory", target)] {
        args.push(option.into());
        args.push(value.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(powers: Powers) -> String {
        let args = unpack_args(
            Path::new("/x/root.tar.xz"),
            Path::new("/cache/root"),
            powers,
        );
        let words: Vec<_> = args.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn unpacking() {
        let all = words(Powers {
            attributes: true,
            special_bits: true,
        });
        insta::assert_snapshot!(all, @"--extract --numeric-owner --same-owner --sparse --exclude=./dev/* --exclude=dev/* --preserve-permissions --xattrs --xattrs-include=* --acls --file /x/root.tar.xz --directory /cache/root");
        let none = words(Powers {
            attributes: false,
            special_bits: false,
        });
        insta::assert_snapshot!(none, @"--extract --numeric-owner --same-owner --sparse --exclude=./dev/* --exclude=dev/* --no-same-permissions --file /x/root.tar.xz --directory /cache/root");
    }

    #[test]
    fn probing_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let before = rustix::fs::stat(directory.path()).unwrap().st_mode;
        let powers = Powers::probe(directory.path());
        assert!(powers.special_bits);
        assert_eq!(rustix::fs::stat(directory.path()).unwrap().st_mode, before);
        let mut names = [0; 1024];
        let length = rustix::fs::listxattr(directory.path(), &mut names).unwrap();
        assert!(!String::from_utf8_lossy(&names[..length]).contains("machinist"));
    }
}
