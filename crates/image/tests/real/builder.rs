//! The program that makes an image, and the tests' handle on it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use machinist_image::{ImageError, ImageSpec, Source, Store, Want};

/// What `/init` of the initrds is, in these tests.
pub(crate) const AGENT: &[u8] = b"an agent";

/// `__ensure CACHE WANT SUITE MIRROR PACKAGE...`; steps and errors go to standard output.
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let mut next = || args.next().unwrap_or_default();
    let (cache, want, suite, mirror) = (next(), next(), next(), next());
    let want = match want.as_str() {
        "vm" => Want::Vm {
            shared_folders: false,
        },
        _ => Want::Container,
    };
    let spec = ImageSpec {
        source: Source::Debian {
            suite,
            packages: args.collect(),
        },
        files: Vec::new(),
    };
    let mirror = Some(mirror).filter(|mirror| !mirror.is_empty());
    match ensure(Path::new(&cache), &spec, want, mirror) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            say(&format!("hint: {}", error.hint().unwrap_or_default()));
            ExitCode::FAILURE
        }
    }
}

fn ensure(
    cache: &Path,
    spec: &ImageSpec,
    want: Want,
    mirror: Option<String>,
) -> Result<(), ImageError> {
    let store = Store::open(cache, AGENT)?.with_mirror(mirror);
    store.ensure(spec, want, &|step| say(&step.to_string()))?;
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening any more.
    drop(writeln!(out, "{line}"));
    drop(out.flush());
}

/// A builder that runs.
pub(crate) struct Builder {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
}

impl Builder {
    /// Starts `__ensure` with these arguments, by way of `wrapper` if it is not empty.
    pub(crate) fn start<S: AsRef<OsStr>>(
        wrapper: &[&str],
        path: Option<&Path>,
        args: &[S],
    ) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = match wrapper.split_first() {
            None => Command::new(&own),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&own);
                command
            }
        };
        command.arg("__ensure").args(args).stdout(Stdio::piped());
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads on until a line has `text`; false if it ends before.
    pub(crate) fn wait_for(&mut self, text: &str) -> bool {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return true;
            }
            line.clear();
        }
        false
    }

    /// All that it still says, and whether it succeeded.
    pub(crate) fn finish(mut self) -> (bool, String) {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().success(), text)
    }
}

/// A directory for a cache, on the disk where the build is: `/tmp` may be mounted `nodev`.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The names in a directory of the cache.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
