//! How an init system runs the service of external builds, and what Nix has to be told.

use std::path::Path;

use serde_json::json;

use crate::state::State;
use crate::unit::{UnitFile, specifier, xml};

/// systemd's socket and service; `exe` is our program, and `group` that of builds' users.
#[must_use]
pub fn systemd(state: &State, exe: &Path, socket: &Path, group: &str) -> [UnitFile; 2] {
    let name = state.name();
    let unit = |kind: &str, text: String| UnitFile {
        path: format!("/etc/systemd/system/machinist-external-{name}.{kind}").into(),
        text,
    };
    let listening = format!(
        "[Unit]
Description=External builds of Nix's for builder {name}

[Socket]
ListenStream={}
SocketMode=0660
SocketGroup={group}

[Install]
WantedBy=sockets.target
",
        specifier(socket)
    );
    let service = format!(
        "[Unit]
Description=External builds of Nix's for builder {name}

[Service]
ExecStart={} external-builder serve {}
StandardInput=socket
StandardOutput=journal
StandardError=journal
# The builder's own service outlives this one, where this one has started it.
KillMode=process
",
        specifier(exe),
        specifier(state.path()),
    );
    [unit("socket", listening), unit("service", service)]
}

/// launchd's job; `group` is the number of the group of builds' users.
#[must_use]
pub fn launchd(state: &State, exe: &Path, socket: &Path, group: u32) -> UnitFile {
    let label = format!("machinist.external.{}", state.name());
    let (exe, directory) = (xml(exe), xml(state.path()));
    let (socket, log) = (xml(socket), xml(&state.path().join("external.log")));
    let text = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>{label}</string>
	<key>ProgramArguments</key>
	<array>
		<string>{exe}</string>
		<string>external-builder</string>
		<string>serve</string>
		<string>{directory}</string>
	</array>
	<key>Sockets</key>
	<dict>
		<key>builds</key>
		<dict>
			<key>SockPathName</key>
			<string>{socket}</string>
			<key>SockPathMode</key>
			<integer>432</integer>
			<key>SockPathGroup</key>
			<integer>{group}</integer>
		</dict>
	</dict>
	<key>inetdCompatibility</key>
	<dict>
		<key>Wait</key>
		<true/>
	</dict>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>StandardErrorPath</key>
	<string>{log}</string>
</dict>
</plist>
"#
    );
    UnitFile {
        path: format!("/Library/LaunchDaemons/{label}.plist").into(),
        text,
    }
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
