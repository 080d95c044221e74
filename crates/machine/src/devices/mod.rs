//! Devices of the host for containers: plain device nodes, devices of the Container Device Interface
//! (CDI), and NVIDIA's graphics processors.

mod cdi;
mod nvidia;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::spec::Volume;
use cdi::{Edits, Hook, Registry};

/// What a machine asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Device nodes of the host.
    pub nodes: Vec<PathBuf>,
    /// CDI devices: kind and name.
    pub cdi: Vec<(String, String)>,
    /// All graphics processors of NVIDIA's.
    pub nvidia: bool,
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Directories of CDI files, the most important last.
    pub cdi: &'a [PathBuf],
    /// Where programs are looked for, as in `PATH`.
    pub search: &'a OsStr,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// On the host.
    pub host: PathBuf,
    /// Inside.
    pub inside: PathBuf,
}

impl Node {
    fn same(path: PathBuf) -> Self {
        Self {
            host: path.clone(),
            inside: path,
        }
    }
}

/// A symbolic link inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// What it says.
    pub target: PathBuf,
}

/// What a container gets for its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// Device nodes. A directory stands for all that is in it.
    pub nodes: Vec<Node>,
    /// Files and directories of the host.
    pub mounts: Vec<Volume>,
    /// Variables of its init, and of every command.
    pub env: BTreeMap<String, String>,
    /// Links.
    pub links: Vec<Link>,
    /// Where libraries came that `ldconfig` has to know of.
    pub library_folders: Vec<PathBuf>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// A device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It is not there.
    #[error("there is no device {}", path.display())]
    NoNode {
        /// Where it should be.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is no device node", path.display())]
    NotANode {
        /// The path.
        path: PathBuf,
    },
    /// Something that a CDI file mounts is not there.
    #[error("a CDI device mounts {}, which is not there", path.display())]
    NoMount {
        /// The path.
        path: PathBuf,
    },
    /// A CDI file makes no sense.
    #[error("the CDI file {} cannot be used: {why}", file.display())]
    Spec {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// No CDI file has the device.
    #[error("no CDI file has the device {device}; {}", known_devices(known))]
    NoCdi {
        /// Its name.
        device: String,
        /// What there is in its place.
        known: Vec<String>,
    },
    /// Several CDI files have the device.
    #[error("several CDI files have the device {device}: {}", list(files))]
    Ambiguous {
        /// Its name.
        device: String,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// There is no graphics processor.
    #[error(
        "there is no NVIDIA device: no CDI file has {}, and there is no /dev/nvidia0",
        nvidia::KIND
    )]
    NoNvidia,
}

fn known_devices(known: &[String]) -> String {
    if known.is_empty() {
        return "there are no CDI devices here".to_owned();
    }
    format!("there are {}", known.join(", "))
}

fn list(files: &[PathBuf]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    files.join(", ")
}

/// Finds on this host what is asked for. Nothing asked, nothing looked at.
///
/// # Errors
/// A device cannot be had.
pub fn find(asked: &Asked, places: Places<'_>) -> Result<Devices, DeviceError> {
    let mut devices = Devices::default();
    for path in &asked.nodes {
        devices.nodes.push(Node::same(path.clone()));
    }
    if asked.nvidia || !asked.cdi.is_empty() {
        let registry = Registry::read(places.cdi)?;
        let mut names: Vec<(&str, &str)> = asked
            .cdi
            .iter()
            .map(|(kind, name)| (kind.as_str(), name.as_str()))
            .collect();
        if asked.nvidia {
            let all = registry.names(nvidia::KIND);
            match all.as_slice() {
                [] => devices.add_nvidia(places.search)?,
                some if some.contains(&"all") => names.push((nvidia::KIND, "all")),
                some => names.extend(some.iter().map(|name| (nvidia::KIND, *name))),
            }
        }
        for edits in registry.edits(&names)? {
            devices.add(edits);
        }
    }
    devices.settle()
}

impl Devices {
    fn add_nvidia(&mut self, search: &OsStr) -> Result<(), DeviceError> {
        let search: Vec<PathBuf> = std::env::split_paths(search).collect();
        let found = nvidia::find(Path::new("/dev"), &library_cache(), &search);
        let found = found.ok_or(DeviceError::NoNvidia)?;
        self.nodes.extend(found.nodes);
        self.mounts.extend(found.mounts);
        self.library_folders.extend(found.library_folders);
        Ok(())
    }

    fn add(&mut self, edits: &Edits) {
        for node in &edits.device_nodes {
            self.nodes.push(Node {
                host: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
                inside: node.path.clone(),
            });
        }
        for mount in &edits.mounts {
            self.mounts.push(Volume {
                source: mount.host_path.clone(),
                target: mount.container_path.clone(),
                writable: !mount.options.iter().any(|option| option == "ro"),
            });
        }
        for variable in &edits.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            self.env.insert(name.to_owned(), value.to_owned());
        }
        for hook in &edits.hooks {
            self.add_hook(hook);
        }
    }

    /// What NVIDIA's hooks do most of all, we do. All others are programs that want another runtime.
    fn add_hook(&mut self, hook: &Hook) {
        // `nvidia-ctk hook NAME OPTIONS`, or `nvidia-cdi-hook NAME OPTIONS`.
        let mut words = hook.args.iter().skip(1).map(String::as_str).peekable();
        words.next_if_eq(&"hook");
        let name = words.next().unwrap_or_default();
        let options = options(words);
        match name {
            "update-ldcache" => {
                let folders = options.iter().filter(|(option, _)| *option == "folder");
                self.library_folders
                    .extend(folders.map(|(_, folder)| PathBuf::from(folder)));
            }
            "create-symlinks" => {
                for (_, link) in options.iter().filter(|(option, _)| *option == "link") {
                    if let Some((target, path)) = link.split_once("::") {
                        self.links.push(Link {
                            path: path.into(),
                            target: target.into(),
                        });
                    }
                }
            }
            _ => self.warnings.push(format!(
                "a hook of a CDI device is not run, which wants a container runtime of another kind: {} {}",
                hook.path.display(),
                hook.args.get(1..).unwrap_or_default().join(" ")
            )),
        }
    }

    /// Each thing once, and all of them there.
    fn settle(mut self) -> Result<Self, DeviceError> {
        let mut seen = Vec::new();
        self.nodes.retain(|node| once(&mut seen, &node.inside));
        let mut seen = Vec::new();
        self.mounts.retain(|mount| once(&mut seen, &mount.target));
        let mut seen = Vec::new();
        self.library_folders
            .retain(|folder| once(&mut seen, folder));
        for node in &self.nodes {
            let path = || node.host.clone();
            let kind = node
                .host
                .metadata()
                .map_err(|_| DeviceError::NoNode { path: path() })?
                .file_type();
            if !kind.is_char_device() && !kind.is_block_device() && !kind.is_dir() {
                return Err(DeviceError::NotANode { path: path() });
            }
        }
        match self.mounts.iter().find(|mount| !mount.source.exists()) {
            Some(mount) => Err(DeviceError::NoMount {
                path: mount.source.clone(),
            }),
            None => Ok(self),
        }
    }
}

fn once(seen: &mut Vec<PathBuf>, path: &Path) -> bool {
    let new = !seen.iter().any(|other| other == path);
    seen.push(path.to_owned());
    new
}

/// `--name value` and `--name=value`.
fn options<'a>(mut words: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut options = Vec::new();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            continue;
        };
        match option.split_once('=') {
            Some(pair) => options.push(pair),
            None => options.extend(words.next().map(|value| (option, value))),
        }
    }
    options
}

/// What the host's linker finds; nothing where it cannot be asked.
fn library_cache() -> String {
    let asked = ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"]
        .iter()
        .find_map(|program| {
            Command::new(program)
                .arg("-p")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()
        });
    let output = asked.map(|asked| asked.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(cdi: &[PathBuf]) -> Places<'_> {
        Places {
            cdi,
            search: OsStr::new("/usr/bin"),
        }
    }

    fn nodes(paths: &[&str]) -> Asked {
        Asked {
            nodes: paths.iter().map(PathBuf::from).collect(),
            ..Asked::default()
        }
    }

    #[test]
    fn plain_nodes_are_looked_at() {
        let found = find(
            &nodes(&["/dev/null", "/dev/zero", "/dev/null"]),
            places(&[]),
        )
        .unwrap();
        assert_eq!(found.nodes.len(), 2);
        let error = |path: &str| find(&nodes(&[path]), places(&[])).unwrap_err().to_string();
        assert_eq!(error("/dev/nowhere"), "there is no device /dev/nowhere");
        assert_eq!(error("/etc/passwd"), "/etc/passwd is no device node");
    }

    #[test]
    fn hooks_are_done_or_told_of() {
        let spec = r#"{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"all"}],"containerEdits":{
            "env":["A=b=c","EMPTY"],
            "mounts":[{"hostPath":"/etc/passwd","containerPath":"/x","options":["ro"]},
                      {"hostPath":"/etc","containerPath":"/y"}],
            "hooks":[
            {"hookName":"createContainer","path":"/usr/bin/nvidia-ctk","args":["nvidia-ctk","hook","update-ldcache","--folder","/usr/lib/a","--folder=/usr/lib/b"]},
            {"hookName":"createContainer","path":"/usr/bin/nvidia-cdi-hook","args":["nvidia-cdi-hook","create-symlinks","--link","libcuda.so.1::/usr/lib/libcuda.so"]},
            {"hookName":"createContainer","path":"/opt/hook","args":["hook","chmod"]}]}}"#;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.json"), spec).unwrap();
        let asked = Asked {
            nvidia: true,
            ..Asked::default()
        };
        let found = find(&asked, places(&[directory.path().to_owned()])).unwrap();
        assert_eq!(
            found.library_folders,
            ["/usr/lib/a", "/usr/lib/b"].map(PathBuf::from)
        );
        let link = Link {
            path: "/usr/lib/libcuda.so".into(),
            target: "libcuda.so.1".into(),
        };
        assert_eq!(found.links, [link]);
        assert_eq!(
            (found.env["A"].as_str(), found.env["EMPTY"].as_str()),
            ("b=c", "")
        );
        assert!(!found.mounts[0].writable && found.mounts[1].writable);
        assert_eq!(found.warnings.len(), 1);
        assert!(
            found.warnings[0].contains("/opt/hook chmod"),
            "{:?}",
            found.warnings
        );
    }
}
