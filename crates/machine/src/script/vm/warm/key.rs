//! The key of a start script's snapshot: all that goes into a script before it runs.

use std::path::{Path, PathBuf};

use twox_hash::xxhash3_128;

use super::named;
use crate::error::chain;
use crate::script::ScriptSpec;
use crate::snapshot::{Parts, SnapshotStore};
use crate::verdict::Accelerator;

/// What each run gives these, and what does not change the machine.
const OF_THE_RUN: &[&str] = &[
    "TMPDIR",
    "SHARED_DIR",
    "USE_TMPDIR",
    "NIX_EFI_VARS",
    "PATH",
    "PWD",
    "HOME",
    "RANDOM",
];

/// All that goes in, in clear.
pub(super) fn parts(spec: &ScriptSpec, store: &SnapshotStore) -> Result<Parts, String> {
    let digest = |path: &Path| {
        let digest = store.known().digest(path);
        digest.map_err(|error| chain(&error))
    };
    let mut parts = Parts::default();
    parts.add("kind", "start script");
    parts.add("machine", &spec.name);
    let display = if spec.display { "window" } else { "none" };
    parts.add("display", display);
    let vlans = spec.vlan_sockets.keys().map(u32::to_string);
    parts.add("vlans", vlans.collect::<Vec<_>>().join(" "));
    let agent = xxhash3_128::Hasher::oneshot(machinist_guest::AGENT);
    parts.add("agent", format!("{agent:032x}"));
    // Which accelerator it takes, a script decides when it runs.
    store.host().add(Accelerator::Kvm, &mut parts);
    let mut text = spec.command.clone();
    for program in programs(&spec.command) {
        parts.add(format!("script {}", program.display()), digest(&program)?);
        let bytes = std::fs::read(&program).map_err(|error| error.to_string())?;
        text.push('\n');
        text += &String::from_utf8_lossy(&bytes);
    }
    parts.add("command", &spec.command);
    for path in named::files(&text) {
        parts.add(path.display().to_string(), digest(&path)?);
    }
    for name in named::variables(&text) {
        let socket = name.starts_with("QEMU_VDE_SOCKET_");
        if let Some(value) = spec.variables.get(&name)
            && !socket
            && !OF_THE_RUN.contains(&name.as_str())
        {
            parts.add(format!("${name}"), value);
        }
    }
    Ok(parts)
}

/// The programs that a command line names, which are read for what they name themselves.
fn programs(command: &str) -> Vec<PathBuf> {
    let words = command.split_whitespace().map(PathBuf::from);
    let named = words.filter(|path| path.is_absolute() && path.is_file());
    named.collect()
}
