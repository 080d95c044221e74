//! What is said of systems, kernels and initrds that are none, or not each other's.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;

/// A store with a system in it, as far as it is looked at before Nix is asked.
struct Box {
    place: tempfile::TempDir,
}

const SYSTEM: &str = "nix/store/aaa-nixos";
const LINUX: &str = "nix/store/bbb-linux";
const VERSION: &str = "6.12.9";

impl Box {
    fn new() -> Self {
        let it = Self {
            place: tempfile::tempdir().unwrap(),
        };
        it.put(LINUX, "kernel", &kernel(VERSION));
        it.put(LINUX, "initrd", b"\x28\xb5\x2f\xfdpacked");
        it.put(SYSTEM, "system", format!("{ARCH}-linux").as_bytes());
        it.put(SYSTEM, "nixos-version", b"26.05.test\n");
        it.put(SYSTEM, "init", b"#! /nix/store/ccc-bash/bin/bash -e\n");
        it.put(SYSTEM, "sw/bin/nix-store", b"");
        it.put("nix/store/ccc-bash", "bin/bash", b"");
        let modules = "kernel-modules/lib/modules/6.12.9";
        let dep = "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/virtio.ko.xz\n\
            kernel/virtio_blk.ko.xz:\nkernel/overlayfs/overlay.ko.xz:\nkernel/erofs.ko.xz:\n\
            kernel/9pnet_virtio.ko.xz:\nkernel/9p.ko.xz:\nkernel/virtio-net.ko:\n";
        it.put(SYSTEM, &format!("{modules}/modules.dep"), dep.as_bytes());
        let builtin = b"kernel/ext4.ko\nkernel/virtio_console.ko\n";
        it.put(SYSTEM, &format!("{modules}/modules.builtin"), builtin);
        for name in ["kernel", "initrd"] {
            symlink(format!("/{LINUX}/{name}"), it.path(SYSTEM, name)).unwrap();
        }
        it
    }

    fn path(&self, of: &str, name: &str) -> PathBuf {
        self.place.path().join(of).join(name)
    }

    fn put(&self, of: &str, name: &str, contents: &[u8]) {
        let path = self.path(of, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn asked(&self) -> SystemOptions {
        SystemOptions {
            toplevel: self.place.path().join(SYSTEM),
            kernel: None,
            initrd: None,
            kind: None,
        }
    }

    /// All that is wrong, without the place that it is in. What Nix would say comes last, and is none
    /// of it.
    fn wrong(&self, asked: &SystemOptions) -> Vec<String> {
        let place = self.place.path().display().to_string();
        let errors = asked.look(Path::new("/nowhere")).unwrap_err();
        let files = errors
            .iter()
            .filter(|it| !matches!(it, SystemError::Nix(_)));
        files.map(|it| it.to_string().replace(&place, "")).collect()
    }

    /// The same, of the system as it is.
    fn said(&self) -> String {
        self.wrong(&self.asked()).join("\n")
    }
}

/// The first bytes of a kernel for this processor.
fn kernel(version: &str) -> Vec<u8> {
    if ARCH == "x86_64" {
        return magic::tests::bzimage(version);
    }
    let mut image = vec![0; 64];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image.extend(format!("Linux version {version} (nix) #1").bytes());
    image
}

#[test]
fn nothing_is_wrong_with_what_is_whole() {
    assert_eq!(Box::new().said(), "");
}

#[test]
fn what_is_swapped_or_none_is_named() {
    let it = Box::new();
    let linux = |name: &str| Some(it.path(LINUX, name));
    let swapped = SystemOptions {
        kernel: linux("initrd"),
        initrd: linux("kernel"),
        ..it.asked()
    };
    let said = it.wrong(&swapped);
    assert_eq!(said.len(), 2);
    assert!(
        said.iter()
            .all(|it| it.ends_with("they look swapped: exchange --kernel and --initrd"))
    );
    let neither = SystemOptions {
        kernel: linux("missing"),
        initrd: Some(it.path(SYSTEM, "init")),
        ..it.asked()
    };
    assert_eq!(
        it.wrong(&neither),
        [
            "--kernel /nix/store/bbb-linux/missing: No such file or directory (os error 2); look at its path"
        ]
    );
    let initrd = SystemOptions {
        initrd: Some(it.path(SYSTEM, "init")),
        ..it.asked()
    };
    assert_eq!(
        it.wrong(&initrd),
        [
            "--initrd /nix/store/aaa-nixos/init: it is a script, not an initrd; give the file that a system's `initrd` leads to"
        ]
    );
    let system = SystemOptions {
        toplevel: it.path(LINUX, "kernel"),
        ..it.asked()
    };
    assert!(it.wrong(&system)[0].contains("it is a kernel, not a system"));
}

#[test]
fn what_does_not_fit_is_named() {
    let it = Box::new();
    it.put(LINUX, "other", &kernel("6.6.1"));
    let other = SystemOptions {
        kernel: Some(it.path(LINUX, "other")),
        ..it.asked()
    };
    assert_eq!(
        it.wrong(&other),
        [
            "--kernel /nix/store/bbb-linux/other: it is 6.6.1, and the system's modules are for 6.12.9; give the kernel of the same system, or leave --kernel out"
        ]
    );
    let container = SystemOptions {
        kind: Some(Kind::Container),
        ..other
    };
    assert!(it.wrong(&container)[0].contains("a container has the kernel of its host"));
    it.put(SYSTEM, "kernel-modules/lib/modules/6.12.9/modules.dep", b"");
    assert!(it.said().contains("the kernel has no module virtio_pci,"));
    it.put(SYSTEM, "system", b"riscv64-linux");
    assert!(it.said().contains("it is for riscv64-linux"));
}

#[test]
fn what_nobody_could_run_is_named() {
    let it = Box::new();
    it.put(SYSTEM, "init", b"\x7fELF");
    assert!(
        it.said()
            .contains("only its own initrd can bring this system up")
    );
    it.put(SYSTEM, "prepare-root", b"#!/nix/store/ccc-bash/bin/bash\n");
    assert_eq!(it.said(), "");
    let init = it.path(SYSTEM, "prepare-root");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(it.said().contains("prepare-root: it is not executable"));
    fs::remove_file(it.path(SYSTEM, "sw/bin/nix-store")).unwrap();
    it.put(SYSTEM, "etc-metadata-image", b"");
    let said = it.said();
    assert!(said.contains("nix.enable") && said.contains("system.etc.overlay.enable"));
    let nothing = SystemOptions {
        toplevel: it.place.path().to_owned(),
        ..it.asked()
    };
    assert!(it.wrong(&nothing)[0].contains("it is in no Nix store"));
}
