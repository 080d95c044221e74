//! The image that our builders boot: a Debian with Nix, and what makes it one.

#[cfg(target_os = "linux")]
use machinist_session::UPLINK_MAC;
use serde_json::{Value, json};

#[cfg(target_os = "linux")]
use crate::config::Config;

/// The first Debian whose Nix gives a build a range of user ids, in its version 2.34.
const SOURCE: &str = "debian:forky";

const PACKAGES: [&str; 4] = ["ca-certificates", "e2fsprogs", "nix-bin", "openssh-server"];

/// Whatever a file is about is said in it.
const FILES: [(&str, &str, u32); 16] = [
    ("/etc/nix/nix.conf", include_str!("nix.conf"), 0o644),
    (
        "/etc/systemd/system/nix-daemon.service",
        include_str!("nix-daemon.service"),
        0o644,
    ),
    (
        "/etc/systemd/system/nix-daemon.socket",
        include_str!("nix-daemon.socket"),
        0o644,
    ),
    (
        "/etc/systemd/system/sockets.target.d/machinist.conf",
        include_str!("sockets.conf"),
        0o644,
    ),
    ("/usr/lib/machinist/prepare", include_str!("prepare"), 0o755),
    ("/usr/lib/machinist/warm", include_str!("warm"), 0o755),
    ("/usr/lib/machinist/store", include_str!("store"), 0o755),
    (
        "/usr/lib/machinist/store-init",
        include_str!("store-init"),
        0o755,
    ),
    ("/usr/lib/machinist/daemon", include_str!("daemon"), 0o755),
    (
        "/etc/systemd/system/machinist-ssh.socket",
        include_str!("machinist-ssh.socket"),
        0o644,
    ),
    (
        "/etc/systemd/system/machinist-ssh@.service",
        include_str!("machinist-ssh@.service"),
        0o644,
    ),
    (
        "/etc/systemd/system/ssh.service.d/machinist.conf",
        include_str!("ssh.conf"),
        0o644,
    ),
    (
        "/etc/systemd/system/systemd-logind.service.d/machinist.conf",
        include_str!("logind.conf"),
        0o644,
    ),
    (
        "/etc/machinist/sshd_config",
        include_str!("sshd_config"),
        0o644,
    ),
    (
        "/usr/lib/machinist/store-disk",
        include_str!("store-disk"),
        0o755,
    ),
    (
        "/etc/modules-load.d/machinist.conf",
        include_str!("modules.conf"),
        0o644,
    ),
];

/// Where its Nix daemon listens.
pub(crate) const DAEMON: &str = "/run/nix-daemon";

/// Where a machine's programs are, whatever its system.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

/// The features that it has wherever it runs.
pub const FEATURES: [&str; 4] = ["benchmark", "big-parallel", "nixos-test", "uid-range"];

/// The arguments of `prepare` in the machine, which tell it what it is to be.
#[cfg(target_os = "linux")]
pub(crate) fn arguments(config: &Config) -> [String; 4] {
    [
        config.max_jobs.to_string(),
        config.cores.to_string(),
        FEATURES.join(" "),
        UPLINK_MAC.map(|byte| format!("{byte:02x}")).join(":"),
    ]
}

/// As a lab file describes it.
pub(crate) fn image() -> Value {
    let files: serde_json::Map<String, Value> = FILES
        .iter()
        .map(|(path, text, mode)| {
            let file = json!({ "text": text, "mode": format!("{mode:o}") });
            ((*path).to_owned(), file)
        })
        .collect();
    json!({ "source": SOURCE, "packages": PACKAGES, "files": files })
}
