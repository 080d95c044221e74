//! Going back in time, and machines made of others: labs under load, containers beside VMs, clones,
//! and pytest.

use std::path::Path;

use anyhow::Result;
use machinist_tests::{Bench, Need, Ran, python_with_pytest};

use crate::Case;
use crate::labs::IMAGE;

pub const CASES: &[Case] = &[
    Case {
        name: "checkpoints::under_load",
        needs: &[Need::Vm, Need::Python],
        run: |bench| test(bench, "load", include_str!("checkpoints/load.py")),
    },
    Case {
        name: "checkpoints::killed_while_a_spare_waits",
        needs: &[Need::Vm, Need::Python],
        run: killed,
    },
    Case {
        name: "checkpoints::clones_are_themselves",
        needs: &[Need::Vm, Need::Python, Need::Ssh],
        run: |bench| test(bench, "clones", include_str!("checkpoints/clones.py")),
    },
    Case {
        name: "checkpoints::containers_start_afresh_with_their_files",
        needs: &[Need::Vm, Need::Container, Need::Python],
        run: |bench| {
            test(
                bench,
                "containers",
                include_str!("checkpoints/containers.py"),
            )
        },
    },
    Case {
        name: "checkpoints::a_container_that_says_nothing_is_refused",
        needs: &[Need::Container, Need::Python],
        run: |bench| test(bench, "refused", include_str!("checkpoints/refused.py")),
    },
    Case {
        name: "checkpoints::each_test_of_pytest_finds_the_lab_as_it_was",
        needs: &[Need::Vm, Need::Container, Need::Python, Need::Pytest],
        run: pytest,
    },
];

/// One lab for all: its VMs boot once.
const LAB: &str = r#"
[vlan.1]
[machine.vm]
kind = "vm"
image = "small"
memory = "256M"
disks = [{ size = "64M" }]
count = 2
[machine.box]
kind = "container"
image = "small"
checkpoint = "restart"
volumes = ["shared:/shared:rw"]
[machine.other]
kind = "container"
image = "small"
[[test]]
name = "load"
script = "load.py"
machines = ["vm-1", "vm-2"]
[[test]]
name = "killed"
script = "killed.py"
machines = ["vm-1"]
[[test]]
name = "clones"
script = "clones.py"
machines = ["vm-1", "vm-2"]
[[test]]
name = "containers"
script = "containers.py"
machines = ["vm-1", "box"]
[[test]]
name = "refused"
script = "refused.py"
machines = ["box", "other"]
[[test]]
name = "by_pytest"
script = "by_pytest.py"
machines = ["vm-1", "box"]
"#;

/// Runs one of the lab's tests, which passes.
fn test(bench: &Bench, name: &str, script: &str) -> Result<()> {
    start(bench, name, script)?.exits(0)?;
    Ok(())
}

/// Runs one of the lab's tests.
fn start(bench: &Bench, name: &str, script: &str) -> Result<Ran> {
    bench.write("lab.toml", &format!("{IMAGE}{LAB}"))?;
    bench.write(&format!("{name}.py"), script)?;
    std::fs::create_dir(bench.path().join("shared"))?;
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    bench
        .machinist(&["test", name])
        .env("PACKAGES", &packages)
        .env("PYTEST", python_with_pytest().unwrap_or_default())
        .run()
}

fn killed(bench: &Bench) -> Result<()> {
    let ran = start(bench, "killed", include_str!("checkpoints/killed.py"))?;
    anyhow::ensure!(bench.path().join("waits").exists(), "{ran}");
    bench.nothing_left()
}

fn pytest(bench: &Bench) -> Result<()> {
    bench.write("test_module.py", include_str!("checkpoints/test_module.py"))?;
    test(bench, "by_pytest", include_str!("checkpoints/by_pytest.py"))
}
