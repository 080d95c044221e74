//! Keys and seeds that are in files, and must not be the same twice.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use machinist_wire::Blob;
use machinist_wire::message::Failure;
use machinist_wire::renewal::{HostKey, HostKeyFile};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{failure, overwrite};

const SSH: &str = "/etc/ssh";

/// Where systems keep random bytes for their next boot.
const SEEDS: &[&str] = &[
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
];
const SEED: usize = 512;

/// The SSH host keys that are there.
pub(super) fn list() -> Vec<HostKeyFile> {
    let entries = fs::read_dir(SSH).into_iter().flatten().flatten();
    let mut keys: Vec<_> = entries.filter_map(|entry| key(&entry.path())).collect();
    keys.sort_by(|a, b| a.path.cmp(&b.path));
    keys
}

fn key(path: &Path) -> Option<HostKeyFile> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix("ssh_host_")?.strip_suffix("_key")?;
    let public = fs::read_to_string(beside(path)).unwrap_or_default();
    let mut words = public.split_whitespace();
    let (algorithm, text) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let bits = match algorithm {
        "ssh-rsa" => bits(text),
        // "ecdsa-sha2-nistp256"
        _ => algorithm
            .rsplit_once("nistp")
            .map_or(0, |(_, bits)| bits.parse().unwrap_or(0)),
    };
    Some(HostKeyFile {
        path: Blob::from(path),
        kind: name.to_owned(),
        bits,
    })
}

/// The public part's file.
fn beside(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

/// About how long an RSA key is, from the length of its public part in base64: besides the modulus
/// that has 22 bytes of names, lengths, and the usual exponent.
fn bits(base64: &str) -> u32 {
    let bytes = u32::try_from(base64.len() / 4 * 3).unwrap_or(0);
    let modulus = bytes.saturating_sub(22);
    // Sizes that people choose are multiples of this.
    modulus / 128 * 1024
}

/// Puts keys in the place of others, which have their owner and mode from the old ones.
pub(super) fn replace(keys: &[HostKey]) -> Result<(), Failure> {
    for key in keys {
        let path = key.path.as_path();
        let told = |error| failure(format_args!("cannot replace {}", path.display()), error);
        match key.private.0.is_empty() {
            true => remove(path).and_then(|()| remove(&beside(path))),
            false => put(path, &key.private.0, 0o600)
                .and_then(|()| put(&beside(path), &key.public.0, 0o644)),
        }
        .map_err(told)?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file beside the old one, and puts it in its place.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let old = fs::metadata(path).ok();
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    remove(Path::new(&new))?;
    let mut options = fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    if let Some(old) = &old {
        chown(&new, Some(old.uid()), Some(old.gid()))?;
    }
    let mode = old.map_or(mode, |old| old.mode() & 0o7777);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&new, path)
}

/// The files that seed the next boot.
pub(super) fn seeds() -> Vec<PathBuf> {
    let paths = SEEDS.iter().map(PathBuf::from);
    paths.filter(|path| path.exists()).collect()
}

/// Writes other bytes into these.
pub(super) fn renew(seeds: &[PathBuf]) -> io::Result<()> {
    for path in seeds {
        let mut seed = [0; SEED];
        let count = getrandom(&mut seed, GetRandomFlags::NONBLOCK)?;
        overwrite(path, &seed[..count])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_rsa_keys() {
        // What `ssh-keygen` prints for keys of 2048, 3072 and 4096 bits.
        for (length, wanted) in [(372, 2048), (544, 3072), (716, 4096)] {
            assert_eq!(bits(&"A".repeat(length)), wanted);
        }
        assert_eq!(bits(""), 0);
    }

    #[test]
    fn a_key_keeps_its_mode() {
        let dir = std::env::temp_dir().join(format!("machinist-keys-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("ssh_host_ed25519_key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let new = |private: &str| HostKey {
            path: Blob::from(&path),
            private: private.as_bytes().to_vec().into(),
            public: b"line".to_vec().into(),
        };
        replace(&[new("new")]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let seen = (fs::read(&path).unwrap(), mode(&path), mode(&beside(&path)));
        let names = fs::read_dir(&dir).unwrap().count();
        replace(&[new("")]).unwrap();
        let left = fs::read_dir(&dir).unwrap().count();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(seen, (b"new".to_vec(), 0o640, 0o644));
        assert_eq!((names, left), (2, 0));
    }
}
