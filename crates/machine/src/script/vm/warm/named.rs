//! Files of the host that a text names by their whole paths: a start script, or a word of QEMU's
//! command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is in there never changes under its name.
const STORE: &str = "/nix/store";

/// What stands before or after a path, in scripts and in QEMU's lists of options.
const AROUND: &[char] = &[
    ' ', '\t', '\n', '\r', ',', '=', ':', ';', '"', '\'', '$', '(', ')', '{', '}', '<', '>', '|',
    '&', '`', '\\',
];

/// The files that `text` names and that can change. What is no file is not told.
pub(super) fn files(text: &str) -> BTreeSet<PathBuf> {
    let words = text.split(AROUND).map(without_operator);
    let words = words.filter(|word| word.starts_with('/'));
    let paths = words.map(Path::new).filter(|path| !is_fixed(path));
    let files = paths.filter(|path| path.is_file());
    files.map(Path::to_owned).collect()
}

/// What stands behind the operator in `${NAME:-WORD}` or `${NAME-WORD}`, whose name and colon, if
/// there is one, may be before it.
fn without_operator(word: &str) -> &str {
    let Some(at) = word.find('/') else {
        return word;
    };
    let (before, path) = word.split_at(at);
    if before.ends_with(['-', '+', '?']) {
        path
    } else {
        word
    }
}

/// Whether a path's contents are a matter of its name alone.
pub(super) fn is_fixed(path: &Path) -> bool {
    path.starts_with(STORE)
}

/// The names of variables that a script takes from its environment, as far as they can be seen.
pub(super) fn variables(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for after in text.split('$').skip(1) {
        let after = after.strip_prefix('{').unwrap_or(after);
        let after = after.strip_prefix(['!', '#']).unwrap_or(after);
        let end = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let name = &after[..end];
        if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            names.insert(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_scripts_and_in_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.img");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        for text in [
            format!("exec qemu -drive file={path},if=none"),
            format!("cp \"{path}\" disk\n"),
            format!("x=${{DISK:-{path}}}"),
            format!("x=${{DISK-{path}}} y=\"${{DISK:+{path}}}\""),
            path.to_owned(),
        ] {
            let found: Vec<_> = files(&text).into_iter().collect();
            assert_eq!(found, [Path::new(path)], "{text}");
        }
        // Directories, what is not there, and what is only a part of a word.
        let none = format!("{} {path}x a{path}", dir.path().display());
        assert_eq!(files(&none), BTreeSet::new());
    }

    #[test]
    fn variables_are_found_however_they_are_written() {
        let text = "[ -z \"$TMPDIR\" ] || X=${NIX_DISK_IMAGE:-x} $QEMU_OPTS \"$@\" $1 $$ ${!REF}";
        let found: Vec<_> = variables(text).into_iter().collect();
        assert_eq!(found, ["NIX_DISK_IMAGE", "QEMU_OPTS", "REF", "TMPDIR"]);
    }
}
