//! What a VM's start script is given, made by pure functions.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::super::ScriptSpec;
use crate::tunables;

/// The name of the agent's port, and the id of its device.
pub(super) const AGENT_PORT: &str = crate::qemu::AGENT_PORT;
pub(super) const AGENT_DEVICE: &str = "machinist-agent";

/// Bytes that a Unix socket's path can have.
const SOCKET_PATH: usize = 107;

/// The sockets between a VM and us, in its state directory, under the names that NixOS' driver gives
/// them.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    dir: PathBuf,
}

pub(super) const QMP: &str = "qmp";
pub(super) const MONITOR: &str = "monitor";
pub(super) const SHELL: &str = "shell";
/// Ours alone.
pub(super) const AGENT: &str = "agent";

impl Sockets {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// A socket, for QEMU: by its absolute path, or, where that is too long for the kernel, by its
    /// name alone, which is right in the script's working directory.
    fn named(&self, name: &str) -> OsString {
        let path = self.dir.join(name);
        let path = if path.as_os_str().len() > SOCKET_PATH {
            PathBuf::from(name)
        } else {
            path
        };
        // Commas separate options; one in a value is written twice.
        let mut value = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if byte == b',' {
                value.push(b',');
            }
            value.push(byte);
        }
        OsString::from_vec(value)
    }
}

/// The arguments that are added to a script's own: first those of NixOS' contract, in its order,
/// then a port for our agent.
pub(super) fn arguments(spec: &ScriptSpec, may_restart: bool) -> Vec<OsString> {
    let sockets = Sockets::new(&spec.state_dir);
    let join = |before: &str, name: &str, after: &str| {
        let mut text = OsString::from(before);
        text.push(sockets.named(name));
        text.push(after);
        text
    };
    let mut argv: Vec<OsString> = vec![
        "-qmp".into(),
        join("unix:", QMP, ",server=on,wait=off"),
        "-monitor".into(),
        join("unix:", MONITOR, ""),
        "-chardev".into(),
        join("socket,id=shell,path=", SHELL, ""),
    ];
    let mut add = |words: &[&str]| argv.extend(words.iter().map(OsString::from));
    add(&["-device", "virtio-serial"]);
    // In the guest this is /dev/hvc0.
    add(&["-device", "virtconsole,chardev=shell"]);
    add(&["-device", "virtio-rng-pci"]);
    add(&["-serial", "stdio"]);
    if !may_restart {
        add(&["-no-reboot"]);
    }
    if !spec.display {
        add(&["-nographic"]);
    }
    argv.push("-chardev".into());
    argv.push(join(
        &format!("socket,id={AGENT_DEVICE},path="),
        AGENT,
        ",server=on,wait=off",
    ));
    argv.push("-device".into());
    let port = format!("virtserialport,chardev={AGENT_DEVICE},id={AGENT_DEVICE},name={AGENT_PORT}");
    argv.push(port.into());
    argv
}

/// The variables that a script does not find as they are in our own environment. Those without a
/// value are not there at all.
pub(super) fn environment(spec: &ScriptSpec) -> Vec<(String, Option<OsString>)> {
    let text = |name: &str, value: &OsStr| (name.to_owned(), Some(value.to_owned()));
    // Where tests write the firmware's variables, too.
    let mut variables = vec![text("NIX_EFI_VARS", efi_vars(spec).as_os_str())];
    let changed = spec.variables.changed().into_iter();
    variables.extend(changed.map(|(name, value)| (name, value.map(OsString::from))));
    variables.extend([
        text("TMPDIR", spec.state_dir.as_os_str()),
        text("SHARED_DIR", spec.shared_dir.as_os_str()),
        text("USE_TMPDIR", OsStr::new("1")),
    ]);
    // Whether it emulates is the script's choice; for all else this is nothing.
    let own = spec.variables.get(tunables::NAME);
    let tuned = tunables::value(own.as_deref());
    variables.push((tunables::NAME.to_owned(), Some(tuned.into())));
    for (vlan, socket) in &spec.vlan_sockets {
        variables.push(text(&format!("QEMU_VDE_SOCKET_{vlan}"), socket.as_os_str()));
    }
    variables
}

/// Where the script keeps the variables of the VM's firmware, if it has such.
fn efi_vars(spec: &ScriptSpec) -> PathBuf {
    spec.state_dir.join(format!("{}-efi-vars.fd", spec.name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::script::ScriptKind;

    fn spec(dir: &str) -> ScriptSpec {
        ScriptSpec {
            name: "web".into(),
            kind: ScriptKind::Vm,
            command: "/bin/run-web-vm".into(),
            state_dir: dir.into(),
            shared_dir: "/tmp/shared-xchg".into(),
            keep_state: false,
            vlan_sockets: [(1, "/tmp/vde1.ctl".into())].into(),
            display: false,
            start_within: Duration::from_secs(1),
            warm: false,
            variables: std::sync::Arc::default(),
        }
    }

    fn text(spec: &ScriptSpec, may_restart: bool) -> String {
        let words = arguments(spec, may_restart);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn the_contract() {
        insta::assert_snapshot!(text(&spec("/tmp/vm-state-web"), false), @r"
        -qmp unix:/tmp/vm-state-web/qmp,server=on,wait=off
        -monitor unix:/tmp/vm-state-web/monitor
        -chardev socket,id=shell,path=/tmp/vm-state-web/shell
        -device virtio-serial
        -device virtconsole,chardev=shell
        -device virtio-rng-pci
        -serial stdio
        -no-reboot
        -nographic
        -chardev socket,id=machinist-agent,path=/tmp/vm-state-web/agent,server=on,wait=off
        -device virtserialport,chardev=machinist-agent,id=machinist-agent,name=org.machinist.agent.0
        ");
        let free = ScriptSpec {
            display: true,
            ..spec("/tmp/vm-state-web")
        };
        let text = text(&free, true);
        assert!(!text.contains("-no-reboot") && !text.contains("-nographic"));
        let disk = [("NIX_DISK_IMAGE".to_owned(), Some("/x".to_owned()))];
        free.variables.change(disk.into());
        let names: Vec<_> = environment(&free).into_iter().map(|it| it.0).collect();
        assert_eq!(
            names,
            [
                "NIX_EFI_VARS",
                "NIX_DISK_IMAGE",
                "TMPDIR",
                "SHARED_DIR",
                "USE_TMPDIR",
                "GLIBC_TUNABLES",
                "QEMU_VDE_SOCKET_1"
            ]
        );
    }

    #[test]
    fn a_long_path_is_a_short_name_and_a_comma_is_one() {
        let long = format!("/tmp/{}", "x".repeat(120));
        assert!(text(&spec(&long), true).contains("-monitor unix:monitor\n"));
        assert!(text(&spec("/tmp/a,b"), true).contains("unix:/tmp/a,,b/qmp,server"));
    }
}
