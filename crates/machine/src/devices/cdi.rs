//! Device specifications of the Container Device Interface, as far as containers of ours use them:
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DeviceError;

/// One file. What is not here, a newer version of the interface may have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: Name,
    #[serde(default)]
    container_edits: Edits,
}

/// YAML takes an unquoted `0` for a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(u64),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// Inside, and on the host unless that is said.
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
}

/// All specifications of the host.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// By kind and name; where several directories have one, those of the last that has it.
    devices: BTreeMap<(String, String), Found>,
    /// What all devices of a file share.
    shared: BTreeMap<PathBuf, Edits>,
}

#[derive(Debug)]
struct Found {
    directory: PathBuf,
    /// Several files of one directory are one too many.
    files: Vec<PathBuf>,
    edits: Edits,
}

impl Registry {
    /// Reads all files of the directories; of two the later has the last word. A directory that is
    /// not there has no devices.
    pub(super) fn read(directories: &[PathBuf]) -> Result<Self, DeviceError> {
        let mut registry = Self::default();
        for directory in directories {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                let kind = file.extension().and_then(|extension| extension.to_str());
                if let Some("json" | "yaml" | "yml") = kind {
                    registry.add(directory, &file)?;
                }
            }
        }
        Ok(registry)
    }

    fn add(&mut self, directory: &Path, file: &Path) -> Result<(), DeviceError> {
        let failed = |why: String| DeviceError::Spec {
            file: file.to_owned(),
            why,
        };
        let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        // JSON is YAML too, but its own parser says better what is wrong.
        let spec: Spec = if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?
        } else {
            serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?
        };
        for device in &spec.devices {
            let key = (spec.kind.clone(), device.name.text());
            let files = match self.devices.remove(&key) {
                Some(found) if found.directory == directory => found.files,
                _ => Vec::new(),
            };
            let found = Found {
                directory: directory.to_owned(),
                files: [files, vec![file.to_owned()]].concat(),
                edits: device.container_edits.clone(),
            };
            self.devices.insert(key, found);
        }
        self.shared.insert(file.to_owned(), spec.container_edits);
        Ok(())
    }

    /// The names of a kind's devices.
    pub(super) fn names(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.devices.keys().filter(|(other, _)| other == kind);
        of_kind.map(|(_, name)| name.as_str()).collect()
    }

    /// What a container gets for these devices: each file's shared part once, before its devices'.
    pub(super) fn edits(&self, wanted: &[(&str, &str)]) -> Result<Vec<&Edits>, DeviceError> {
        let mut edits = Vec::new();
        let mut files: Vec<&Path> = Vec::new();
        for &(kind, name) in wanted {
            let device = || format!("{kind}={name}");
            let key = (kind.to_owned(), name.to_owned());
            let Some(found) = self.devices.get(&key) else {
                return Err(DeviceError::NoCdi {
                    device: device(),
                    known: self.known(kind),
                });
            };
            let [file] = &found.files[..] else {
                return Err(DeviceError::Ambiguous {
                    device: device(),
                    files: found.files.clone(),
                });
            };
            if !files.contains(&file.as_path()) {
                files.push(file);
                edits.extend(self.shared.get(file));
            }
            edits.push(&found.edits);
        }
        Ok(edits)
    }

    /// The devices of a kind, or all where there are none.
    fn known(&self, kind: &str) -> Vec<String> {
        let of_kind = !self.names(kind).is_empty();
        let all = self.devices.keys();
        all.filter(|(other, _)| !of_kind || other == kind)
            .map(|(kind, name)| format!("{kind}={name}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn spec(name: &str, variable: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{{"name":"{name}","containerEdits":
            {{"env":["{variable}=1"]}}}}],"containerEdits":{{"env":["ALL={variable}"]}}}}"#
        )
    }

    #[test]
    fn what_nvidia_writes() {
        let yaml = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: 0\n  containerEdits:\n    \
            deviceNodes:\n    - path: /dev/nvidia0\n    - path: /dev/dri/card1\n      hostPath: /dev/dri/card0\n\
            - name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n\
            containerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n  hooks:\n  - hookName: createContainer\n    \
            path: /usr/bin/nvidia-ctk\n    args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib]\n  mounts:\n  \
            - hostPath: /usr/bin/nvidia-smi\n    containerPath: /usr/bin/nvidia-smi\n    options: [ro, nosuid, nodev, bind]\n";
        let directory = directory(&[("nvidia.yaml", yaml), ("notes.txt", "not read")]);
        let registry = Registry::read(&[directory.path().to_owned()]).unwrap();
        assert_eq!(registry.names("nvidia.com/gpu"), ["0", "all"]);
        let edits = registry
            .edits(&[("nvidia.com/gpu", "0"), ("nvidia.com/gpu", "all")])
            .unwrap();
        assert_eq!(edits.len(), 3);
        assert_eq!(edits[0].env, ["NVIDIA_VISIBLE_DEVICES=void"]);
        assert_eq!(edits[0].mounts[0].options[0], "ro");
        assert_eq!(edits[0].hooks[0].args[2], "update-ldcache");
        let host = edits[1].device_nodes[1].host_path.as_deref();
        assert_eq!(host, Some(Path::new("/dev/dri/card0")));
    }

    #[test]
    fn the_later_directory_has_the_last_word() {
        let (etc, run) = (
            directory(&[("a.json", &spec("one", "ETC"))]),
            directory(&[("a.json", &spec("one", "RUN"))]),
        );
        let directories = [etc.path().to_owned(), run.path().to_owned()];
        let registry = Registry::read(&directories).unwrap();
        let edits = registry.edits(&[("v.com/c", "one")]).unwrap();
        assert_eq!(edits[0].env, ["ALL=RUN"]);
        assert_eq!(edits[1].env, ["RUN=1"]);
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let twice = directory(&[
            ("a.json", &spec("one", "A")),
            ("b.json", &spec("one", "B")),
            ("c.json", &spec("two", "C")),
        ]);
        let registry = Registry::read(&[twice.path().to_owned()]).unwrap();
        let error = registry
            .edits(&[("v.com/c", "one")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("a.json") && error.contains("b.json"),
            "{error}"
        );
        let error = registry.edits(&[("v.com/c", "three")]).unwrap_err();
        assert!(error.to_string().contains("v.com/c=two"), "{error}");
        let broken = directory(&[("x.json", "{")]);
        let error = Registry::read(&[broken.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("x.json"), "{error}");
        let none = Registry::read(&["/nowhere".into()]).unwrap();
        assert!(none.edits(&[("v.com/c", "one")]).is_err());
    }
}
