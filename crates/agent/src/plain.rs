//! Scripts that are one plain command, which need no shell.
//!
//! Starting bash costs more than all else that a short command does. Where a script is a program's
//! name and plain words, the program is run as bash would run it; anything else is bash's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

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

/// The words of `script`, where it is a plain command in the environment `env`.
pub(crate) fn words(script: &OsStr, env: &[(OsString, OsString)]) -> Option<Vec<OsString>> {
    let words = split(script)?;
    let first = words.first()?;
    // A function of that name would come before the program.
    let functions = env
        .iter()
        .any(|(name, _)| name.as_bytes().starts_with(b"BASH_"));
    if functions || first.contains('=') || BASH.contains(first) {
        return None;
    }
    // What is found from the current directory on, bash may see differently.
    let absolute = match first.contains('/') {
        true => first.starts_with('/'),
        false => std::env::split_paths(&env.iter().find(|(name, _)| name == "PATH")?.1)
            .all(|dir| dir.is_absolute()),
    };
    absolute.then(|| words.iter().map(OsString::from).collect())
}

/// The words of a line in which bash would expand nothing.
fn split(script: &OsStr) -> Option<Vec<&str>> {
    let text = script.to_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+,=- ".contains(&byte);
    if !text.bytes().all(plain) {
        return None;
    }
    Some(text.split(' ').filter(|word| !word.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(script: &str) -> Option<Vec<OsString>> {
        words(OsStr::new(script), &env("/nowhere:/usr/bin:/bin"))
    }

    fn env(path: &str) -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), path.into())]
    }

    #[test]
    fn a_plain_command_is_run_itself() {
        let found = plain(" ls  -l --color=never /etc/passwd ");
        let want = ["ls", "-l", "--color=never", "/etc/passwd"];
        assert_eq!(found, Some(want.map(OsString::from).to_vec()));
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
            "./true",
            "time true",
            "ls {a,b}",
            "ls # no",
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
        assert_eq!(words(OsStr::new("true"), &env), None);
        // Whatever is in the current directory comes first.
        assert_eq!(words(OsStr::new("true"), &self::env(":/usr/bin")), None);
    }
}
