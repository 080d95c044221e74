//! A user who is not root, and whom only the program sees: the files that name the user are laid over
//! the host's in a mount namespace of the program's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Bench, Command, machinist};

/// The user's name.
const NAME: &str = "machinist-tester";
/// The user's number: nobody's, it is to be hoped.
const ID: u32 = 64_201;
/// The first of the user's subordinate ids; no file gives as many that it gets here.
const FIRST: u32 = 2_000_000_000;

/// Lays each of the files over the host's, joins the control group, and becomes the user.
const BECOME: &str = r#"set -e
home=$1 cgroup=$2 id=$3; shift 3
for file in passwd group subuid subgid; do
  test -e /etc/$file || : > /etc/$file
  mount --bind "$home/etc/$file" /etc/$file
done
test -z "$cgroup" || echo $$ > "$cgroup/cgroup.procs"
cd "$home/lab"
exec setpriv --reuid "$id" --regid "$id" --clear-groups --reset-env \
  env HOME="$home" MACHINIST_CACHE="$home/cache" MACHINIST_RUNTIME="$home/run" TMPDIR="$home/tmp" "$@"
"#;

/// A user with a home of their own: lab, sessions, and a cache that is for all users.
#[derive(Debug)]
pub struct OrdinaryUser {
    home: TempDir,
    cgroup: PathBuf,
}

impl OrdinaryUser {
    /// A user who has subordinate ids, and a control group to make others in, as a systemd user
    /// session gives it. With the program in the home: the one that is tested may lie in a place
    /// that only root sees.
    ///
    /// # Errors
    /// The host does not let us; we are not root.
    pub fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("mu-").tempdir_in("/tmp")?;
        let user = Self {
            cgroup: own_cgroup()?.join(format!("ordinary-user-{}", std::process::id())),
            home,
        };
        let path = user.path();
        for name in ["", "lab", "run", "tmp"] {
            let directory = path.join(name);
            fs::create_dir_all(&directory)?;
            user.own(&directory)?;
        }
        fs::create_dir(path.join("etc"))?;
        fs::create_dir(user.cache())?;
        fs::set_permissions(user.cache(), Permissions::from_mode(0o1777))?;
        fs::copy(machinist(), path.join("machinist")).context("cannot copy the program")?;
        for (file, line) in [
            (
                "passwd",
                format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh", path.display()),
            ),
            ("group", format!("{NAME}:x:{ID}:")),
        ] {
            let host = fs::read_to_string(Path::new("/etc").join(file))?;
            fs::write(path.join("etc").join(file), format!("{host}{line}\n"))?;
        }
        user.give_ids(true)?;
        fs::create_dir(&user.cgroup).context("cannot make a control group")?;
        for file in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            chown(user.cgroup.join(file), Some(ID), Some(ID))?;
        }
        Ok(user)
    }

    /// From now on the user has subordinate ids, or none.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn give_ids(&self, given: bool) -> Result<()> {
        for file in ["subuid", "subgid"] {
            let line = format!("{NAME}:{FIRST}:65536\n");
            let text = if given { line.as_str() } else { "" };
            fs::write(self.path().join("etc").join(file), text)?;
        }
        Ok(())
    }

    /// The user's home.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// The cache that the user shares with others. It is root's.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// The user's own part of it.
    #[must_use]
    pub fn part(&self) -> PathBuf {
        self.cache().join(format!("user-{ID}"))
    }

    /// Makes a directory the user's.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn own(&self, directory: &Path) -> Result<()> {
        Ok(chown(directory, Some(ID), Some(ID))?)
    }

    /// Writes the user's lab file.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_lab(&self, text: &str) -> Result<()> {
        self.write("lab.toml", text)
    }

    /// Writes a file beside the user's lab file.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path().join("lab").join(name), text)?)
    }

    /// The program with these arguments, run by the user beside the lab file.
    #[must_use]
    pub fn machinist(&self, args: &[&str]) -> Command {
        self.run(&self.cgroup, args)
    }

    /// The same, in a control group that the user may not write to.
    #[must_use]
    pub fn machinist_without_cgroup(&self, args: &[&str]) -> Command {
        self.run(Path::new(""), args)
    }

    fn run(&self, cgroup: &Path, args: &[&str]) -> Command {
        let mut inner = std::process::Command::new("unshare");
        inner
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                BECOME,
                "sh",
            ])
            .arg(self.path())
            .arg(cgroup)
            .arg(ID.to_string())
            .arg(self.path().join("machinist"))
            .args(args)
            .stdin(std::process::Stdio::null());
        Command::of(inner)
    }

    /// Checks that nothing of the user's is left: neither what `bench` looks for, nor sessions,
    /// temporary files, or control groups.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_left(&self, bench: &Bench) -> Result<()> {
        bench.nothing_left()?;
        let gone = crate::wait_until(std::time::Duration::from_secs(30), || {
            self.left().is_empty().then_some(())
        });
        if gone.is_none() {
            bail!("left behind: {:?}", self.left());
        }
        Ok(())
    }

    fn left(&self) -> Vec<PathBuf> {
        let folders = [
            self.path().join("run"),
            self.path().join("tmp"),
            self.cgroup.clone(),
        ];
        let entries = folders
            .iter()
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        entries
            .filter(|entry| entry.file_name() != ".gate")
            // Of a control group only those below it.
            .filter(|entry| {
                !entry.path().starts_with(&self.cgroup)
                    || entry.file_type().is_ok_and(|kind| kind.is_dir())
            })
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        // What is left in it has been told by `nothing_left`.
        drop(fs::remove_dir(&self.cgroup));
    }
}

/// Our own control group's directory.
fn own_cgroup() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after
            .starts_with("cgroup2 ")
            .then(|| before.split(' ').nth(4))?
    });
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(mounted), Some(own)) = (mounted, own) else {
        bail!("cgroup2 is not mounted");
    };
    Ok(Path::new(mounted).join(own))
}
