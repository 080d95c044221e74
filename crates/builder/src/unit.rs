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
    Systemd {
        name: format!("machinist-builder-{name}"),
        description: format!("Builder {name} for Nix"),
        socket: &state.socket(),
        rights: "SocketMode=0600".into(),
        command: format!(
            "{} builder serve {}",
            specifier(exe),
            specifier(state.path())
        ),
        service: format!(
            "# Containers of builders have cgroups below, and their builds again.
Delegate=yes
KillMode=mixed
TimeoutStopSec={STOP}"
        ),
    }
    .files()
}

/// launchd's job of a builder; `exe` is our program.
#[must_use]
pub fn launchd(state: &State, exe: &Path) -> UnitFile {
    Launchd {
        label: format!("machinist.builder.{}", state.name()),
        words: [exe, Path::new("builder"), Path::new("serve"), state.path()],
        sockets: "builder",
        socket: &state.socket(),
        mode: 0o600,
        group: None,
        more: format!("<key>ExitTimeOut</key>\n\t<integer>{STOP}</integer>"),
        log: &state.path().join("launchd.log"),
    }
    .file()
}

/// A service of systemd's that is started by its socket, which is its standard input.
pub(crate) struct Systemd<'a> {
    /// Of both units, without their kind.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) socket: &'a Path,
    /// Lines that say who may connect.
    pub(crate) rights: String,
    pub(crate) command: String,
    /// More lines of the service.
    pub(crate) service: String,
}

impl Systemd<'_> {
    pub(crate) fn files(&self) -> [UnitFile; 2] {
        let Self {
            name,
            description,
            rights,
            command,
            service,
            ..
        } = self;
        // A socket's path is all of its line: quotes would be part of it.
        let listens = self.socket.display().to_string().replace('%', "%%");
        let unit = |kind: &str, text: String| UnitFile {
            path: format!("/etc/systemd/system/{name}.{kind}").into(),
            text: format!("[Unit]\nDescription={description}\n\n{text}"),
        };
        let socket = format!(
            "[Socket]
ListenStream={listens}
{rights}

[Install]
WantedBy=sockets.target
"
        );
        let service = format!(
            "[Service]
ExecStart={command}
StandardInput=socket
StandardOutput=journal
StandardError=journal
{service}
"
        );
        [unit("socket", socket), unit("service", service)]
    }
}

/// A job of launchd's that is started by its socket, which is its standard input.
pub(crate) struct Launchd<'a> {
    pub(crate) label: String,
    pub(crate) words: [&'a Path; 4],
    /// What the socket is called.
    pub(crate) sockets: &'static str,
    pub(crate) socket: &'a Path,
    /// Who may connect.
    pub(crate) mode: u32,
    /// The number of the socket's group, where it has one of its own.
    pub(crate) group: Option<u32>,
    /// More keys.
    pub(crate) more: String,
    pub(crate) log: &'a Path,
}

impl Launchd<'_> {
    pub(crate) fn file(&self) -> UnitFile {
        let Self {
            label,
            sockets,
            mode,
            more,
            ..
        } = self;
        let words = self
            .words
            .map(|word| format!("<string>{}</string>", xml(word)));
        let words = words.join("\n\t\t");
        let (socket, log) = (xml(self.socket), xml(self.log));
        let group = self.group.map_or_else(String::new, |group| {
            format!("\n\t\t\t<key>SockPathGroup</key>\n\t\t\t<integer>{group}</integer>")
        });
        let text = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>{label}</string>
	<key>ProgramArguments</key>
	<array>
		{words}
	</array>
	<key>Sockets</key>
	<dict>
		<key>{sockets}</key>
		<dict>
			<key>SockPathName</key>
			<string>{socket}</string>
			<key>SockPathMode</key>
			<integer>{mode}</integer>{group}
		</dict>
	</dict>
	<key>inetdCompatibility</key>
	<dict>
		<key>Wait</key>
		<true/>
	</dict>
	{more}
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
}

/// A path as systemd reads it in a command line: quoted where it must be, with its specifiers doubled.
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

fn xml(path: &Path) -> String {
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
        let state = State::of(Path::new("/my builders/50%"), "linux");
        let [socket, _] = systemd(&state, Path::new("/machinist"));
        let listens = "\nListenStream=/my builders/50%%/linux/socket\n";
        assert!(socket.text.contains(listens), "{}", socket.text);
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
