//! The virtio-serial port to the host.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::BootError;
use super::root::wait_for;

/// What the host calls it.
const NAME: &str = "org.machinist.agent.0";

/// Waits for the port, and opens it.
pub(super) fn open() -> Result<OwnedFd, BootError> {
    let path = wait_for(&format!("port {NAME}"), || {
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
        ports.flatten().find_map(|port| {
            let name = fs::read_to_string(port.path().join("name")).ok()?;
            let path = Path::new("/dev").join(port.file_name());
            (name.trim_end() == NAME && path.exists()).then_some(path)
        })
    })?;
    let opened = fs::File::options().read(true).write(true).open(&path);
    opened
        .map(OwnedFd::from)
        .map_err(|error| BootError::io(format_args!("cannot open {}", path.display()), error))
}
