//! A Debian image, from nothing to a VM's.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_image::{BootRoot, ImageSpec, Store, Want};

use super::builder::{AGENT, Builder, directory, names};

/// Two processes want the same image at the same moment; one builds it, the other says for whom it
/// waits. Then a third has it at once, and it is as documented.
pub(crate) fn built_once_by_two() -> Result<(), Failed> {
    let cache = directory();
    let args = [cache.path().to_str().unwrap(), "vm", "bookworm", ""];
    let mut first = Builder::start(&[], None, &args);
    assert!(first.wait_for("debian:bookworm: building"));
    let pid = first.child.id();
    let mut second = Builder::start(&[], None, &args);
    assert!(second.wait_for(&format!(
        "debian:bookworm: waiting for another machinist (pid {pid}) that builds it"
    )));
    let (first_well, first) = first.finish();
    let (second_well, second) = second.finish();
    assert!(first_well && second_well, "{first}\n{second}");
    let built = format!("{first}{second}").matches(": built in").count();
    assert_eq!(built, 3, "a root, a kernel, a disk:\n{first}\n{second}");
    assert!(names(&cache.path().join("tmp")).is_empty());

    let begun = Instant::now();
    let store = Store::open(cache.path(), AGENT)?;
    let want = Want::Vm {
        shared_folders: false,
    };
    let image = store.ensure(&ImageSpec::debian("bookworm", &[]), want, &|step| {
        panic!("{step}")
    })?;
    // Some milliseconds, on a host that has nothing else to do.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    settled(&image.root);

    let boot = image.boot.ok_or("no boot")?;
    assert_eq!(fs::read(&boot.kernel)?[..4], *b"\x7fELF");
    assert!(boot.kernel_version.starts_with("6.1."));
    let BootRoot::Erofs(disk) = boot.root else {
        panic!("no disk")
    };
    for disk in [disk, boot.modules.ok_or("no modules")?] {
        // The superblock, at 1024.
        assert_eq!(fs::read(disk)?[1024..][..4], 0xe0f5_e1e2_u32.to_le_bytes());
    }
    added_to(&store, &image.root)?;
    let initrd = fs::read(&boot.initrd)?;
    let list = b"/lib/modules/libcrc32c.ko\n/lib/modules/erofs.ko\n";
    assert!(initrd.windows(list.len()).any(|part| part == list));
    Ok(())
}

/// A package comes to a copy of the plain root, which stays as it is.
fn added_to(store: &Store, plain: &Path) -> Result<(), Failed> {
    let steps = Mutex::new(String::new());
    let spec = ImageSpec::debian("bookworm", &["bc"]);
    let image = store.ensure(&spec, Want::Container, &|step| {
        writeln!(steps.lock().unwrap(), "{step}").unwrap();
    })?;
    let steps = steps.into_inner().unwrap();
    assert!(
        steps.contains("debian:bookworm with bc: copying the same without"),
        "{steps}"
    );
    assert!(image.root.join("usr/bin/bc").exists() && !plain.join("usr/bin/bc").exists());
    let status = |root: &Path| fs::read_to_string(root.join("var/lib/dpkg/status"));
    let installed = |text: &str| text.matches("Status: install ok installed").count();
    let (all, before) = (status(&image.root)?, status(plain)?);
    assert_eq!(all.matches("\nStatus: ").count(), installed(&all), "{all}");
    assert!(installed(&all) > installed(&before) && installed(&before) > 100);
    settled(&image.root);
    Ok(())
}

/// What docs/images.md promises.
fn settled(root: &Path) {
    let absent = |path: &str| !root.join(path).exists() && !root.join(path).is_symlink();
    assert!(absent("etc/hostname") && absent("etc/fstab"));
    assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"");
    assert_eq!(fs::read(root.join("etc/resolv.conf")).unwrap(), b"");
    assert!(absent(
        "etc/systemd/system/timers.target.wants/apt-daily.timer"
    ));
    for nothing in [
        "getty.target",
        "timers.target.wants/systemd-tmpfiles-clean.timer",
    ] {
        let nothing = root.join("etc/systemd/system").join(nothing);
        assert_eq!(fs::read_link(nothing).unwrap(), Path::new("/dev/null"));
    }
    let shadow = fs::read_to_string(root.join("etc/shadow")).unwrap();
    assert!(
        shadow
            .lines()
            .any(|line| line.starts_with("root:*:") || line.starts_with("root:!"))
    );
    let stamp = fs::metadata(root.join("etc/.updated")).unwrap();
    let usr = fs::metadata(root.join("usr")).unwrap();
    assert!((stamp.mtime(), stamp.mtime_nsec()) >= (usr.mtime(), usr.mtime_nsec()));
    // Nothing of the build is left: no package files, no lists, no policy against starting services.
    assert!(
        names(&root.join("var/lib/apt/lists"))
            .iter()
            .all(|name| !name.contains("Packages"))
    );
    assert!(absent("usr/sbin/policy-rc.d"));
}
