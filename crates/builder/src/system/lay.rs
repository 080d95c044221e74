//! What the machine of a system boots, and its store.
//!
//! ```text
//! STATE/system/HASH-NAME/
//!   root/              the machine's root before its system has made it one of its own
//!     sbin/init        `init.sh`
//!     boot/, usr/lib/modules/    a VM's kernel, and its modules: where images have their own
//!     usr/lib/machinist/closure, registration
//!   toplevel           by this link the host's Nix keeps the system
//!   laid               the system that all of this is of: last to be made
//! ```

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use super::closure::Nix;
use super::place::{STORE, resolve};
use super::{DiskError, NixError, System, disk, init_name, interpreter, program};
use crate::config::{Config, Kind};
use crate::path_error::{At, PathError};
use crate::state::State;

/// As the root of an image, so that systemd-nspawn takes it for one.
const RELEASE: &str = "ID=nixos\nNAME=NixOS\n";
const DIRECTORIES: [&str; 13] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "nix/store",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "usr/lib/machinist",
    "usr/lib/modules",
    "var",
];

/// How what is being copied into a store is called there, before its own name.
const HALF: &str = ".machinist-";

/// A system cannot be made ready for its machine.
#[derive(Debug, Error)]
pub enum LayError {
    /// The host's Nix.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// The file system.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A VM's disk, or a program.
    #[error("{0}")]
    Disk(String),
    /// A path of the system cannot be copied.
    #[error("cannot copy {} into the builder's store: {said}", path.display())]
    Copy {
        /// The path.
        path: PathBuf,
        /// Why.
        said: String,
    },
}

impl From<DiskError> for LayError {
    fn from(error: DiskError) -> Self {
        Self::Disk(crate::service::chain(error))
    }
}

impl System {
    /// Makes what its machine boots, unless it is there. Blocks.
    ///
    /// # Errors
    /// Nix does not know it any more, or the file system refuses.
    pub fn lay(&self, state: &State, config: &Config) -> Result<(), LayError> {
        let directory = self.directory(state);
        let marked = directory.join("laid");
        let mark = serde_json::to_vec(self).map_err(io::Error::from);
        let mark = mark.at("write", &marked)?;
        if fs::read(&marked).is_ok_and(|found| found == mark) {
            return Ok(());
        }
        if config.kind == Kind::Vm {
            disk::tools(&config.places.search)?;
        }
        let nix = Nix::find(&config.places.search)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.at("remove", &directory)?,
        }
        make(&state.system())?;
        make(&directory)?;
        nix.keep(&self.root, &self.toplevel, &directory.join("toplevel"))?;
        let closure = nix.closure(&self.root, &self.toplevel)?;
        let registration = nix.registration(&self.root, &self.toplevel, &closure)?;
        let root = self.machine_root(state);
        self.skeleton(&root)?;
        let own = root.join("usr/lib/machinist");
        let names = closure.iter().filter_map(|path| path.rsplit('/').next());
        let names: String = names.map(|name| format!("{name}\n")).collect();
        put(&own.join("closure"), names.as_bytes(), 0o644)?;
        put(&own.join("registration"), &registration, 0o644)?;
        Ok(put(&marked, &mark, 0o600)?)
    }

    /// The machine's root before its system has made it one of its own.
    fn skeleton(&self, root: &Path) -> Result<(), PathError> {
        for name in DIRECTORIES {
            make(&root.join(name))?;
        }
        let open = root.join("tmp");
        make(&open)?;
        fs::set_permissions(&open, Permissions::from_mode(0o1777)).at("change", &open)?;
        put(&root.join("etc/os-release"), RELEASE.as_bytes(), 0o644)?;
        let init = self.toplevel.join(init_name(&self.root, &self.toplevel));
        let found = resolve(&self.root, &init).at("find", &init)?;
        let interpreter = interpreter(&found).at("read", &found)?.unwrap_or_default();
        let mut script = b"#!".to_vec();
        script.extend(interpreter.as_os_str().as_bytes());
        for (name, value) in [("toplevel", &self.toplevel), ("init", &init)] {
            script.extend(format!("\n{name}=").as_bytes());
            // Nix has no blanks and no quotes in its names.
            script.extend(value.as_os_str().as_bytes());
        }
        script.push(b'\n');
        script.extend(include_bytes!("init.sh"));
        put(&root.join("sbin/init"), &script, 0o755)?;
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let image = root.join(format!("boot/vmlinuz-{}", kernel.version));
        fs::copy(&kernel.image, &image).at("copy", &kernel.image)?;
        let modules = root.join("usr/lib/modules").join(&kernel.version);
        symlink(&kernel.modules, &modules).at("make the link", &modules)
    }

    /// Makes all ready for a start; `new`: the store was never used. Blocks.
    pub(crate) fn ready(&self, state: &State, config: &Config, new: bool) -> Result<(), LayError> {
        self.lay(state, config)?;
        self.remove_others(state)?;
        match config.kind {
            Kind::Vm => Ok(disk::ready(&config.places.search, &state.disk(), new)?),
            Kind::Container => self.copy(state, &config.places.search),
        }
    }

    /// What was laid for it. A machine that runs may still need that of another.
    fn directory(&self, state: &State) -> PathBuf {
        state
            .system()
            .join(self.toplevel.file_name().unwrap_or_default())
    }

    /// The machine's root, before its system has made it one of its own.
    pub(crate) fn machine_root(&self, state: &State) -> PathBuf {
        self.directory(state).join("root")
    }

    /// Removes what was laid for others. To be called while the machine is off.
    fn remove_others(&self, state: &State) -> Result<(), PathError> {
        let (all, own) = (state.system(), self.directory(state));
        for entry in fs::read_dir(&all).at("list", &all)? {
            let path = entry.at("list", &all)?.path();
            if path != own {
                fs::remove_dir_all(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Where the store is on the host.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    /// Copies what of the system a container's store does not have.
    fn copy(&self, state: &State, search: &Path) -> Result<(), LayError> {
        // Who waits for its daemon waits for the one of this start.
        let socket = within(&state.store(), "var/nix/daemon-socket")?.join("socket");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.at("remove", &socket)?,
        }
        let list = self.machine_root(state).join("usr/lib/machinist/closure");
        let names = fs::read_to_string(&list).at("read", &list)?;
        let store = within(&state.store(), "store")?;
        make(&store)?;
        let half = |name: &str| store.join(format!("{HALF}{name}"));
        let whole = self.whole(state)?;
        let is_there =
            |name: &&str| fs::symlink_metadata(store.join(name)).is_ok() && whole.contains(name);
        let missing: Vec<&str> = names.lines().filter(|name| !is_there(name)).collect();
        let Some(cp) = program(search, "cp") else {
            return Err(LayError::Disk("there is no program cp".to_owned()));
        };
        remove_halves(&store)?;
        for name in &missing {
            let (from, half) = (self.store().join(name), half(name));
            let copied = Command::new(&cp)
                .args(["-a", "--reflink=auto"])
                .args([&from, &half])
                .stdin(Stdio::null())
                .output();
            let said = match copied {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(said) = said {
                return Err(LayError::Copy { path: from, said });
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        // A path is there as a whole, or not at all.
        let whole = File::open(&store).at("open", &store)?;
        rustix::fs::syncfs(&whole).at("sync", &store)?;
        for name in missing {
            let to = store.join(name);
            remove(&to)?;
            fs::rename(half(name), &to).at("make", &to)?;
        }
        Ok(())
    }

    /// What of a container's store is there as a whole, if it is there. Nix's collector has left
    /// alone what belongs to the system of before; of all else it may have deleted a part when it
    /// was killed.
    fn whole(&self, state: &State) -> Result<Whole, PathError> {
        let said = |name: &str| {
            let path = within(&state.store(), &format!("var/nix/{name}"))?;
            match path.metadata() {
                Ok(found) if found.is_file() => fs::read_to_string(&path).at("read", &path),
                // The machine has made it something else, or there is none yet.
                _ => Ok(String::new()),
            }
        };
        if Path::new(said("machinist-system")?.trim()) == self.toplevel {
            return Ok(Whole::All);
        }
        let closure = said("machinist-closure")?;
        Ok(Whole::These(closure.lines().map(str::to_owned).collect()))
    }
}

/// Names in a store.
enum Whole {
    All,
    These(HashSet<String>),
}

impl Whole {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

/// A directory in a container's `/nix`, while its machine is off. A link on the way there the machine has
/// made, and for us it would lead to somewhere else on this host.
fn within(nix: &Path, inside: &str) -> Result<PathBuf, PathError> {
    let mut path = nix.to_owned();
    for part in Path::new(inside) {
        path.push(part);
        if path.is_symlink() {
            return Err(io::Error::other("it is a link")).at("use", &path);
        }
    }
    Ok(path)
}

/// Removes what a start that was killed has copied: directories, files and links.
fn remove_halves(store: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(store).at("list", store)? {
        let entry = entry.at("list", store)?;
        if !entry.file_name().as_bytes().starts_with(HALF.as_bytes()) {
            continue;
        }
        remove(&entry.path())?;
    }
    Ok(())
}

/// Removes a directory, a file or a link, if it is there.
fn remove(path: &Path) -> Result<(), PathError> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
    let removed = match is_directory {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", path),
    }
}

/// Makes a directory that everybody in the machine may enter.
fn make(path: &Path) -> Result<(), PathError> {
    fs::create_dir_all(path).at("make the directory", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).at("change", path)
}

fn put(path: &Path, contents: &[u8], mode: u32) -> Result<(), PathError> {
    fs::write(path, contents).at("write", path)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).at("change", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn links_of_a_machine_lead_nowhere_on_the_host() {
        let place = tempfile::tempdir().unwrap();
        let (nix, host) = (place.path().join("nix"), place.path().join("host"));
        fs::create_dir_all(nix.join("var/nix")).unwrap();
        fs::create_dir(&host).unwrap();
        let socket = "var/nix/daemon-socket";
        // What is not there yet is made later.
        assert_eq!(within(&nix, socket).unwrap(), nix.join(socket));
        symlink(&host, nix.join(socket)).unwrap();
        symlink("/etc", nix.join("store")).unwrap();
        within(&nix, socket).unwrap_err();
        within(&nix, "store").unwrap_err();
    }

    #[test]
    fn what_a_killed_copy_has_left_is_in_nobodys_way() {
        let place = tempfile::tempdir().unwrap();
        let options = Options {
            kind: Some(Kind::Container),
            ..Options::default()
        };
        let config = config::tests::config("linux", &options);
        let state = State::create(&place.path().join("builders"), &config).unwrap();
        let system = System {
            root: place.path().to_owned(),
            toplevel: "/nix/store/a-nixos".into(),
            version: String::new(),
            kernel: None,
        };
        fs::create_dir_all(system.store().join("a-nixos")).unwrap();
        fs::write(system.store().join("b-file"), "whole").unwrap();
        symlink("b-file", system.store().join("c-link")).unwrap();
        let own = system.machine_root(&state).join("usr/lib/machinist");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("closure"), "a-nixos\nb-file\nc-link\n").unwrap();
        let store = state.store().join("store");
        fs::create_dir_all(store.join(".machinist-a-nixos/half")).unwrap();
        fs::write(store.join(".machinist-b-file"), "ha").unwrap();
        symlink("x", store.join(".machinist-c-link")).unwrap();
        fs::write(store.join(".machinist-of-a-former-system"), "").unwrap();
        system.copy(&state, Path::new("")).unwrap();
        assert_eq!(fs::read(store.join("c-link")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(store.join("a-nixos")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&store).unwrap().count(), 3);

        // Another system was there since, and its collector was killed.
        let known = state.store().join("var/nix");
        fs::create_dir_all(&known).unwrap();
        fs::write(known.join("machinist-system"), "/nix/store/another\n").unwrap();
        fs::write(known.join("machinist-closure"), "another\nb-file\n").unwrap();
        fs::write(system.store().join("a-nixos/init"), "").unwrap();
        fs::remove_file(store.join("c-link")).unwrap();
        fs::create_dir(store.join("c-link")).unwrap();
        fs::write(store.join("b-file"), "its own").unwrap();
        system.copy(&state, Path::new("")).unwrap();
        assert!(store.join("a-nixos/init").is_file());
        assert_eq!(fs::read(store.join("c-link")).unwrap(), b"its own");
        // What is its own system's is left alone, and so is what is no file.
        fs::remove_file(store.join("a-nixos/init")).unwrap();
        fs::write(known.join("machinist-system"), "/nix/store/a-nixos\n").unwrap();
        system.copy(&state, Path::new("")).unwrap();
        assert!(!store.join("a-nixos/init").exists());
        fs::remove_file(known.join("machinist-system")).unwrap();
        fs::create_dir(known.join("machinist-system")).unwrap();
        system.copy(&state, Path::new("")).unwrap();
        assert!(store.join("a-nixos/init").exists());
    }
}
