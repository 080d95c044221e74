//! What of the host goes into a snapshot's key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::known::{Known, write_beside};
use super::parts::Parts;
use crate::path_error::PathError;
use crate::verdict::Accelerator;

/// What was found out about the host, for as long as it does not boot again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    boot_id: String,
    /// Of the processors' time stamp counter, in kHz. 0: there is none.
    tsc: u64,
}

/// The host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) boot_id: String,
    /// Of the processors' time stamp counter, in kHz; 0 where there is none.
    tsc: u64,
}

impl Host {
    /// This host. `dir` is where it is remembered.
    pub(crate) fn look(dir: Option<&Path>) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let file = dir.map(|dir| dir.join("host.json"));
        let known = file.as_ref().and_then(|file| {
            let text = fs::read(file).ok()?;
            serde_json::from_slice::<Record>(&text).ok()
        });
        if let Some(known) = &known
            && known.boot_id == boot_id
        {
            return Self {
                boot_id,
                tsc: known.tsc,
            };
        }
        let tsc = settle(measure(), known.map(|known| known.tsc));
        let record = Record {
            boot_id: boot_id.clone(),
            tsc,
        };
        if let Some(file) = file {
            // Who cannot remember measures again.
            drop(write_beside(&file, &record));
        }
        Self { boot_id, tsc }
    }

    /// Adds what a VM's state depends on beside its own parts.
    pub(crate) fn add(&self, accelerator: Accelerator, parts: &mut Parts) {
        // An emulated guest's counter is the host's, and the guest has measured how fast it goes;
        // one under KVM is told.
        parts.add("tsc", format!("{} kHz", self.tsc));
        if accelerator == Accelerator::Kvm {
            parts.add("processor", processor());
            let kernel = rustix::system::uname();
            parts.add("host kernel", kernel.release().to_string_lossy());
        }
    }
}

/// The counter's rate, in kHz. Two measurements of one host differ by some millionths.
fn measure() -> u64 {
    let Some(begin) = instant() else { return 0 };
    // Not to wait for something: this is the length of what is measured.
    std::thread::sleep(Duration::from_millis(20));
    let Some(end) = instant() else { return 0 };
    let nanos = u128::from(end.0.saturating_sub(begin.0)).max(1);
    let ticks = u128::from(end.1.saturating_sub(begin.1));
    u64::try_from(ticks * 1_000_000 / nanos).unwrap_or_default()
}

/// The kernel's clock in nanoseconds, and the counter at the same moment: of several pairs, that
/// which took the least time.
fn instant() -> Option<(u64, u64)> {
    let clock = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
        u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(now.tv_nsec).unwrap_or_default()
    };
    let pair = || {
        let before = clock();
        let ticks = machinist_sys::tsc::ticks()?;
        let after = clock();
        Some((after - before, (before + (after - before) / 2, ticks)))
    };
    (0..16).filter_map(|_| pair()).min().map(|(_, pair)| pair)
}

/// The rate that counts. One that differs from what was measured before by no more than measuring
/// is inexact is that: a snapshot survives a restart of its host.
fn settle(measured: u64, before: Option<u64>) -> u64 {
    match before {
        Some(before) if measured.abs_diff(before) <= before / 10_000 => before,
        // To 100 kHz: hosts that are alike shall have the same rate.
        _ => (measured + 50) / 100 * 100,
    }
}

/// What programs under `-cpu host` see of the processor.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let wanted = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        matches!(
            name,
            "vendor_id"
                | "cpu family"
                | "model"
                | "model name"
                | "stepping"
                | "microcode"
                | "flags"
        )
    };
    let lines = first.lines().filter(wanted);
    let values = lines.filter_map(|line| Some(line.split_once(':')?.1.trim()));
    values.collect::<Vec<_>>().join(", ")
}

/// What a QEMU is: its version and the hash of its program, which says more. A wrapper's version is
/// that of what it runs.
pub(crate) fn qemu(program: &Path, known: &Known) -> Result<[String; 2], PathError> {
    let path = fs::canonicalize(program).unwrap_or_else(|_| PathBuf::from(program));
    let version = known.note(&path, "version", &|_| {
        let output = Command::new(program).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    })?;
    Ok([version, known.digest(&path)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_while_it_is_the_same_but_for_noise() {
        assert_eq!(settle(2_299_999, None), 2_300_000);
        assert_eq!(settle(2_300_149, Some(2_300_000)), 2_300_000);
        assert_eq!(settle(2_301_000, Some(2_300_000)), 2_301_000);
        assert_eq!(settle(0, None), 0);
    }

    #[test]
    fn a_host_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let first = Host::look(Some(dir.path()));
        assert_eq!(Host::look(Some(dir.path())).tsc, first.tsc);
        let again = Host::look(None).tsc;
        assert!(again.abs_diff(first.tsc) <= first.tsc / 2_000, "{again}");
    }
}
