//! The test programs that cargo builds: which there are, and running them one after another.

use std::io::{BufRead, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tally::Tally;
use crate::command::{cargo, command, shown};

/// What a test program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Nothing.
    Unit,
    /// The `machinist` program.
    Cli,
    /// Real machines, and the two cores of the host for itself.
    Machines,
    /// The same, in the sandbox of a real Nix.
    Nix,
}

impl Group {
    /// The most that one test program may take. Tests have limits of their own; this one is for a
    /// program that hangs.
    fn limit(self) -> &'static str {
        match self {
            Self::Unit | Self::Cli => "4m",
            Self::Machines | Self::Nix => "15m",
        }
    }
}

/// One test program.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    name: String,
    path: PathBuf,
    package: PathBuf,
    group: Group,
}

/// All test programs, built when they are first asked for.
#[derive(Default)]
pub struct Binaries {
    built: Option<Vec<Binary>>,
}

impl Binaries {
    /// Builds what is not built, and runs the programs of `group`.
    pub fn run(&mut self, group: Group, tally: &mut Tally) -> Result<()> {
        if self.built.is_none() {
            self.built = Some(build()?);
        }
        for binary in self.built.iter().flatten().filter(|it| it.group == group) {
            // Real machines take their time: show each test as it ends.
            let live = matches!(group, Group::Machines | Group::Nix);
            let mut program = command("timeout", ["--kill-after=10s", group.limit()]);
            program.arg(&binary.path).current_dir(&binary.package);
            run_one(&binary.name, &mut program, live, tally)?;
        }
        Ok(())
    }
}

/// Runs the examples in the documentation of all crates.
pub fn doc_tests(tally: &mut Tally) -> Result<()> {
    let mut program = cargo(["test", "--quiet", "--doc", "--workspace", "--no-fail-fast"]);
    run_one(
        "doc tests",
        program.args(["--", "--format=pretty"]),
        false,
        tally,
    )
}

/// Runs one test program and counts its tests. What it prints is shown as it comes when `live`,
/// else only if something failed.
fn run_one(name: &str, program: &mut Command, live: bool, tally: &mut Tally) -> Result<()> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let both = writer.try_clone().context("cannot make a pipe")?;
    program.stdin(Stdio::null()).stdout(writer).stderr(both);
    let words = shown(program);
    let begin = Instant::now();
    let mut child = program
        .spawn()
        .with_context(|| format!("cannot run {words}"))?;
    // Our copies of the pipe's end would keep it open for ever.
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let output = collect(reader, live)?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {words}"))?;
    let mut own = Tally::default();
    own.add_libtest(name, &output, status.success());
    if !own.is_ok() && !live {
        println!("{output}");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name}: {} ({seconds:.1} s)", own.counts());
    if !status.success() {
        println!("{name}: {status}; run it again: {words}");
    }
    tally.add(own);
    Ok(())
}

fn collect(reader: PipeReader, live: bool) -> Result<String> {
    let mut all = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut begin = Instant::now();
    while reader
        .read_until(b'\n', &mut line)
        .context("cannot read a test's output")?
        > 0
    {
        let text = String::from_utf8_lossy(&line);
        if live && text.starts_with("test ") {
            let seconds = begin.elapsed().as_secs_f64();
            println!("{} ({seconds:.1} s)", text.trim_end());
            begin = Instant::now();
        } else if live {
            print!("{text}");
        }
        all += &text;
        line.clear();
    }
    Ok(all)
}

/// Builds all test programs, and the `machinist` that some of them run.
fn build() -> Result<Vec<Binary>> {
    let mut build = cargo([
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = build
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    crate::command::run(&mut cargo([
        "build",
        "--quiet",
        "--package",
        "machinist-cli",
    ]))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// A test program from one line of cargo's messages.
fn parse(line: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let target = message["target"]["name"].as_str()?;
    let kind = message["target"]["kind"][0].as_str()?;
    let package = Path::new(message["manifest_path"].as_str()?).parent()?;
    let folder = package.file_name()?.to_str()?;
    let name = if kind == "test" {
        format!("{folder}/{target}")
    } else {
        folder.to_owned()
    };
    Some(Binary {
        name,
        path,
        package: package.to_path_buf(),
        group: group(folder, kind, target),
    })
}

/// Test targets that are called `real...` boot machines, and so do all of the package `tests` but
/// the one for the command line.
fn group(folder: &str, kind: &str, target: &str) -> Group {
    match (folder, kind) {
        ("tests", "test") if matches!(target, "cli" | "nixos") => Group::Cli,
        ("tests", "test") if matches!(target, "builder" | "nix") => Group::Nix,
        ("tests", "test") => Group::Machines,
        (_, "test") if target.starts_with("real") => Group::Machines,
        _ => Group::Unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_other_artifacts() {
        let line = |test: bool, kind: &str, name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","executable":"/w/target/x",
                "target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}}}}"#
            )
        };
        let group = |line: String| parse(&line).map(|binary| binary.group);
        assert_eq!(group(line(false, "bin", "machinist")), None);
        assert_eq!(
            group(line(true, "lib", "machinist_tests")),
            Some(Group::Unit)
        );
        assert_eq!(group(line(true, "test", "cli")), Some(Group::Cli));
        assert_eq!(group(line(true, "test", "cluster")), Some(Group::Machines));
        assert_eq!(group(line(true, "test", "nix")), Some(Group::Nix));
        assert_eq!(parse("warning: not JSON"), None);
    }
}
