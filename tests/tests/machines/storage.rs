//! Bulk data, and a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::{IMAGE, run};

pub const CASES: &[Case] = &[
    Case {
        name: "storage::100_mb_vm_to_container_and_back",
        needs: &[Need::Container, Need::Vm],
        run: transfer,
    },
    Case {
        name: "storage::a_full_disk_leaves_nothing_half_made",
        needs: &[Need::Container],
        run: full_disk,
    },
    Case {
        name: "storage::a_volume_that_is_not_there_is_told",
        needs: &[Need::Container],
        run: no_volume,
    },
];

/// Over the VLAN, by HTTP, each side being the server once.
fn transfer(bench: &Bench) -> Result<()> {
    let lab = r#"
[machine.c]
kind = "container"
image = "small"
[machine.v]
kind = "vm"
image = "small"
memory = "768M"

[[test]]
name = "both ways"
steps = [
  { machine = "c", wait = "unit:nginx.service" },
  { machine = "v", wait = "unit:nginx.service", timeout = "200s" },
  { machine = "c", run = "head -c 100000000 /dev/urandom > /var/www/html/f && sha256sum < /var/www/html/f > /var/www/html/sum" },
  { machine = "v", run = "curl -fsS http://c/f > /var/www/html/f && sha256sum < /var/www/html/f > /var/www/html/sum" },
  { machine = "v", run = "curl -fsS http://c/sum | cmp - /var/www/html/sum" },
  { machine = "c", run = "curl -fsS http://v/f | sha256sum | cmp - /var/www/html/sum" },
  { machine = "c", run = "curl -fsS -g 'http://[2001:db8:1::2]/sum' | cmp - /var/www/html/sum" },
]
"#;
    bench.write("lab.toml", &format!("{IMAGE}{lab}"))?;
    bench
        .machinist(&["test", "--progress", "plain", "-v"])
        .run()?
        .exits(0)?;
    Ok(())
}

/// A tiny file system for the cache.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: &Path) -> Result<Self> {
        std::fs::create_dir(at)?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m", "tiny"])
            .arg(at)
            .status()?;
        if !mount.success() {
            bail!("cannot mount a tmpfs on {}", at.display());
        }
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // The check for leftovers finds it if this fails.
        drop(Command::new("umount").arg(&self.0).status());
    }
}

fn full_disk(bench: &Bench) -> Result<()> {
    let tiny = Tiny::mount(&bench.path().join("tiny"))?;
    let ran = bench
        .machinist(&run(&[], &["true"]))
        .env("MACHINIST_CACHE", &tiny.0)
        .run()?
        .exits(125)?;
    ensure!(ran.stderr.to_lowercase().contains("space"), "{ran}");
    let list = bench
        .machinist(&["image", "list", "--format", "json"])
        .env("MACHINIST_CACHE", &tiny.0)
        .run()?
        .exits(0)?;
    ensure!(list.json()? == serde_json::json!([]), "{list}");
    Ok(())
}

/// It is told, and not that the container's network has ended with it.
fn no_volume(bench: &Bench) -> Result<()> {
    let lab = "[machine.a]\nimage = 'debian:bookworm'\nvolumes = ['nosuch:/x']\n\
               [[test]]\nname = 't'\nsteps = [{ machine = 'a', run = 'true' }]\n";
    bench.write("lab.toml", lab)?;
    for _ in 0..3 {
        let ran = bench.machinist(&["test"]).run()?.exits(105)?;
        ran.complains("cannot use the volume")?
            .complains("nosuch")?;
    }
    Ok(())
}
