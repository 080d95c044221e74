//! How an init system runs a builder's service: it makes the socket, and starts the service with that
//! as its standard input when somebody first connects.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::state::State;

/// How long a service may take to stop its machine, in seconds.
const STOP: u32 = 120;

/// A file of an init system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// Where it goes.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// systemd's socket and service of a builder; `exe` is our program.
#[must_use]
pub fn systemd(state: &State, exe: &Path) -> [UnitFile; 2] {
    let name = state.name();
    let unit = |kind: &str, text: String| UnitFile {
        path: format!("/etc/systemd/system/machinist-builder-{name}.{kind}").into(),
        text,
    };
    let socket = format!(
        "[Unit]
Description=Builder {name} for Nix

[Socket]
ListenStream={}
SocketMode=0600

[Install]
WantedBy=sockets.target
",
        specifier(&state.socket())
    );
    let service = format!(
        "[Unit]
Description=Builder {name} for Nix

[Service]
ExecStart={} builder serve {}
StandardInput=socket
StandardOutput=journal
StandardError=journal
# Containers of builders have cgroups below, and their builds again.
Delegate=yes
KillMode=mixed
TimeoutStopSec={STOP}
",
        specifier(exe),
        specifier(state.path()),
    );
    [unit("socket", socket), unit("service", service)]
}

/// launchd's job of a builder; `exe` is our program.
#[must_use]
pub fn launchd(state: &State, exe: &Path) -> UnitFile {
    let label = format!("machinist.builder.{}", state.name());
    let (exe, directory) = (xml(exe), xml(state.path()));
    let (socket, log) = (xml(&state.socket()), xml(&state.path().join("launchd.log")));
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
		<string>builder</string>
		<string>serve</string>
		<string>{directory}</string>
	</array>
	<key>Sockets</key>
	<dict>
		<key>builder</key>
		<dict>
			<key>SockPathName</key>
			<string>{socket}</string>
			<key>SockPathMode</key>
			<integer>384</integer>
		</dict>
	</dict>
	<key>inetdCompatibility</key>
	<dict>
		<key>Wait</key>
		<true/>
	</dict>
	<key>ExitTimeOut</key>
	<integer>{STOP}</integer>
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

/// A path as systemd reads it in a unit: quoted where it must be, with its specifiers doubled.
pub(crate) fn specifier(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-%@:=,".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        // In a command line it is a variable's.
        if c == '$' {
            quoted.push('$');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

pub(crate) fn xml(path: &Path) -> String {
    let mut text = String::new();
    for c in path.display().to_string().chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                _ = write!(text, "&#{};", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::of(Path::new("/var/lib/machinist/builders"), "linux")
    }

    #[test]
    fn systemd_starts_it_by_its_socket() {
        let [socket, service] = systemd(&state(), Path::new("/opt/my tools/machinist"));
        assert!(
            socket
                .text
                .contains("\nListenStream=/var/lib/machinist/builders/linux/socket\n")
        );
        let start = "\nExecStart=\"/opt/my tools/machinist\" builder serve /var/lib/machinist/builders/linux\n";
        assert!(service.text.contains(start), "{}", service.text);
        assert!(service.text.contains("\nStandardInput=socket\n"));
        assert_eq!(specifier(Path::new("/a%b")), "/a%%b");
    }

    #[test]
    fn launchd_starts_it_by_its_socket() {
        let job = launchd(&state(), Path::new("/opt/a&b/machinist"));
        assert!(job.path.ends_with("machinist.builder.linux.plist"));
        assert!(job.text.contains("<string>/opt/a&amp;b/machinist</string>"));
        assert_eq!(0o600, 384);
        let opened = job.text.matches("<dict>").count();
        assert_eq!(opened, job.text.matches("</dict>").count());
        // Nothing keeps it alive: it would start again right after it has stopped.
        assert!(!job.text.contains("KeepAlive"));
    }
}
