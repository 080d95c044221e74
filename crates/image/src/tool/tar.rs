//! tar(1), which unpacks archives: it knows every format and compression that people have.

use std::ffi::OsString;
use std::path::Path;

use super::Tool;

/// The tool that unpacks `archive` into the directory `target`.
pub(crate) fn unpack(archive: &Path, target: &Path) -> Tool {
    Tool {
        program: "tar",
        package: "tar",
        args: unpack_args(archive, target),
        temporary: None,
        isolated: false,
        hint: |_| None,
    }
}

fn unpack_args(archive: &Path, target: &Path) -> Vec<OsString> {
    // Numbers, because the names of users are the host's; the archive's own device nodes stay out,
    // because every machine brings its own /dev.
    let options = "--extract --numeric-owner --preserve-permissions --same-owner --sparse \
                   --xattrs --xattrs-include=* --acls --exclude=./dev/* --exclude=dev/*";
    let mut args: Vec<OsString> = options.split_whitespace().map(OsString::from).collect();
    for (option, value) in [("--file", archive), ("--directory", target)] {
        args.push(option.into());
        args.push(value.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking() {
        let args = unpack_args(Path::new("/x/root.tar.xz"), Path::new("/cache/root"));
        let words: Vec<_> = args.iter().map(|word| word.to_str().unwrap()).collect();
        insta::assert_snapshot!(words.join(" "), @"--extract --numeric-owner --preserve-permissions --same-owner --sparse --xattrs --xattrs-include=* --acls --exclude=./dev/* --exclude=dev/* --file /x/root.tar.xz --directory /cache/root");
    }
}
