//! A virtual machine as one makes it by hand: Debian's kernel, busybox, and QEMU.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use machinist_tests::Modules;

use super::images::Kernel;
use crate::command::{self, command};

/// An initrd of busybox: `init` is a script for its shell, after `modules` (names without `.ko`)
/// and what they need are loaded.
pub fn initrd(place: &Path, kernel: &Kernel, modules: &[&str], init: &str) -> Result<PathBuf> {
    let stage = place.join("stage");
    for folder in ["bin", "dev", "modules", "proc", "root", "sys"] {
        let path = stage.join(folder);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    copy(&busybox()?, &stage.join("bin/busybox"))?;
    let mut script = "#!/bin/busybox sh\nexport PATH=/bin\n".to_owned();
    let dependencies = std::fs::read_to_string(kernel.modules.join("modules.dep"))
        .with_context(|| format!("no modules.dep in {}", kernel.modules.display()))?;
    let modules = Modules::find(&dependencies, modules);
    let missing = modules.missing;
    ensure!(missing.is_empty(), "the kernel has no modules {missing:?}");
    for (number, module) in modules.in_order.into_iter().enumerate() {
        copy(
            &kernel.modules.join(module),
            &stage.join(format!("modules/{number}.ko")),
        )?;
        writeln!(script, "busybox insmod /modules/{number}.ko")?;
    }
    script += init;
    let path = stage.join("init");
    std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    let made = place.join("initrd.cpio");
    let pack = format!(
        "cd {stage} && chmod 0755 init && find . | busybox cpio -o -H newc > {made}",
        stage = stage.display(),
        made = made.display(),
    );
    command::stdout(&mut command("sh", ["-c", &pack]))?;
    Ok(made)
}

/// QEMU with it, its console on the standard output.
pub fn qemu(kernel: &Kernel, initrd: &Path) -> Command {
    let mut qemu = command(
        "qemu-system-x86_64",
        ["-M", "q35", "-accel", "tcg", "-cpu", "max"],
    );
    qemu.args(["-m", "1G", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet"]);
    qemu
}

fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    found.context("no busybox (Debian: busybox-static)")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = std::fs::copy(from, to);
    copied.with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
