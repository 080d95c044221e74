//! A virtual machine as one makes it by hand: Debian's kernel, busybox, and QEMU.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

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
    for (number, module) in in_order(&dependencies, modules)?.into_iter().enumerate() {
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

/// The modules and what they need, each after what it needs itself.
fn in_order<'a>(dependencies: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut order = Vec::new();
    for name in wanted {
        let line = dependencies.lines().find_map(|line| {
            let (path, needs) = line.split_once(':')?;
            let file = path.rsplit('/').next()?;
            (file.strip_suffix(".ko") == Some(name)).then_some((path, needs))
        });
        let (path, needs) = line.with_context(|| format!("the kernel has no module {name}"))?;
        // modules.dep names first what is to be loaded last.
        for module in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    Ok(order)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache.ko kernel/fs/netfs.ko\n\
             kernel/fs/netfs.ko:\nkernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/virtio.ko\n";
        assert_eq!(
            in_order(dependencies, &["9p", "9pnet_virtio"]).unwrap(),
            [
                "kernel/fs/netfs.ko",
                "kernel/fs/fscache.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/virtio.ko",
                "kernel/net/9p/9pnet_virtio.ko",
            ]
        );
        assert!(in_order(dependencies, &["erofs"]).is_err());
    }
}
