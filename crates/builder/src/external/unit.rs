//! How an init system runs the service of external builds, and what Nix has to be told.

use std::path::Path;

use serde_json::json;

use crate::state::State;
use crate::unit::{Launchd, Systemd, UnitFile, specifier};

/// systemd's socket and service; `exe` is our program, and `group` that of builds' users.
#[must_use]
pub fn systemd(state: &State, exe: &Path, socket: &Path, group: &str) -> [UnitFile; 2] {
    let name = state.name();
    Systemd {
        name: format!("machinist-external-{name}"),
        description: format!("External builds of Nix's for builder {name}"),
        socket,
        rights: format!("SocketMode=0660\nSocketGroup={group}"),
        command: format!(
            "{} external-builder serve {}",
            specifier(exe),
            specifier(state.path())
        ),
        service: "# The builder's own service outlives this one, where this one has started it.
KillMode=process"
            .into(),
    }
    .files()
}

/// launchd's job; `group` is the number of the group of builds' users.
#[must_use]
pub fn launchd(state: &State, exe: &Path, socket: &Path, group: u32) -> UnitFile {
    let verb = ["external-builder", "serve"].map(Path::new);
    Launchd {
        label: format!("machinist.external.{}", state.name()),
        words: [exe, verb[0], verb[1], state.path()],
        sockets: "builds",
        socket,
        mode: 0o660,
        group: Some(group),
        more: "<key>AbandonProcessGroup</key>\n\t<true/>".into(),
        log: &state.path().join("external.log"),
    }
    .file()
}

/// The lines for `nix.conf`: builds for `systems` go to the builder `name`.
#[must_use]
pub fn settings(name: &str, exe: &Path, systems: &[String]) -> String {
    let builders = json!([{
        "systems": systems,
        "program": exe,
        "args": ["external-builder", "run", name],
    }]);
    format!("extra-experimental-features = external-builders\nexternal-builders = {builders}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_is_told() {
        let systems = ["aarch64-linux".to_owned()];
        assert_eq!(
            settings("linux", Path::new("/bin/machinist"), &systems),
            "extra-experimental-features = external-builders\n\
             external-builders = [{\"args\":[\"external-builder\",\"run\",\"linux\"],\
             \"program\":\"/bin/machinist\",\"systems\":[\"aarch64-linux\"]}]\n"
        );
    }

    #[test]
    fn builds_users_may_connect() {
        let state = State::of(Path::new("/var/lib/machinist/builders"), "linux");
        let (exe, socket) = (Path::new("/opt/machinist"), Path::new("/run/x/linux"));
        let [listening, service] = systemd(&state, exe, socket, "nixbld");
        assert!(
            listening
                .text
                .contains("SocketMode=0660\nSocketGroup=nixbld\n")
        );
        assert!(service.text.contains(
            "ExecStart=/opt/machinist external-builder serve /var/lib/machinist/builders/linux\n"
        ));
        let job = launchd(&state, exe, socket, 350);
        assert_eq!(0o660, 432);
        assert!(job.text.contains("<integer>432</integer>") && job.text.contains("<integer>350<"));
    }
}
