//! What the agent says of itself.

use machinist_wire::Info;

/// Reads it from the running kernel.
pub(crate) fn read(init: bool) -> Info {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        boot_id: boot_id.trim().to_owned(),
        pid: std::process::id(),
        init,
        plain: false,
    }
}
