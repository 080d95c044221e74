//! Names of machines: host names that are also Python variables.

use std::fmt;
use std::str::FromStr;

use crate::SyntaxError;

/// The name of a machine: its host name, a name in everybody's `/etc/hosts`, and, with `-` as `_`,
/// a variable of the test script.
///
/// One DNS label in lower case that begins with a letter: letters, digits and `-`, at most 63.
/// Since no name has a `_`, no two names become the same variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

const HELP: &str = "a name is a host name: lower-case letters, digits and `-`, beginning with a letter, at most 63";

/// Names that a script already has: Python's keywords, and what the driver puts there.
const TAKEN: &[&str] = &[
    // Python
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "print",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
    // the driver
    "create-machine",
    "debug",
    "driver",
    "join-all",
    "lab",
    "log",
    "machine",
    "machines",
    "machinist",
    "os",
    "polling-condition",
    "re",
    "retry",
    "run-tests",
    "serial-stdout-off",
    "serial-stdout-on",
    "start-all",
    "subtest",
    "t",
    "test-script",
    "time",
    "typing",
    "vlans",
];

impl MachineName {
    /// The name as the host name that it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The variable of a Python script: `-` becomes `_`.
    #[must_use]
    pub fn python(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl FromStr for MachineName {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let wrong = |why: &str, help: String| {
            Err(SyntaxError::new(
                format!("`{text}` cannot be the name of a machine: {why}"),
                help,
            ))
        };
        let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() {
            return wrong("it is empty", HELP.into());
        }
        if text.len() > 63 {
            return wrong("it is too long", HELP.into());
        }
        if let Some(bad) = text.chars().find(|c| !usable(*c)) {
            let proposal = proposal(text);
            let help = if proposal.is_empty() {
                HELP.into()
            } else {
                format!("`{proposal}` would do; {HELP}")
            };
            return wrong(&format!("host names have no {bad:?}"), help);
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return wrong("it does not begin with a letter", HELP.into());
        }
        if text.ends_with('-') {
            return wrong("it ends with `-`", HELP.into());
        }
        if text == "localhost" {
            return wrong(
                "every machine calls itself that",
                "choose another name".into(),
            );
        }
        if TAKEN.contains(&text) {
            let help = format!("choose another name, such as `{text}-1`");
            return wrong("test scripts use this name for something else", help);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The nearest usable name, or nothing.
fn proposal(text: &str) -> String {
    let name: String = text
        .to_lowercase()
        .chars()
        .map(|c| {
            if c == '_' || c == '.' || c == ' ' {
                '-'
            } else {
                c
            }
        })
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    name.trim_matches(|c: char| c == '-')
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
        .to_owned()
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for MachineName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for MachineName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for good in ["web", "a", "db-1", "n2", "x--y"] {
            assert_eq!(good.parse::<MachineName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "Web",
            "my_db",
            "1st",
            "-a",
            "a-",
            "a.b",
            "localhost",
            "driver",
            "t",
            "class",
            &long,
        ] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
        let error = "My_DB".parse::<MachineName>().unwrap_err();
        assert!(error.help().starts_with("`my-db` would do"), "{error:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_a_host_name_and_a_variable(text in "\\PC*|[a-z0-9-]{1,70}") {
            if let Ok(name) = text.parse::<MachineName>() {
                prop_assert!(name.as_str().len() <= 63);
                let python = name.python();
                prop_assert!(python.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
                prop_assert!(!python.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
    }
}
