//! Builds that fail, are killed, or are stopped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_image::{Cancel, ImageError, ImageSpec, Store, Want};

use super::builder::{AGENT, Builder, directory, names};

/// SIGKILL in the middle: the builder's programs die with it, its mounts vanish, and the next open
/// removes the rest.
pub(crate) fn killed() -> Result<(), Failed> {
    let cache = directory();
    let args = [cache.path().to_str().unwrap(), "container", "bookworm", ""];
    let mut builder = Builder::start(&[], None, &args);
    assert!(builder.wait_for("installing essential packages"));
    assert!(!processes_below(cache.path()).is_empty());
    builder.child.kill()?;
    drop(builder.finish());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !processes_below(cache.path()).is_empty() {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            processes_below(cache.path())
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(cache.path().to_str().unwrap()));
    assert_eq!(names(&cache.path().join("tmp")).len(), 1);
    Store::open(cache.path(), AGENT)?;
    nothing_left(cache.path());
    Ok(())
}

/// Who waits for a builder that is killed builds it.
pub(crate) fn taken_over() -> Result<(), Failed> {
    let cache = directory();
    let args = [cache.path().to_str().unwrap(), "container", "bookworm", ""];
    let mut first = Builder::start(&[], None, &args);
    assert!(first.wait_for("extracting archives"));
    let mut second = Builder::start(&[], None, &args);
    assert!(second.wait_for("waiting for another machinist"));
    first.child.kill()?;
    drop(first.finish());
    assert!(second.wait_for("debian:bookworm: building"));
    let (well, said) = second.finish();
    assert!(well, "{said}");
    assert_eq!(names(&cache.path().join("tmp")), [""; 0]);
    assert_eq!(names(&cache.path().join("images")).len(), 1);
    Ok(())
}

/// Processes that have the directory in their command line, their root or their current directory.
fn processes_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        let links = ["root", "cwd"].map(|name| fs::read_link(process.join(name)));
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = links
            .iter()
            .flatten()
            .any(|path| path.starts_with(directory));
        if inside || line.contains(directory.to_str().unwrap()) {
            found.push(line);
        }
    }
    found
}

fn nothing_left(cache: &Path) {
    for directory in ["tmp", "images", "disks", "kernels", "initrds"] {
        assert_eq!(names(&cache.join(directory)), [""; 0], "{directory}");
    }
}

/// Disks that are too small: one is refused at once, one fails in the middle.
pub(crate) fn full_disk() -> Result<(), Failed> {
    for (size, within) in [("100m", 30), ("270m", 300)] {
        let cache = directory();
        // What is left can only be seen from inside, so the cache is copied out: it is empty.
        let script = format!(
            "mount -t tmpfs -o size={size},mode=0700 tmpfs \"$0\" && \"$@\"; find \"$0/tmp\" \"$0/images\" -mindepth 1"
        );
        let here = cache.path().to_str().unwrap();
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, here];
        let begun = Instant::now();
        let (_, said) =
            Builder::start(&wrapper, None, &[here, "container", "bookworm", ""]).finish();
        let error = said
            .lines()
            .find(|line| line.starts_with("error: "))
            .ok_or(said.clone())?;
        let start = format!(
            "error: no space left to build debian:bookworm: the file system at {here} has "
        );
        assert!(error.starts_with(&start), "{said}");
        let last = said.lines().last().ok_or("nothing said")?;
        assert!(
            last.starts_with("hint: free some space"),
            "something is left: {said}"
        );
        assert!(begun.elapsed() < Duration::from_secs(within));
    }
    Ok(())
}

/// Mistakes and missing networks: the builder's own words, and what to do.
pub(crate) fn told() -> Result<(), Failed> {
    let cache = directory();
    let here = cache.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let (well, said) = Builder::start(&[], None, args).finish();
        assert!(!well, "{said}");
        nothing_left(cache.path());
        said
    };
    let said = run(&[here, "container", "bookwurm", ""]);
    assert!(said.contains("does not have a Release file"), "{said}");
    assert!(
        said.contains("hint: is there a suite of that name?"),
        "{said}"
    );
    let said = run(&[here, "container", "bookworm", "http://127.0.0.1:9/debian"]);
    assert!(said.contains("Could not connect to 127.0.0.1:9"), "{said}");
    assert!(
        said.contains("hint: the mirror cannot be reached"),
        "{said}"
    );
    let said = run(&[here, "container", "bookworm", "", "no-such-package"]);
    assert!(
        said.contains("error: mmdebstrap failed (exit status: "),
        "{said}"
    );
    assert!(
        said.contains("hint: this suite has no package \"no-such-package\""),
        "{said}"
    );
    Ok(())
}

/// A tool that is missing is named, with its package.
pub(crate) fn missing_tool() -> Result<(), Failed> {
    let cache = directory();
    let bin = cache.path().join("bin");
    fs::create_dir(&bin)?;
    symlink("/bin/sh", bin.join("sh"))?;
    let here = cache.path().join("cache");
    let args = [here.to_str().unwrap(), "container", "bookworm", ""];
    let (well, said) = Builder::start(&[], Some(&bin), &args).finish();
    assert!(
        !well && said.contains("error: mmdebstrap is not installed"),
        "{said}"
    );
    assert!(said.contains("hint: apt-get install mmdebstrap"), "{said}");
    nothing_left(&here);
    Ok(())
}

/// Cancelling from another thread, here from the progress callback.
pub(crate) fn cancelled() -> Result<(), Failed> {
    let cache = directory();
    let cancel = Cancel::new();
    let store = Store::open(cache.path(), AGENT)?.with_cancel(cancel.clone());
    let spec = ImageSpec::debian("bookworm", &[]);
    let error = store.ensure(&spec, Want::Container, &|step| {
        if step.to_string().contains("downloading") {
            cancel.cancel();
        }
    });
    assert!(matches!(error, Err(ImageError::Interrupted)), "{error:?}");
    nothing_left(cache.path());
    Ok(())
}
