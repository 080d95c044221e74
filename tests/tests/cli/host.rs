//! What the host lacks is told for what it is.

use anyhow::Result;
use machinist_tests::Bench;

use crate::LAB;

#[test]
fn who_needs_no_cache_is_not_told_that_there_is_no_place_for_one() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let program = machinist_tests::machinist();
    // An ordinary user: root has a cache without a home.
    let nobody = |words: &[&str], here: &std::path::Path| {
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program)
            .args(words)
            .current_dir(here)
            .env_remove("HOME")
            .env_remove("MACHINIST_CACHE")
            .env_remove("XDG_CACHE_HOME");
        command.output()
    };
    if !nobody(&["--version"], &bench.path())?.status.success() {
        eprintln!("skipped: this needs root, and a program that all may run");
        return Ok(());
    }
    let schema = nobody(&["schema"], &bench.path())?;
    assert!(schema.status.success(), "{schema:?}");
    let images = nobody(&["image", "list"], &bench.path())?;
    let said = String::from_utf8_lossy(&images.stderr);
    assert!(
        said.contains("HOME is not set") && said.contains("MACHINIST_CACHE"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_directory_that_is_gone_is_96_and_says_so() -> Result<()> {
    let bench = Bench::new()?;
    let program = machinist_tests::machinist().display().to_string();
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("mkdir gone; cd gone; rmdir ../gone; {program} ps"))
        .current_dir(bench.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(96), "{said}");
    assert!(
        said.contains("it has been deleted: cd to another"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_missing_tool_is_96_and_names_the_package() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    bench.write("stores.py", "")?;
    let empty = bench.path().join("empty");
    std::fs::create_dir(&empty)?;
    bench
        .machinist(&["run", "--kind", "vm", "--", "true"])
        .env("PATH", &empty)
        .run()?
        .exits(96)?
        .complains("qemu-system-x86")?;
    bench
        .machinist(&["up"])
        .env("PATH", &empty)
        .run()?
        .exits(96)?
        .complains("systemd-container")?;
    bench
        .machinist(&["show", "stores"])
        .env("PATH", &empty)
        .run()?
        .exits(0)?
        .says("would be skipped here: python3")?;
    let ran = bench
        .machinist(&["test"])
        .env("PATH", &empty)
        .run()?
        .exits(96)?;
    assert!(ran.stderr.contains("SKIP"), "{ran}");
    bench.nothing_left()
}

#[test]
fn a_missing_builder_is_told_before_anything_is_built() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let path = bench.path().join("some");
    std::fs::create_dir(&path)?;
    // Programs that are there, but not those that build images.
    for name in ["systemd-nspawn", "qemu-system-x86_64", "python3"] {
        std::os::unix::fs::symlink("/bin/true", path.join(name))?;
    }
    bench.write("stores.py", "")?;
    let cache = bench.path().join("cache");
    let ran = bench
        .machinist(&["show", "stores"])
        .env("PATH", &path)
        .env("MACHINIST_CACHE", &cache)
        .run()?
        .exits(0)?;
    for package in ["mmdebstrap", "erofs-utils"] {
        assert!(ran.stdout.contains(package), "{package}: {ran}");
    }
    bench
        .machinist(&["run", "--", "true"])
        .env("PATH", &path)
        .env("MACHINIST_CACHE", &cache)
        .run()?
        .exits(96)?
        .complains("install the package mmdebstrap")?;
    bench.nothing_left()
}
