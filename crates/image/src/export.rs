//! Taking an image along: what a VM boots, in a directory from which a store on another host takes
//! it ([`crate::Store::with_source`]).
//!
//! ```text
//! boots/IMAGE.json       what the VM of that image boots (Taken)
//! disks/ kernels/ initrds/   as in a cache
//! ```
//! Who finds all of it needs no root: nothing is unpacked or built there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{At, ImageError, PathError};
use crate::image::{Boot, BootRoot, Image};
use crate::initrd;
use crate::key::ImageId;

/// Where the records are.
const BOOTS: &str = "boots";

/// What a VM boots that was taken along. Paths are below the directory that it is in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    kernel: PathBuf,
    initrd: PathBuf,
    root: PathBuf,
    modules: Option<PathBuf>,
    kernel_version: String,
}

impl Image {
    /// Copies all that the image's VM boots to `dir`, which is made if it is not there: made once
    /// more, from the same, the disks would not be the same to the last bit.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn export(&self, dir: &Path) -> Result<(), ImageError> {
        let Some(boot) = &self.boot else {
            return Ok(());
        };
        // What the host shares is there or not.
        let BootRoot::Erofs(root) = &boot.root else {
            return Ok(());
        };
        let take = |file: &Path| take(file, dir);
        let taken = Taken {
            kernel: take(&boot.kernel)?,
            initrd: take(&boot.initrd)?,
            root: take(root)?,
            modules: boot.modules.as_deref().map(take).transpose()?,
            kernel_version: boot.kernel_version.clone(),
        };
        let path = record(dir, &self.id);
        let boots = dir.join(BOOTS);
        fs::create_dir_all(&boots).at("create", &boots)?;
        let text = serde_json::to_vec_pretty(&taken).at("write", &path)?;
        fs::write(&path, text).at("write", &path)?;
        Ok(())
    }
}

fn record(dir: &Path, image: &ImageId) -> PathBuf {
    dir.join(BOOTS).join(format!("{image}.json"))
}

/// What the VM of an image boots, if it was taken along to `dir`, complete, and with this agent.
pub(crate) fn find(
    dir: &Path,
    image: &ImageId,
    agent: &[u8],
    shared_folders: bool,
) -> Option<Boot> {
    let text = fs::read(record(dir, image)).ok()?;
    let taken: Taken = serde_json::from_slice(&text).ok()?;
    // An agent of another version would not understand us.
    let wanted = initrd::key_with(&artefact_key(&taken.kernel)?, agent, shared_folders);
    let there = |path: &Path| {
        let path = dir.join(path);
        path.is_file().then_some(path)
    };
    let found = artefact_key(&taken.initrd)? == wanted;
    found.then_some(())?;
    Some(Boot {
        kernel: there(&taken.kernel)?,
        initrd: there(&taken.initrd)?,
        root: BootRoot::Erofs(there(&taken.root)?),
        modules: match &taken.modules {
            Some(path) => Some(there(path)?),
            None => None,
        },
        kernel_version: taken.kernel_version,
    })
}

/// `KEY` of `KIND/KEY/FILE`.
fn artefact_key(file: &Path) -> Option<ImageId> {
    let name = file.parent()?.file_name()?.to_str()?;
    name.parse().ok()
}

/// Copies the artefact that the file is in, `KIND/KEY/FILE` in a cache, and says where the file is
/// below `dir`.
fn take(file: &Path, dir: &Path) -> Result<PathBuf, PathError> {
    let artefact = file.parent().unwrap_or(file);
    let above = artefact.ancestors().nth(2).unwrap_or(Path::new("/"));
    let within = |path: &Path| path.strip_prefix(above).unwrap_or(path).to_owned();
    let target = dir.join(within(artefact));
    // The kernel's modules are in the same one as the kernel.
    if !target.exists() {
        copy(artefact, &target)?;
    }
    Ok(within(file))
}

fn copy(from: &Path, to: &Path) -> Result<(), PathError> {
    fs::create_dir_all(to).at("create", to)?;
    for entry in fs::read_dir(from).at("list", from)? {
        let entry = entry.at("list", from)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().at("read", &path)?;
        if kind.is_dir() {
            copy(&path, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).at("read", &path)?;
            symlink(link, &target).at("create", &target)?;
        } else {
            fs::copy(&path, &target).map(drop).at("copy", &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Held;

    #[test]
    fn what_was_taken_along_is_found_with_the_same_agent() {
        let place = tempfile::tempdir().unwrap();
        let key = |digit: &str| digit.repeat(64).parse::<ImageId>().unwrap();
        let cache = place.path().join("cache");
        let file = |kind: &str, key: &ImageId, name: &str| {
            let path = cache.join(kind).join(key.as_str()).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            path
        };
        let kernel = key("1");
        let initrd = initrd::key_with(&kernel, b"agent", false);
        let image = Image {
            id: key("2"),
            name: "image".into(),
            root: cache.join("images/root"),
            boot: Some(Boot {
                kernel: file("kernels", &kernel, "vmlinux"),
                initrd: file("initrds", &initrd, "initrd.cpio"),
                root: BootRoot::Erofs(file("disks", &key("3"), "root.erofs")),
                modules: Some(file("kernels", &kernel, "modules.erofs")),
                kernel_version: "6.1".into(),
            }),
            held: Held::nothing(),
        };
        let dir = place.path().join("taken");
        image.export(&dir).unwrap();
        let found = find(&dir, &image.id, b"agent", false).unwrap();
        assert_eq!(fs::read(&found.kernel).unwrap(), b"vmlinux");
        assert_eq!(fs::read(found.modules.unwrap()).unwrap(), b"modules.erofs");
        assert!(found.initrd.starts_with(&dir) && found.initrd.is_file());
        assert_eq!(find(&dir, &image.id, b"another", false), None);
        assert_eq!(find(&dir, &image.id, b"agent", true), None);
        assert_eq!(find(&dir, &key("4"), b"agent", false), None);
        let BootRoot::Erofs(root) = found.root else {
            panic!("it is a disk");
        };
        fs::remove_file(root).unwrap();
        assert_eq!(find(&dir, &image.id, b"agent", false), None);
    }
}
