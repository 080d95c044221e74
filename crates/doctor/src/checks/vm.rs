//! What tests with VMs need.

use std::path::Path;

#[cfg(target_os = "linux")]
use machinist_sys::device::try_kvm;

use crate::finding::Finding;
use crate::host::{Host, SOON};

/// The oldest QEMU that machines of machinist run on.
const QEMU: [u32; 2] = [7, 2];
/// A test with one small VM, in KiB.
const MEMORY: u64 = 1 << 20;

pub(crate) fn check(host: &Host) -> Vec<Finding> {
    vec![qemu(host), kvm(host), memory(host)]
}

fn qemu(host: &Host) -> Finding {
    const ID: &str = "vm.qemu";
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    let looked = format!("{program} --version");
    let said = match host.ask(&program, ["--version"], SOON) {
        Ok(said) => said,
        Err(error) => {
            return Finding::failure(ID, &looked, error.to_string())
                .why("VMs run in QEMU")
                .mend("apt-get install qemu-system-x86 (on Debian 12 from bookworm-backports)");
        }
    };
    let line = said.stdout.lines().next().unwrap_or_default().to_owned();
    match qemu_version(&line) {
        Some(version) if version < QEMU => Finding::failure(ID, &looked, line)
            .why(format!(
                "machinist needs QEMU {}.{} or newer",
                QEMU[0], QEMU[1]
            ))
            .mend("upgrade it: on Debian 12 from bookworm-backports"),
        Some(_) => Finding::fine(ID, &looked, line),
        None => Finding::unknown(ID, &looked, line),
    }
}

/// Of `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)`.
fn qemu_version(line: &str) -> Option<[u32; 2]> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| *word != "version");
    let mut parts = words.nth(1)?.split('.').map(str::parse::<u32>);
    Some([parts.next()?.ok()?, parts.next()?.ok()?])
}

fn kvm(host: &Host) -> Finding {
    const ID: &str = "vm.kvm";
    const DEVICE: &str = "/dev/kvm";
    const SLOW: &str = "VMs are emulated, ten times slower";
    if let Some((why, file)) = &host.known.kvm_condemned {
        return Finding::warning(ID, DEVICE, format!("a VM has failed by it: {why}"))
            .why(SLOW)
            .mend("a host with KVM, or one that lets its guests have it")
            .mend(format!(
                "remembered until the next boot; where it works by now: rm {}",
                file.display()
            ));
    }
    match try_kvm(Path::new(DEVICE)) {
        Ok(()) => Finding::fine(ID, DEVICE, "it made a VM"),
        Err(error) => {
            let finding = Finding::warning(ID, DEVICE, error.to_string()).why(SLOW);
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    finding.mend("usermod --append --groups kvm $USER, and log in again")
                }
                std::io::ErrorKind::NotFound => finding.mend(
                    "modprobe kvm_intel or kvm_amd; in a VM: nested virtualization, on its host",
                ),
                _ => finding.mend("look at dmesg for kvm"),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn try_kvm(_device: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn memory(host: &Host) -> Finding {
    const ID: &str = "vm.memory";
    const FILE: &str = "/proc/meminfo";
    let text = host.text(FILE).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
    match free {
        None => Finding::unknown(ID, FILE, "it does not tell"),
        Some(free) if free < MEMORY => {
            Finding::warning(ID, FILE, format!("{} MiB are free", free >> 10))
                .why("a VM has 512 MiB where nobody says otherwise")
                .mend("end something, or give machines less: memory = \"256M\"")
        }
        Some(free) => Finding::fine(ID, FILE, format!("{} MiB are free", free >> 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(
            qemu_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"),
            Some([10, 0])
        );
        assert_eq!(qemu_version("QEMU emulator version 7.2.19"), Some([7, 2]));
        assert_eq!(qemu_version("something"), None);
    }
}
