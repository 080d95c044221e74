//! Devices of the host in containers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use machinist_tests::{Bench, Command, Need};

use crate::Case;
use crate::labs::IMAGE;

pub const CASES: &[Case] = &[
    Case {
        name: "devices::a_file_system_in_user_space",
        needs: &[Need::Container],
        run: fuse,
    },
    Case {
        name: "devices::of_the_container_device_interface",
        needs: &[Need::Container],
        run: cdi,
    },
    Case {
        name: "devices::that_cannot_be_had",
        needs: &[Need::Container],
        run: missing,
    },
];

/// It takes an open /dev/fuse to serve a file system.
fn fuse(bench: &Bench) -> Result<()> {
    bench.write(
        "lab.toml",
        r#"
[machine.user]
image = "debian:bookworm"
packages = ["bindfs"]
devices = ["/dev/fuse"]
[[test]]
name = "fuse"
steps = [
  { machine = "user", run = "mkdir /a /b; echo through > /a/file; bindfs /a /b" },
  { machine = "user", run = "stat -fc %T /b; cat /b/file", stdout = { matches = "^fuseblk|^fuse" } },
  { machine = "user", run = "cat /b/file", stdout = { equals = "through" } },
  { machine = "user", run = "umount /b" },
]
"#,
    )?;
    bench
        .machinist(&["show", "fuse"])
        .run()?
        .exits(0)?
        .says("which only a container has")?
        .says("user may use /dev/fuse")?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    Ok(())
}

const CDI_LAB: &str = r#"
[machine.user]
image = "small"
cdi = ["machinist.example/probe=one"]
env = { OWN = "lab" }
[[test]]
name = "cdi"
steps = [
  { machine = "user", run = "test -c /dev/probe && echo x > /dev/probe && stat -c %t:%T /dev/probe", stdout = { equals = "1:3" } },
  { machine = "user", run = "cat /etc/probe.conf; ! touch /etc/probe.conf 2>/dev/null", stdout = { equals = "from the host" } },
  { machine = "user", run = "echo $SHARED $OF_DEVICE $OWN", stdout = { equals = "all one lab" } },
  { machine = "user", run = "tr '\\0' '\\n' < /proc/1/environ", stdout = { contains = "OF_DEVICE=one" } },
  { machine = "user", run = "readlink /opt/probe/link.so", stdout = { equals = "libprobe.so.1" } },
  { machine = "user", run = "systemctl is-active machinist-libraries; ldconfig -p", stdout = { contains = "/opt/probe/" }, status = 0 },
]
"#;

/// A device node under another name, a file, variables, and what hooks ask for.
fn cdi(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &format!("{IMAGE}{CDI_LAB}"))?;
    let config = bench.write("probe.conf", "from the host\n")?;
    let library = a_library()?;
    let spec = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": "machinist.example/probe",
        "devices": [{ "name": "one", "containerEdits": {
            "env": ["OF_DEVICE=one"],
            "deviceNodes": [{ "path": "/dev/probe", "hostPath": "/dev/null" }],
        }}],
        "containerEdits": {
            "env": ["SHARED=all", "OWN=device"],
            "mounts": [
                { "hostPath": config, "containerPath": "/etc/probe.conf", "options": ["ro", "bind"] },
                { "hostPath": library, "containerPath": "/opt/probe/libprobe.so.1", "options": ["ro"] },
            ],
            "hooks": [
                hook(&["nvidia-cdi-hook", "update-ldcache", "--folder", "/opt/probe"]),
                hook(&["nvidia-cdi-hook", "create-symlinks", "--link", "libprobe.so.1::/opt/probe/link.so"]),
                hook(&["somebodys-hook", "frobnicate"]),
            ],
        },
    });
    write_spec(bench, "probe.json", &spec.to_string())?;
    with_cdi(bench, &["test"])
        .run()?
        .exits(0)?
        .complains("a hook of a CDI device is not run")?
        .complains("frobnicate")?;
    Ok(())
}

fn hook(args: &[&str]) -> serde_json::Value {
    serde_json::json!({ "hookName": "createContainer", "path": "/nowhere/hook", "args": args })
}

/// Any shared library of the host.
fn a_library() -> Result<PathBuf> {
    let folders = [
        "/lib/x86_64-linux-gnu",
        "/lib/aarch64-linux-gnu",
        "/lib64",
        "/lib",
    ];
    let libraries = folders.map(|folder| Path::new(folder).join("libm.so.6"));
    let found = libraries.into_iter().find(|path| path.exists());
    Ok(found.context("the host has no libm")?.canonicalize()?)
}

fn write_spec(bench: &Bench, name: &str, text: &str) -> Result<()> {
    let folder = bench.path().join("cdi");
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(name), text)?)
}

fn with_cdi(bench: &Bench, args: &[&str]) -> Command {
    let folder = bench.path().join("cdi");
    bench.machinist(args).env("MACHINIST_CDI_PATH", folder)
}

/// Told before anything boots, and as what the host lacks.
fn missing(bench: &Bench) -> Result<()> {
    let yaml = |name: &str| {
        format!("cdiVersion: 0.6.0\nkind: machinist.example/probe\ndevices:\n- name: {name}\n")
    };
    for (file, name) in [("a.yaml", "one"), ("b.yaml", "one"), ("c.yaml", "2")] {
        write_spec(bench, file, &yaml(name))?;
    }
    for (asks, told) in [
        (
            "devices = ['/dev/nowhere']",
            "user: there is no device /dev/nowhere",
        ),
        (
            "cdi = ['machinist.example/probe=three']",
            "there are machinist.example/probe=2",
        ),
        (
            "cdi = ['machinist.example/probe=one']",
            "several CDI files have the device",
        ),
        ("gpu = 'nvidia'", "there is no NVIDIA device"),
    ] {
        if asks.starts_with("gpu") && Path::new("/dev/nvidia0").exists() {
            continue;
        }
        let machine = format!("[machine.user]\nimage = 'small'\n{asks}\n");
        let test = "[[test]]\nname = 'any'\nsteps = [{ machine = 'user', run = 'true' }]\n";
        bench.write("lab.toml", &format!("{IMAGE}{machine}{test}"))?;
        with_cdi(bench, &["test"])
            .run()?
            .exits(96)?
            .complains(told)?;
        with_cdi(bench, &["up"]).run()?.exits(96)?.complains(told)?;
    }
    Ok(())
}
