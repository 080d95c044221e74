//! NVIDIA's devices on a host that has no specification of them: the same that NVIDIA's container
//! toolkit looks for.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Devices, Node};
use crate::spec::Volume;

/// The kind of their CDI devices.
pub(super) const KIND: &str = "nvidia.com/gpu";

/// Device nodes beside those of the processors, where they are there.
const CONTROL: [&str; 5] = [
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
];

/// How the names of the driver's libraries begin. Each is followed by `.so`.
const LIBRARIES: [&str; 22] = [
    "libcuda",
    "libcudadebugger",
    "libEGL_nvidia",
    "libGLESv1_CM_nvidia",
    "libGLESv2_nvidia",
    "libGLX_nvidia",
    "libnvcuvid",
    "libnvidia-allocator",
    "libnvidia-cfg",
    "libnvidia-egl-gbm",
    "libnvidia-eglcore",
    "libnvidia-encode",
    "libnvidia-fbc",
    "libnvidia-glcore",
    "libnvidia-glsi",
    "libnvidia-ml",
    "libnvidia-nvvm",
    "libnvidia-opencl",
    "libnvidia-opticalflow",
    "libnvidia-ptxjitcompiler",
    "libnvidia-rtcore",
    "libnvoptix",
];

/// The driver's programs.
const PROGRAMS: [&str; 5] = [
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
];

/// What is there: the processors in `dev`, the libraries that `cache` (what `ldconfig -p` prints)
/// names, and programs of `search`. `None` without a processor.
pub(super) fn find(dev: &Path, cache: &str, search: &[PathBuf]) -> Option<Devices> {
    let mut processors: Vec<PathBuf> = fs::read_dir(dev)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_processor(path))
        .collect();
    if processors.is_empty() {
        return None;
    }
    processors.sort();
    let control = CONTROL.iter().filter_map(|path| {
        let name = Path::new(path).strip_prefix("/dev").ok()?;
        let path = dev.join(name);
        path.exists().then_some(path)
    });
    let mut devices = Devices {
        nodes: processors
            .into_iter()
            .chain(control)
            .map(Node::same)
            .collect(),
        ..Devices::default()
    };
    for library in libraries(cache) {
        // The cache names links, which `ldconfig` makes anew inside.
        let Ok(library) = library.canonicalize() else {
            continue;
        };
        if let Some(folder) = library.parent().map(Path::to_owned)
            && !devices.library_folders.contains(&folder)
        {
            devices.library_folders.push(folder);
        }
        devices.mounts.push(read_only(library));
    }
    let programs = PROGRAMS.iter().filter_map(|name| {
        search
            .iter()
            .map(|dir| dir.join(name))
            .find(|it| it.is_file())
    });
    devices.mounts.extend(programs.map(read_only));
    devices
        .mounts
        .dedup_by(|one, other| one.target == other.target);
    Some(devices)
}

fn read_only(path: PathBuf) -> Volume {
    Volume {
        source: path.clone(),
        target: path,
        writable: false,
    }
}

/// Whether it is `nvidia0` or so.
fn is_processor(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix("nvidia"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The driver's libraries among the lines `NAME (KIND) => PATH`, of this processor's own kind.
fn libraries(cache: &str) -> Vec<PathBuf> {
    let native = if cfg!(target_arch = "x86_64") {
        "x86-64"
    } else {
        "AArch64"
    };
    let mut found: Vec<PathBuf> = cache
        .lines()
        .filter_map(|line| {
            let (name, path) = line.trim().split_once(" => ")?;
            let (name, kind) = name.split_once(' ')?;
            let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
            (LIBRARIES.contains(&stem) && kind.contains(native)).then(|| path.into())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_two_processors() {
        let host = tempfile::tempdir().unwrap();
        let (dev, lib) = (host.path().join("dev"), host.path().join("lib"));
        for dir in [&dev, &lib] {
            fs::create_dir(dir).unwrap();
        }
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(dev.join(name), "").unwrap();
        }
        fs::write(lib.join("libcuda.so.535.1"), "").unwrap();
        std::os::unix::fs::symlink("libcuda.so.535.1", lib.join("libcuda.so.1")).unwrap();
        fs::write(lib.join("nvidia-smi"), "").unwrap();
        let kind = if cfg!(target_arch = "x86_64") {
            "x86-64"
        } else {
            "AArch64"
        };
        let lib_path = lib.display();
        let cache = format!(
            "3 libs found in cache\n\tlibcuda.so.1 (libc6,{kind}) => {lib_path}/libcuda.so.1\n\
             \tlibcuda.so.1 (libc6) => {lib_path}/32/libcuda.so.1\n\
             \tlibc.so.6 (libc6,{kind}) => {lib_path}/libc.so.6\n"
        );
        let found = find(&dev, &cache, std::slice::from_ref(&lib)).unwrap();
        let nodes: Vec<_> = found.nodes.iter().map(|node| &node.inside).collect();
        let expected = ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"].map(|name| dev.join(name));
        assert_eq!(nodes, expected.iter().collect::<Vec<_>>());
        let mounts: Vec<_> = found.mounts.iter().map(|mount| &mount.target).collect();
        let lib = lib.canonicalize().unwrap();
        assert_eq!(mounts[0], &lib.join("libcuda.so.535.1"));
        assert!(mounts[1].ends_with("nvidia-smi"));
        assert_eq!(mounts.len(), 2);
        assert_eq!(found.library_folders, [lib]);
        assert!(find(Path::new("/nowhere"), &cache, &[]).is_none());
    }
}
