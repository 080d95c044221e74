//! Scripts that are one plain command, which need no shell.
//!
//! Starting bash costs more than all else that a short command does. Where a script is a program's
//! name and plain words, the program is run as bash would run it; anything else is bash's.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// First words that mean something to bash itself, and not the same as the program of that name.
/// (`true` and `false` do.)
const BASH: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// A command that needs no shell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// The program's file.
    pub(crate) file: PathBuf,
    /// Its arguments, the first of which is its name as the script says it.
    pub(crate) argv: Vec<OsString>,
}

impl Plain {
    /// `script`, where it is a plain command in the environment `env`.
    pub(crate) fn of(script: &OsStr, env: &[(OsString, OsString)]) -> Option<Self> {
        let words = words(script)?;
        let first = words.first()?;
        // A function of that name would come before the program.
        let functions = env
            .iter()
            .any(|(name, _)| name.as_bytes().starts_with(b"BASH_"));
        if functions || first.contains('=') || BASH.contains(first) {
            return None;
        }
        Some(Self {
            file: find(first, env)?,
            argv: words.iter().map(OsString::from).collect(),
        })
    }
}

/// The words of a line in which bash would expand nothing.
fn words(script: &OsStr) -> Option<Vec<&str>> {
    let text = script.to_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+,=- ".contains(&byte);
    if !text.bytes().all(plain) {
        return None;
    }
    Some(text.split(' ').filter(|word| !word.is_empty()).collect())
}

/// The file that bash would run, if it is one that the kernel runs as well.
fn find(name: &str, env: &[(OsString, OsString)]) -> Option<PathBuf> {
    if name.contains('/') {
        return name
            .starts_with('/')
            .then(|| PathBuf::from(name))
            .filter(|path| runs(path));
    }
    let path = env.iter().find(|(name, _)| name == "PATH")?;
    let found = path
        .1
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|dir| Path::new(OsStr::from_bytes(dir)).join(name))
        .find(|path| !path.is_absolute() || path.exists())?;
    (found.is_absolute() && runs(&found)).then_some(found)
}

/// Whether the kernel runs it: a script without `#!` is bash's to read.
fn runs(path: &Path) -> bool {
    let executable = path
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let mut start = [0; 4];
    let read = executable && File::open(path).is_ok_and(|mut file| file.read(&mut start).is_ok());
    read && (start == *b"\x7fELF" || start.starts_with(b"#!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(script: &str) -> Option<Plain> {
        Plain::of(OsStr::new(script), &env("/nowhere:/usr/bin:/bin"))
    }

    fn env(path: &str) -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), path.into())]
    }

    #[test]
    fn a_plain_command_is_run_itself() {
        let found = plain(" ls  -l --color=never /etc/passwd ");
        let want = ["ls", "-l", "--color=never", "/etc/passwd"];
        let want = Plain {
            file: "/usr/bin/ls".into(),
            argv: want.map(OsString::from).to_vec(),
        };
        assert_eq!(found, Some(want));
    }

    #[test]
    fn the_rest_is_for_bash() {
        for script in [
            "",
            " ",
            "cd /tmp",
            "echo a",
            "exit 3",
            "A=1 true",
            "ls *",
            "ls ~",
            "ls $HOME",
            "ls; ls",
            "ls | cat",
            "ls\nls",
            "ls 'a b'",
            "ls > x",
            "ls &",
            "nosuchprogram",
            "./true",
            "time true",
            "ls {a,b}",
            "ls # no",
            "/etc/passwd",
            "ls a\\ b",
            "lé",
        ] {
            assert_eq!(plain(script), None, "{script}");
        }
    }

    #[test]
    fn functions_and_odd_paths_are_for_bash() {
        let mut env = env("/usr/bin");
        env.push(("BASH_FUNC_true%%".into(), "() { false; }".into()));
        assert_eq!(Plain::of(OsStr::new("true"), &env), None);
        // Whatever is in the current directory comes first.
        assert_eq!(Plain::of(OsStr::new("true"), &self::env(":/usr/bin")), None);
    }
}
