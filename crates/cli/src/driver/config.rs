//! The JSON file of `--config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// What it says. Keys that we do not know are those of newer versions of NixOS: they are skipped.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// The VMs. The keys are names for people, as are those of the containers.
    #[serde(default)]
    pub vms: BTreeMap<String, Machine>,
    /// The containers.
    #[serde(default)]
    pub containers: BTreeMap<String, Machine>,
    /// The numbers of the VLANs.
    #[serde(default)]
    pub vlans: Vec<u32>,
    /// Seconds that the whole test may take.
    #[serde(default)]
    global_timeout: Option<f64>,
    /// Say how to log in by SSH.
    #[serde(default)]
    pub enable_ssh_backdoor: bool,
    /// The test script. A relative path is relative to where we were called.
    #[serde(default)]
    pub test_script: Option<PathBuf>,
    /// Programs that show displays.
    #[serde(default)]
    display_viewers: Option<Value>,
}

/// A machine.
#[derive(Debug, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its start script.
    pub start_script: String,
    #[serde(default)]
    display_targets: Option<Value>,
    #[serde(default)]
    display_exporters: Option<Value>,
}

/// A file could not be read.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is none.
    #[error("cannot read {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{} is not a configuration of a test driver", path.display())]
    Json {
        /// Where.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A value is out of range.
    #[error("{}: global_timeout cannot be {seconds} seconds", path.display())]
    Timeout {
        /// Where.
        path: PathBuf,
        /// The value.
        seconds: f64,
    },
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = serde_json::from_slice(&text).map_err(|source| ConfigError::Json {
            path: path.to_owned(),
            source,
        })?;
        if let Some(seconds) = config.global_timeout
            && Duration::try_from_secs_f64(seconds).is_err()
        {
            let path = path.to_owned();
            return Err(ConfigError::Timeout { path, seconds });
        }
        Ok(config)
    }

    /// How long the whole test may take.
    pub fn global_timeout(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.global_timeout?).ok()
    }

    /// What it says of a machine's displays, as it stands there; `null` where that is nothing.
    pub fn displays(&self, machine: &Machine) -> Value {
        let mut displays = Map::new();
        let targets = machine.display_targets.as_ref();
        if targets.is_none_or(|targets| targets.as_array().is_some_and(Vec::is_empty)) {
            return Value::Null;
        }
        for (key, value) in [
            ("display_targets", targets),
            ("display_exporters", machine.display_exporters.as_ref()),
            ("display_viewers", self.display_viewers.as_ref()),
        ] {
            if let Some(value) = value {
                displays.insert(key.to_owned(), value.clone());
            }
        }
        Value::Object(displays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn all_that_there_can_be() {
        let config = read(
            r#"{"vms": {"a": {"name": "a", "start_script": "/x/run-a-vm", "new": 1}},
                "containers": {"c": {"name": "c", "start_script": "/x/run-c-nspawn",
                    "display_targets": [{"backend": "x11"}],
                    "display_exporters": {"x11": {"kind": "x11-vnc"}}}},
                "vlans": [1, 2], "global_timeout": 3600.0, "enable_ssh_backdoor": true,
                "test_script": "/t", "display_viewers": {"vnc": {"kind": "vnc"}}, "new": {}}"#,
        )
        .unwrap();
        assert_eq!(config.vms["a"].start_script, "/x/run-a-vm");
        assert_eq!(config.global_timeout(), Some(Duration::from_secs(3600)));
        assert!(config.enable_ssh_backdoor && config.vlans == [1, 2]);
        let displays = config.displays(&config.containers["c"]);
        assert_eq!(displays["display_targets"][0]["backend"], "x11");
        assert_eq!(displays["display_viewers"]["vnc"]["kind"], "vnc");
        assert_eq!(config.displays(&config.vms["a"]), Value::Null);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wrong = |text| {
            let error = read(text).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.unwrap_or_else(|| error.to_string())
        };
        assert!(wrong("{\n  \"vms\": 1}").contains("line 2"));
        assert!(wrong(r#"{"vms": {"a": {"name": "a"}}}"#).contains("start_script"));
        assert!(wrong(r#"{"vlans": [-1]}"#).contains("-1"));
        assert!(wrong(r#"{"global_timeout": -1}"#).contains("cannot be -1 seconds"));
        assert!(matches!(
            Config::read(Path::new("/nonexistent")),
            Err(ConfigError::Read { .. })
        ));
    }
}
