//! What [`crate::Store::ensure`] returns.

use std::path::PathBuf;

use crate::cache::Held;
use crate::key::ImageId;

/// An image that is ready to boot. While a clone of it lives, nobody prunes it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its content key.
    pub id: ImageId,
    /// For people, such as `debian:bookworm with nginx`.
    pub name: String,
    /// Its root file system as a directory, to be the lower layer of an overlay. It belongs to the
    /// cache or to the user: never write to it. For the source `host` it is `/`, with everything
    /// that is mounted there. Of a VM that was taken along ([`crate::Store::with_source`]) it is not
    /// there.
    pub root: PathBuf,
    /// What a VM needs; there if the image was wanted for one.
    pub boot: Option<Boot>,
    /// What keeps it in the cache.
    pub held: Held,
}

/// What a VM boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel, as QEMU's `-kernel` takes it.
    pub kernel: PathBuf,
    /// The initrd with the agent as its `/init`.
    pub initrd: PathBuf,
    /// The root file system.
    pub root: BootRoot,
    /// A second disk, an erofs of the kernel's modules, to be mounted on `/lib/modules`. `None`
    /// where the root has the modules itself.
    pub modules: Option<PathBuf>,
    /// As `uname -r` will say.
    pub kernel_version: String,
}

/// How a VM gets its root file system. Always read-only; the guest lays an overlay above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootRoot {
    /// An erofs image, for a virtio disk.
    Erofs(PathBuf),
    /// A directory of the host, shared by 9p.
    Share9p(PathBuf),
}
