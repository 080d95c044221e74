//! Going back in time: a lab of VMs under load, again and again.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::IMAGE;

pub const CASES: &[Case] = &[Case {
    name: "checkpoints::under_load_and_by_pytest",
    needs: &[Need::Vm, Need::Container, Need::Python],
    run: under_load,
}];

const LAB: &str = r#"
[vlan.1]
[machine.a]
kind = "vm"
image = "small"
memory = "256M"
disks = [{ size = "64M" }]
vlans = [1]
[machine.b]
kind = "vm"
image = "small"
memory = "256M"
vlans = [1]
[machine.box]
kind = "container"
image = "small"
[[test]]
name = "load"
script = "load.py"
machines = ["a", "b"]
[[test]]
name = "refused"
script = "refused.py"
machines = ["box"]
"#;

fn under_load(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &format!("{IMAGE}{LAB}"))?;
    bench.write("load.py", include_str!("checkpoints/load.py"))?;
    bench.write("test_module.py", include_str!("checkpoints/test_module.py"))?;
    bench.write("refused.py", include_str!("checkpoints/refused.py"))?;
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    bench
        .machinist(&["test"])
        .env("PACKAGES", &packages)
        .env("PYTEST", pytest())
        .run()?
        .exits(0)?;
    Ok(())
}

/// A Python that has pytest; empty if there is none.
fn pytest() -> &'static str {
    let has = |python: &&str| {
        let import = Command::new(python).args(["-c", "import pytest"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    found.unwrap_or_default()
}
