//! A cache that two users of the host have at once: root, and the ordinary user of `rootless`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Command, OrdinaryUser, users_cache};

fn root(bench: &Bench, user: &OrdinaryUser, words: &[&str]) -> Command {
    bench.machinist(words).env("MACHINIST_CACHE", user.cache())
}

/// Root has a part, too. What root has built already is found in it.
pub fn root_beside(bench: &Bench, user: &OrdinaryUser) -> Result<()> {
    let run = [
        "run",
        "--kind",
        "container",
        "--image",
        "host",
        "--",
        "true",
    ];
    root(bench, user, &run).run()?.exits(0)?;
    let part = user.cache().join("user-0");
    ensure!(mode(&part)? == 0o700, "{:o}", mode(&part)?);
    // Empty so far.
    fs::remove_dir_all(part.join("images"))?;
    for name in ["images", "snapshots"] {
        symlink(users_cache()?.join(name), part.join(name))?;
    }
    Ok(())
}

/// Root has a machine of this kind, whatever the user has at the time.
pub fn root_runs(bench: &Bench, user: &OrdinaryUser, kind: &str) -> Result<()> {
    let run = ["run", "--kind", kind, "--", "id", "-un"];
    root(bench, user, &run).run()?.exits(0)?.says("root")?;
    Ok(())
}

/// Of the user's part others see nothing, and of the memory of machines not even those who come
/// that far.
pub fn for_nobody_else(user: &OrdinaryUser) -> Result<()> {
    ensure!(mode(&user.part())? == 0o700);
    let mut folders = vec![user.part().join("snapshots")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        ensure!(mode(&folder)? == 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                ensure!(mode(&path)? == 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    ensure!(files > 0, "there is no snapshot");
    Ok(())
}

/// Where somebody else could put something into a cache, nothing boots from it.
pub fn refused(bench: &Bench, user: &OrdinaryUser) -> Result<()> {
    let run = ["run", "--kind", "vm", "--", "true"];
    let cache = user.cache();
    // Root, with what the user has made.
    bench
        .machinist(&run)
        .env("MACHINIST_CACHE", user.part())
        .run()?
        .exits(96)?
        .complains(&format!("{} belongs to", user.part().display()))?
        .complains("and this runs as root")?;
    // Somebody was faster than root.
    let part = cache.join("user-0");
    fs::rename(&part, cache.join("away"))?;
    fs::create_dir(&part)?;
    user.own(&part)?;
    let faster = format!("{} belongs to", part.display());
    root(bench, user, &run)
        .run()?
        .exits(96)?
        .complains(&faster)?;
    let test = ["show", "client"];
    user.own(&cache)?;
    root(bench, user, &run)
        .run()?
        .exits(96)?
        .complains("who could exchange what is in it")?;
    fs::set_permissions(&cache, Permissions::from_mode(0o777))?;
    user.machinist(&test)
        .run()?
        .exits(0)?
        .says("can be written to by others")?;
    std::os::unix::fs::chown(&cache, Some(0), Some(0))?;
    fs::set_permissions(&cache, Permissions::from_mode(0o755))?;
    // What `sudo` leaves.
    user.machinist(&["test", "client"])
        .run()?
        .exits(96)?
        .complains(&format!("{} belongs to root", cache.display()))?
        .complains("MACHINIST_CACHE")?;
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777)
}
