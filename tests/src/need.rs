//! What a test needs of the host.

use std::path::PathBuf;

use crate::python_with_pytest;

/// What a test needs of the host. A test whose needs are not met is skipped, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Containers: systemd-nspawn, and root.
    Container,
    /// VMs: QEMU.
    Vm,
    /// Debian images: mmdebstrap, and mkfs.erofs.
    Debian,
    /// Python scripts.
    Python,
    /// Logging in by SSH.
    Ssh,
    /// Reading screens: tesseract and ImageMagick.
    Ocr,
    /// Tests by pytest.
    Pytest,
}

impl Need {
    /// Why the host does not have it.
    #[must_use]
    pub fn lacking(self) -> Option<String> {
        let programs: &[&str] = match self {
            Self::Container => &["systemd-nspawn"],
            Self::Vm => &["qemu-system-x86_64"],
            Self::Debian => &["mmdebstrap", "mkfs.erofs"],
            Self::Python | Self::Pytest => &["python3"],
            Self::Ssh => &["ssh"],
            Self::Ocr => &["tesseract", "convert"],
        };
        if let Some(program) = programs.iter().find(|program| !is_there(program)) {
            return Some(format!(
                "{program} is not in PATH (`cargo xtask setup` installs it)"
            ));
        }
        if self == Self::Pytest && python_with_pytest().is_none() {
            return Some("no Python has pytest (`cargo xtask setup` installs it)".to_owned());
        }
        let root = rustix::process::geteuid().is_root();
        (self == Self::Container && !root).then(|| "containers need root".to_owned())
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).is_file())
}
