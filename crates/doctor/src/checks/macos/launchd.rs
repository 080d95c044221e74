//! What `launchctl print` says of a service.

use crate::host::{Host, SOON};

/// A service, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// `running`, `not running`, `spawn scheduled`, ...
    pub(super) state: String,
    /// The exit code of its last run, if it has ended by itself.
    pub(super) last_exit: Option<i32>,
    /// The signal that ended its last run.
    pub(super) last_signal: Option<String>,
    /// How often it has been started.
    pub(super) runs: u32,
    /// It is started again whenever it ends.
    pub(super) keep_alive: bool,
    /// Why a socket of it could not be made.
    pub(super) socket_error: Option<String>,
}

impl Service {
    /// Of this name, among the system's; none if there is none, or nobody tells.
    pub(super) fn of(host: &Host, target: &str) -> Option<Self> {
        let said = host.ask("launchctl", ["print", target], SOON).ok()?;
        said.success.then(|| Self::parse(&said.stdout))
    }

    /// How it failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        if self.state == "running" {
            return None;
        }
        let starts = format!("after {} start(s)", self.runs);
        if let Some(signal) = &self.last_signal {
            return Some(format!("was ended by {signal}, {starts}"));
        }
        let code = self.last_exit.filter(|code| *code != 0)?;
        Some(format!("has ended with exit code {code}, {starts}"))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut service = Self::default();
        let mut in_sockets = Depth::default();
        for line in text.lines().map(str::trim) {
            in_sockets.take(line);
            let Some((name, value)) = line.split_once(" = ") else {
                continue;
            };
            match name {
                // The first: sub-sections have states, too.
                "state" if service.state.is_empty() => value.clone_into(&mut service.state),
                "last exit code" => {
                    let number = value.split(':').next().unwrap_or_default();
                    service.last_exit = number.trim().parse().ok();
                }
                "last terminating signal" => service.last_signal = Some(value.to_owned()),
                "runs" => service.runs = value.parse().unwrap_or(0),
                "properties" => service.keep_alive = value.contains("keepalive"),
                "error" if in_sockets.is_within() && value != "0" => {
                    service.socket_error = Some(value.to_owned());
                }
                _ => {}
            }
        }
        service
    }
}

/// Whether a line is within the section `sockets`.
#[derive(Default)]
struct Depth(usize);

impl Depth {
    fn take(&mut self, line: &str) {
        let opens = line.ends_with("= {");
        if self.0 == 0 {
            self.0 = usize::from(opens && line.starts_with("sockets ="));
        } else if opens {
            self.0 += 1;
        } else if line == "}" {
            self.0 -= 1;
        }
    }

    fn is_within(&self) -> bool {
        self.0 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASHES: &str = "system/org.nixos.linux-builder = {\n\tactive count = 0\n\tpath = /Library/LaunchDaemons/org.nixos.linux-builder.plist\n\ttype = LaunchDaemon\n\tstate = spawn scheduled\n\n\tprogram = /bin/sh\n\trunlevel = 1\n\truns = 41\n\tlast exit code = 78: EX_CONFIG\n\n\tsockets = {\n\t\t\"Listeners\" = {\n\t\t\ttype = stream\n\t\t\tstate = x\n\t\t\terror = 48: Address already in use\n\t\t}\n\t}\n\terror = 7\n\tproperties = keepalive | runatload | inferred program\n}\n";

    #[test]
    fn a_service_that_crashes() {
        let service = Service::parse(CRASHES);
        let expected = Service {
            state: "spawn scheduled".into(),
            last_exit: Some(78),
            last_signal: None,
            runs: 41,
            keep_alive: true,
            socket_error: Some("48: Address already in use".into()),
        };
        assert_eq!(service, expected);
        assert_eq!(
            service.failure().unwrap(),
            "has ended with exit code 78, after 41 start(s)"
        );
        let killed = Service::parse(
            "\tstate = not running\n\truns = 2\n\tlast terminating signal = Killed: 9\n",
        );
        assert_eq!(
            killed.failure().unwrap(),
            "was ended by Killed: 9, after 2 start(s)"
        );
    }

    #[test]
    fn a_service_that_waits_for_its_socket() {
        let never = Service::parse(
            "\tstate = not running\n\truns = 0\n\tlast exit code = (never exited)\n\tsockets = {\n\t\t\"builder\" = {\n\t\t\tactive = 1\n\t\t}\n\t}\n",
        );
        assert_eq!((never.last_exit, never.failure()), (None, None));
        assert!(!never.keep_alive && never.socket_error.is_none());
        // One that has ended in order waits for the next connection.
        let idle = Service::parse("\tstate = not running\n\truns = 3\n\tlast exit code = 0\n");
        assert_eq!(idle.failure(), None);
        let running = Service::parse("\tstate = running\n\tlast exit code = 1\n");
        assert_eq!(running.failure(), None);
    }
}
