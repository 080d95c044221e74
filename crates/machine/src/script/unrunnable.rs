//! Why a start script cannot be run.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// How much of a script's first line the kernel reads, in bytes.
const LINE: u64 = 256;

/// `error`, of running `program`; or, where the kernel means by it what the script is to be read by, that.
/// A script that came without its closure is told from one that is not there.
pub(super) fn unrunnable(program: &Path, error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    match interpreter(program) {
        Some(interpreter) if !Path::new(&interpreter).exists() => {
            let text = format!("there is no {interpreter}, which its first line names");
            io::Error::new(error.kind(), text)
        }
        _ => error,
    }
}

fn interpreter(program: &Path) -> Option<String> {
    let mut line = String::new();
    let file = File::open(program).ok()?.take(LINE);
    BufReader::new(file).read_line(&mut line).ok()?;
    let name = line.strip_prefix("#!")?.split_whitespace().next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("run-a-vm");
        std::fs::write(&script, "#! /no/such/python3 -I\nprint()\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let told = |program: &Path| {
            loop {
                let error = std::process::Command::new(program).spawn().unwrap_err();
                // Another test forked while the file was written, and has not yet let go of it.
                if error.kind() != ErrorKind::ExecutableFileBusy {
                    break unrunnable(program, error).to_string();
                }
            }
        };
        assert_eq!(
            told(&script),
            "there is no /no/such/python3, which its first line names"
        );
        let absent = directory.path().join("run-b-vm");
        assert!(
            told(&absent).starts_with("No such file"),
            "{}",
            told(&absent)
        );
        assert!(told(directory.path()).starts_with("Permission denied"));
    }
}
