//! The test programs that cargo builds: which there are, and running one.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use machinist_tests::OTHER_PROGRAM;
use serde_json::Value;

use super::Stage;
use super::lanes::Job;
use super::tally::Tally;
use crate::command::{cargo, command, machinist, shown};

/// What a test program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Nothing.
    Unit,
    /// The `machinist` program.
    Cli,
    /// Real machines.
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
            Self::Machines | Self::Nix => "20m",
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

/// The test programs that have not been given out yet.
#[derive(Default)]
pub struct Binaries {
    built: Vec<Binary>,
}

impl Binaries {
    /// Builds all, and the `machinist` that some of them run: at once, so that no crate is built a
    /// second time with fewer features.
    pub fn build() -> Result<Self> {
        let mut build = cargo(["build", "--workspace", "--lib", "--bins", "--tests"]);
        build.arg("--message-format=json-render-diagnostics");
        let (messages, stdout) = std::io::pipe().context("cannot make a pipe")?;
        let (words, stderr) = std::io::pipe().context("cannot make a pipe")?;
        let mut cargo = build
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .context("cannot run cargo")?;
        // Our copies of the pipes' ends would keep them open for ever.
        drop(build);
        let said = thread::spawn(move || copied(words));
        let built = collect(messages, None)?;
        let status = cargo.wait().context("cannot wait for cargo")?;
        let said = said.join().unwrap_or_default();
        if !status.success() {
            bail!("the tests do not build\n{said}");
        }
        let built = built.lines().filter_map(parse).collect();
        Ok(Self { built })
    }

    /// Running the programs of `group`, one by one.
    pub fn jobs(&mut self, stage: Stage, group: Group) -> Vec<Job> {
        let of_group = self.built.extract_if(.., |it| it.group == group);
        let job =
            |binary: Binary| Job::new(stage, binary.name.clone(), move |tally| binary.run(tally));
        of_group.map(job).collect()
    }
}

impl Binary {
    fn run(&self, tally: &mut Tally) -> Result<()> {
        // Real machines take their time: show each test as it ends.
        let live = matches!(self.group, Group::Machines | Group::Nix);
        let mut program = command("timeout", ["--kill-after=10s", self.group.limit()]);
        program.arg(&self.path).current_dir(&self.package);
        if std::env::var_os(OTHER_PROGRAM).is_none() {
            // Or each would ask cargo for it, which waits until clippy is done.
            program.env(OTHER_PROGRAM, machinist()?);
        }
        run_one(&self.name, &mut program, live, tally)
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
    let mut child = program
        .spawn()
        .with_context(|| format!("cannot run {words}"))?;
    // Our copies of the pipe's end would keep it open for ever.
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let output = collect(reader, live.then_some(name))?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {words}"))?;
    let mut own = Tally::default();
    own.add_libtest(name, &output, status.success());
    if !own.is_ok() && !live {
        println!("{output}");
    }
    if !status.success() {
        println!("{name}: {status}; run it again: {words}");
    }
    tally.add(own);
    Ok(())
}

/// All that comes, shown as it comes if it has a `name`: others may print at the same time.
fn collect(reader: impl Read, name: Option<&str>) -> Result<String> {
    let mut all = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut begin = Instant::now();
    while reader
        .read_until(b'\n', &mut line)
        .context("cannot read a program's output")?
        > 0
    {
        let text = String::from_utf8_lossy(&line);
        match name {
            Some(name) if text.starts_with("test ") => {
                let seconds = begin.elapsed().as_secs_f64();
                println!("{name}: {} ({seconds:.1} s)", text.trim_end());
                begin = Instant::now();
            }
            Some(name) if !text.trim().is_empty() => println!("{name}: {}", text.trim_end()),
            _ => {}
        }
        all += &text;
        line.clear();
    }
    Ok(all)
}

/// The last lines of all that comes, which is shown on standard error as it comes.
fn copied(reader: impl Read) -> String {
    let mut last = VecDeque::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        eprintln!("{line}");
        last.push_back(line);
        if last.len() > 100 {
            last.pop_front();
        }
    }
    Vec::from(last).join("\n")
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
