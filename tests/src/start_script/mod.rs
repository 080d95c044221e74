//! Start scripts, as NixOS tests have them, over our own Debian images.

mod container;
mod cpio;
mod vm;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use container::ContainerScript;
pub use vm::{VmScript, VmSystem};

/// Writes a program.
fn write_program(directory: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}
