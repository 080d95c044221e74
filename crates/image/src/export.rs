//! Taking an image along: what a VM boots, in a directory from which a store on another host takes
//! it ([`crate::Store::with_source`]).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::{At, ImageError, PathError};
use crate::image::{BootRoot, Image};

impl Image {
    /// Copies the disks that the image's VM boots from to `dir`, which is made if it is not there.
    /// Built once more, from the same, they would not be the same to the last bit; kernel and initrd
    /// would, and are left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn export(&self, dir: &Path) -> Result<(), ImageError> {
        let Some(boot) = &self.boot else {
            return Ok(());
        };
        let root = match &boot.root {
            BootRoot::Erofs(path) => Some(path),
            BootRoot::Share9p(_) => None,
        };
        for file in root.into_iter().chain(&boot.modules) {
            // `disks/KEY/root.erofs`, and the like.
            let (Some(artefact), Some(kind)) = (file.parent(), file.ancestors().nth(2)) else {
                continue;
            };
            let (Some(key), Some(kind)) = (artefact.file_name(), kind.file_name()) else {
                continue;
            };
            copy(artefact, &dir.join(kind).join(key))?;
        }
        Ok(())
    }
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
