//! Steps: tests without code.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::MachineName;
use super::storage::check_guest_path;
use crate::SyntaxError;

/// One step of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line of the lab file, counted from 1.
    pub line: usize,
    /// Where it happens.
    pub machine: MachineName,
    /// What happens.
    pub action: Action,
    /// How long it may take; none: as long as the test.
    pub timeout: Option<Duration>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Waits until something is true.
    Wait(WaitFor),
    /// Runs a command, and looks at how it ends.
    Run {
        /// The command.
        program: Program,
        /// Who runs it; none: root.
        user: Option<String>,
        /// The exit status it must have.
        status: i32,
        /// What must be true of its standard output.
        stdout: Expect,
        /// What must be true of its standard error.
        stderr: Expect,
    },
    /// Copies a file or tree of the host into the machine.
    CopyIn {
        /// On the host; a relative path is relative to the lab file.
        from: PathBuf,
        /// In the machine, absolute.
        to: PathBuf,
    },
    /// Copies a file or tree of the machine to the host.
    CopyOut {
        /// In the machine, absolute.
        from: PathBuf,
        /// On the host; a relative path is relative to the lab file.
        to: PathBuf,
    },
}

/// How a command is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// For a shell.
    Shell(String),
    /// Program and arguments; at least one word.
    Argv(Vec<String>),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => f.write_str(text),
            Self::Argv(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// What must be true of a text; nothing, if nothing is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expect {
    /// It has this somewhere.
    pub contains: Option<String>,
    /// This regular expression matches somewhere.
    pub matches: Option<String>,
    /// It is this; line ends at the end of both do not count.
    pub equals: Option<String>,
}

impl Expect {
    /// What is wrong with `text`, as the end of a sentence such as "standard output ..."; none if
    /// everything holds.
    #[must_use]
    pub fn mismatch(&self, text: &str) -> Option<String> {
        let trim = |text: &str| text.trim_end_matches(['\n', '\r']).to_owned();
        if let Some(wanted) = &self.contains
            && !text.contains(wanted.as_str())
        {
            return Some(format!("does not contain {wanted:?}"));
        }
        if let Some(wanted) = &self.matches
            && !regex::Regex::new(wanted).is_ok_and(|regex| regex.is_match(text))
        {
            return Some(format!("does not match /{wanted}/"));
        }
        match &self.equals {
            Some(wanted) if trim(text) != trim(wanted) => {
                Some(format!("is {:?}, not {:?}", trim(text), trim(wanted)))
            }
            _ => None,
        }
    }
}

/// What can be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// Somebody listens on a TCP port.
    Port(u16),
    /// A file, or anything with a name, is there.
    File(PathBuf),
    /// A unit is active. The name has its suffix.
    Unit(String),
    /// Somebody listens on a Unix socket.
    Socket(PathBuf),
    /// The console says something that this regular expression matches.
    Console(String),
    /// The journal has an entry since the machine's boot whose message this regular expression
    /// matches.
    Journal(String),
    /// The machine is ready, as its `ready` says.
    Ready,
}

impl FromStr for WaitFor {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let help = "`port:80`, `unit:NAME`, `file:/PATH`, `socket:/PATH`, `journal:REGEX`, \
                    `console:REGEX` or `ready`";
        let wrong = || SyntaxError::new(format!("`{text}` is nothing to wait for"), help);
        if text == "ready" {
            return Ok(Self::Ready);
        }
        let (what, rest) = text.split_once(':').ok_or_else(wrong)?;
        match what {
            "port" => match rest.parse() {
                Ok(port) if port > 0 => Ok(Self::Port(port)),
                _ => Err(SyntaxError::new(
                    format!("`{rest}` is not a port"),
                    "ports are numbered 1 to 65535",
                )),
            },
            "unit" => unit_name(rest).map(Self::Unit),
            "file" => check_guest_path(rest).map(|()| Self::File(rest.into())),
            "socket" => check_guest_path(rest).map(|()| Self::Socket(rest.into())),
            "journal" => check_regex(rest).map(|()| Self::Journal(rest.into())),
            "console" => check_regex(rest).map(|()| Self::Console(rest.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Journal(regex) => write!(f, "journal /{regex}/"),
            Self::Console(regex) => write!(f, "console /{regex}/"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

/// A unit's full name: `.service` is added to a name without a suffix.
pub(crate) fn unit_name(text: &str) -> Result<String, SyntaxError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if text.is_empty() || text.len() > 255 || !text.chars().all(usable) {
        let message = format!("`{text}` is not the name of a unit");
        return Err(SyntaxError::new(message, "such as `nginx.service`"));
    }
    Ok(if text.contains('.') {
        text.to_owned()
    } else {
        format!("{text}.service")
    })
}

/// Whether it is a regular expression.
pub(crate) fn check_regex(text: &str) -> Result<(), SyntaxError> {
    match regex::Regex::new(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or("").trim();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Err(SyntaxError::new(
                format!("this is not a regular expression: {why}"),
                "a `\\` or `[` that is meant as itself is written `\\\\` or `\\[`; \
                 TOML strings in single quotes need no doubled `\\`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits() {
        let wait = |text: &str| text.parse::<WaitFor>().map(|wait| wait.to_string());
        assert_eq!(wait("port:80").unwrap(), "port 80");
        assert_eq!(wait("unit:nginx").unwrap(), "unit nginx.service");
        assert_eq!(wait("unit:a@b.socket").unwrap(), "unit a@b.socket");
        assert_eq!(wait("console:login: $").unwrap(), "console /login: $/");
        assert_eq!(wait("journal:started").unwrap(), "journal /started/");
        for bad in [
            "",
            "journal:(",
            "port",
            "port:0",
            "port:x",
            "file:x",
            "console:[",
            "unit:",
            "reddy",
        ] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expectations() {
        let expect = Expect {
            contains: Some("b".into()),
            matches: Some("^a.c$".into()),
            equals: Some("abc".into()),
        };
        assert_eq!(
            expect.mismatch("abc\n"),
            Some("does not match /^a.c$/".into())
        );
        assert_eq!(expect.mismatch("abc"), None);
        assert_eq!(expect.mismatch("x"), Some("does not contain \"b\"".into()));
        assert_eq!(Expect::default().mismatch("anything"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(port|unit|file|console|journal|socket|command)?:?.*") {
            drop(text.parse::<WaitFor>());
            drop(text.parse::<super::super::Ready>());
            drop(text.parse::<super::super::Source>());
        }
    }
}
