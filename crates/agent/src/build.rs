//! `build DIRECTORY PROGRAM WORDS...`: this program as the builder of a derivation whose real one was
//! described elsewhere. It lays out the build's files, takes its environment, and becomes its program.
//!
//! `DIRECTORY/build` has the files, `DIRECTORY/environment` the variables, each ended by a zero byte.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Does not return where it works.
pub(crate) fn run() -> ExitCode {
    let mut words = std::env::args_os().skip(2);
    let (Some(directory), Some(program)) = (words.next(), words.next()) else {
        return ExitCode::from(2);
    };
    let error = become_it(Path::new(&directory), &program, words);
    // Its standard error is the build's log; there is nobody else to tell.
    drop(writeln!(
        io::stderr(),
        "error: executing '{}': {error}",
        program.display()
    ));
    ExitCode::FAILURE
}

fn become_it(
    directory: &Path,
    program: &OsStr,
    words: impl Iterator<Item = OsString>,
) -> io::Error {
    if let Err(error) = lay_out(&directory.join("build"), Path::new(".")) {
        return error;
    }
    let environment = match fs::read(directory.join("environment")) {
        Ok(environment) => environment,
        Err(error) => return error,
    };
    let variables = environment.split(|byte| *byte == 0).filter_map(variable);
    // As Nix does it: it is called by its file's name.
    let name = Path::new(program).file_name().unwrap_or(program);
    Command::new(program)
        .arg0(name)
        .args(words)
        .env_clear()
        .envs(variables)
        .exec()
}

fn variable(text: &[u8]) -> Option<(OsString, OsString)> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&text[..equals], &text[equals + 1..]);
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    // Variables without a name cannot be set.
    (!name.is_empty()).then(|| (owned(name), owned(value)))
}

/// Copies a tree over what is there.
fn lay_out(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(OsStr::from_bytes(entry.file_name().as_bytes()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => lay_out(&entry.path(), &target)?,
            }
        } else {
            match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
            } else {
                fs::copy(entry.path(), &target)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let os = |text: &str| OsString::from(text);
        assert_eq!(variable(b"A=b=c"), Some((os("A"), os("b=c"))));
        assert_eq!(variable(b"A="), Some((os("A"), os(""))));
        assert_eq!(variable(b"=x"), None);
        assert_eq!(variable(b""), None);
    }
}
