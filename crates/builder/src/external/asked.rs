//! What Nix asks an external builder for: the file `build.json`, and what of the derivation is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::fixed::Fixed;

/// The version of the file that we know.
const VERSION: u32 = 1;
/// The only store whose paths our builders have.
const STORE: &str = "/nix/store";
/// Letters of a store path's hash, and those of its name.
const HASH: usize = 32;
const LONGEST_NAME: usize = 211;
/// What no external builder can have, whatever its machine offers: Nix refuses it itself, or has nobody
/// there who would answer.
const NEVER: [&str; 2] = ["uid-range", "recursive-nix"];

/// `build.json`. Fields that we do not need are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The version of the file.
    pub version: u32,
    /// The program.
    pub builder: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, all of it.
    pub env: BTreeMap<String, String>,
    /// The build's directory here.
    pub tmp_dir: PathBuf,
    /// The same, as the build sees it.
    pub tmp_dir_in_sandbox: String,
    /// The store, as the build sees it.
    pub store_dir: String,
    /// The store here.
    pub real_store_dir: String,
    /// The system that it is for.
    pub system: String,
    /// All that the build may see: closed under references.
    pub input_paths: BTreeSet<String>,
    /// What the build has to make, by the outputs' names.
    pub outputs: BTreeMap<String, String>,
}

/// What the service is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The file.
    pub build: Build,
    /// The features that the derivation asks for.
    pub features: BTreeSet<String>,
    /// What its output has to be, where that is fixed.
    pub fixed: Option<Fixed>,
    /// The derivation's name, for people.
    pub name: String,
}

/// What cannot be built by an external builder.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Another Nix.
    #[error("Nix describes the build in version {0}; this machinist knows {VERSION}")]
    Version(u32),
    /// A feature.
    #[error(
        "the derivation asks for the feature {feature}, which an external builder cannot have; a machine line can: `machinist builder register {builder} --mandatory-features {feature}`"
    )]
    Never {
        /// The feature.
        feature: String,
        /// The builder.
        builder: String,
    },
    /// A feature that this builder lacks.
    #[error("the derivation asks for the feature {feature}; builder {builder} has {has}")]
    Lacks {
        /// The feature.
        feature: String,
        /// The builder.
        builder: String,
        /// What it has.
        has: String,
    },
    /// The store is another one.
    #[error("the store is {store} (here: {here}); external builds of machinist are for {STORE}")]
    Store {
        /// As the build sees it.
        store: String,
        /// Where it is.
        here: String,
    },
    /// Something in the file is not what it should be.
    #[error("{what} cannot be {value:?}")]
    Odd {
        /// The field.
        what: &'static str,
        /// What it has.
        value: String,
    },
}

impl Asked {
    /// Completes Nix's description by what the derivation's attributes say.
    #[must_use]
    pub fn new(build: Build) -> Self {
        let attributes = Attributes::read(&build);
        Self {
            features: attributes.features,
            fixed: attributes.fixed,
            name: attributes.name,
            build,
        }
    }

    /// Whether `builder` can try it, as far as that is known before its machine runs.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self, builder: &str) -> Result<(), Refusal> {
        let build = &self.build;
        if build.version != VERSION {
            return Err(Refusal::Version(build.version));
        }
        if build.store_dir != STORE || build.real_store_dir != STORE {
            return Err(Refusal::Store {
                store: build.store_dir.clone(),
                here: build.real_store_dir.clone(),
            });
        }
        if let Some(feature) = NEVER.iter().find(|it| self.features.contains(**it)) {
            return Err(Refusal::Never {
                feature: (*feature).to_owned(),
                builder: builder.to_owned(),
            });
        }
        let paths = build.input_paths.iter().chain(build.outputs.values());
        if let Some(path) = paths.into_iter().find(|path| !is_store_path(path)) {
            return Err(odd("a path", path));
        }
        let directory = &build.tmp_dir_in_sandbox;
        if !is_plain_directory(directory) {
            return Err(odd("tmpDirInSandbox", directory));
        }
        let env = build.env.iter().flat_map(|(name, value)| [name, value]);
        let words = build.args.iter().chain([&build.builder]).chain(env);
        match words.into_iter().find(|word| word.contains('\0')) {
            Some(word) => Err(odd("a word", word)),
            None => Ok(()),
        }
    }

    /// Whether a machine with these features can build it.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_features(&self, builder: &str, has: &[String]) -> Result<(), Refusal> {
        match self.features.iter().find(|it| !has.contains(it)) {
            Some(feature) => Err(Refusal::Lacks {
                feature: feature.clone(),
                builder: builder.to_owned(),
                has: has.join(", "),
            }),
            None => Ok(()),
        }
    }
}

fn odd(what: &'static str, value: &str) -> Refusal {
    Refusal::Odd {
        what,
        value: value.to_owned(),
    }
}

/// What of a derivation's attributes is in neither place: some are in the environment, those of a
/// structured one in a file.
struct Attributes {
    features: BTreeSet<String>,
    fixed: Option<Fixed>,
    name: String,
}

impl Attributes {
    fn read(build: &Build) -> Self {
        let structured = build
            .env
            .get("NIX_ATTRS_JSON_FILE")
            .and_then(|file| Path::new(file).file_name())
            .and_then(|name| std::fs::read(build.tmp_dir.join(name)).ok())
            .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        match structured {
            Some(attributes) => {
                let features = attributes["requiredSystemFeatures"].as_array();
                let words = features.into_iter().flatten();
                let word = |name: &str| attributes[name].as_str().unwrap_or_default();
                Self {
                    features: words
                        .filter_map(|it| it.as_str().map(str::to_owned))
                        .collect(),
                    fixed: fixed(word),
                    name: word("name").to_owned(),
                }
            }
            None => {
                let word = |name: &str| build.env.get(name).map_or("", String::as_str);
                let features = word("requiredSystemFeatures").split_whitespace();
                Self {
                    features: features.map(str::to_owned).collect(),
                    fixed: fixed(word),
                    name: word("name").to_owned(),
                }
            }
        }
    }
}

fn fixed<'a>(word: impl Fn(&str) -> &'a str) -> Option<Fixed> {
    let function = word("outputHashAlgo");
    Fixed::new(word("outputHash"), function, word("outputHashMode"))
}

/// Whether it is a path of the store's top level, and nothing that a shell or a table of mounts would
/// take for something else.
pub(super) fn is_store_path(path: &str) -> bool {
    let Some(base) = path
        .strip_prefix(STORE)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return false;
    };
    let Some((hash, name)) = base.split_once('-') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    hash.len() == HASH
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        && (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(plain)
}

fn is_plain_directory(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    path.len() > 1 && path.starts_with('/') && path.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(change: impl FnOnce(&mut Build)) -> Asked {
        let mut build: Build = serde_json::from_value(json!({
            "version": 1,
            "builder": "/bin/sh",
            "args": ["-c", "true"],
            "env": { "name": "a", "requiredSystemFeatures": "kvm big-parallel" },
            "topTmpDir": "/tmp/top",
            "tmpDir": "/tmp/top/build",
            "tmpDirInSandbox": "/build",
            "storeDir": "/nix/store",
            "realStoreDir": "/nix/store",
            "system": "x86_64-linux",
            "inputPaths": ["/nix/store/dxan14nqxwpymw6wgjqdfp168mph2bma-a"],
            "outputs": { "out": "/nix/store/siiimpmrd1nqz3bfmrgv7za0dlg8clnx-b" },
        }))
        .unwrap();
        change(&mut build);
        Asked::new(build)
    }

    #[test]
    fn what_can_be_built() {
        let asked = build(|_| {});
        assert_eq!(asked.check("b"), Ok(()));
        assert_eq!((asked.name.as_str(), &asked.fixed), ("a", &None));
        let has = ["big-parallel".to_owned()];
        let refused = asked.check_features("b", &has).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the derivation asks for the feature kvm; builder b has big-parallel"
        );
        let has = ["big-parallel".to_owned(), "kvm".to_owned()];
        assert_eq!(asked.check_features("b", &has), Ok(()));
    }

    #[test]
    fn what_cannot() {
        let said = |change: fn(&mut Build)| build(change).check("b").unwrap_err().to_string();
        let uid_range = said(|build| {
            let features = "kvm uid-range".to_owned();
            build.env.insert("requiredSystemFeatures".into(), features);
        });
        assert!(
            uid_range.contains("`machinist builder register b --mandatory-features uid-range`"),
            "{uid_range}"
        );
        assert!(said(|build| build.version = 2).contains("version 2"));
        assert!(
            said(|build| build.real_store_dir = "/x/nix/store".into()).contains("/x/nix/store")
        );
        assert!(said(|build| build.tmp_dir_in_sandbox = "/a b".into()).contains("/a b"));
        assert!(said(|build| build.args.push("a\0b".into())).contains("a word"));
        for path in [
            "/nix/store/short-a",
            "/nix/store/dxan14nqxwpymw6wgjqdfp168mph2bma-a b",
            "/nix/store/dxan14nqxwpymw6wgjqdfp168mph2bma-a/b",
            "/nix/store/dxan14nqxwpymw6wgjqdfp168mph2bma",
            "/nix/store/../etc/passwd-aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "/etc/passwd",
        ] {
            assert!(!is_store_path(path), "{path}");
        }
    }

    #[test]
    fn structured_attributes_are_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let text = json!({
            "name": "s", "requiredSystemFeatures": ["uid-range"],
            "outputHash": "0".repeat(64), "outputHashAlgo": "sha256",
        });
        std::fs::write(directory.path().join(".attrs.json"), text.to_string()).unwrap();
        let asked = build(|build| {
            let file = "/build/.attrs.json".to_owned();
            build.env = [("NIX_ATTRS_JSON_FILE".to_owned(), file)].into();
            build.tmp_dir = directory.path().to_owned();
        });
        assert!(asked.fixed.is_some() && asked.name == "s");
        assert!(matches!(asked.check("b"), Err(Refusal::Never { .. })));
    }
}
