//! Builders, as Nix sees them.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use machinist_tests::nix::NixHost;

use super::program::Program;
use super::{Bench, Limit, Question, Sample, Unit};
use crate::command;

/// As Nix's client, root without a daemon. Prints nanoseconds, a name before each.
const CLIENT: &str = include_str!("scripts/builders.sh");

const GREETING: Question = Question {
    name: "builder, container: connection to Nix's greeting, idle before",
    peer: None,
    unit: Unit::Seconds,
    limits: Vec::new(),
    how: "`machinist connect` to a builder whose machine is off and whose service runs, until the first eight bytes of Nix's \
          daemon in it.",
};
const RESTORED: Question = Question {
    name: "builder, VM: connection to Nix's greeting, idle before",
    peer: None,
    unit: Unit::Seconds,
    limits: Vec::new(),
    how: "The same with a VM, which is emulated where there is no KVM, and restored from its snapshot.",
};
const OUTPUT: Question = Question {
    name: "builder, container: 200 MB of output back",
    peer: Some("`nix-store --export`, `nix-store --import` of the same"),
    unit: Unit::Seconds,
    limits: Vec::new(),
    how: "`nix copy` of one path from the builder; the other side goes from the client's store to another one of the client's.",
};
const SMALL: Question = Question {
    name: "builder, container: 100 small derivations",
    peer: Some("`ssh-ng://localhost`, to a second store of the client's"),
    unit: Unit::Seconds,
    limits: Vec::new(),
    how: "`nix build` with eight jobs at once, all by the build hook; the other side is Nix's own way of leaving out SSH, without a \
          machine.",
};

/// Rows of two builders and one client.
pub struct Builders {
    program: Program,
    host: Option<NixHost>,
    /// Each round builds what no round has built.
    round: u32,
}

impl Builders {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            host: None,
            round: 0,
        }
    }

    fn host(&self) -> Result<&NixHost> {
        self.host.as_ref().context("nothing is prepared")
    }

    fn places(&self) -> Result<PathBuf> {
        Ok(self.host()?.rig().join("builders"))
    }

    fn builder(&self, args: &[&str]) -> Result<()> {
        let mut verb = self.program.command(&[&["builder"], args].concat());
        verb.env("MACHINIST_BUILDERS", self.places()?);
        command::run(&mut verb)
    }

    /// Seconds from the connection to Nix's greeting.
    fn greeting(&self, name: &str) -> Result<f64> {
        let mut connect: Command = self.program.command(&["connect", name, "--stdio"]);
        let begin = Instant::now();
        let mut child = connect
            .env("MACHINIST_BUILDERS", self.places()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run machinist connect")?;
        let mut stdin = child.stdin.take().context("it has no input")?;
        let mut stdout = child.stdout.take().context("it has no output")?;
        stdin.write_all(b"cxin\0\0\0\0")?;
        let mut answer = [0; 8];
        stdout.read_exact(&mut answer)?;
        let took = begin.elapsed().as_secs_f64();
        ensure!(answer.starts_with(b"oixd"), "{answer:?}");
        drop(stdin);
        child.wait()?;
        Ok(took)
    }
}

impl Bench for Builders {
    fn questions(&self) -> Vec<Question> {
        let limited = |limit, question| Question {
            limits: vec![limit],
            ..question
        };
        vec![
            limited(Limit::Within(1.0), GREETING),
            limited(Limit::Within(1.0), RESTORED),
            limited(Limit::AtMost(1.5), OUTPUT),
            limited(Limit::AtMost(1.3), SMALL),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        self.host = Some(NixHost::new()?.with_program(self.program.path())?);
        self.builder(&["create", "b", "--memory", "1G", "--max-jobs", "8"])?;
        self.builder(&["start", "b"])?;
        let vm = [
            "create", "v", "--kind", "vm", "--memory", "1G", "--cores", "2",
        ];
        self.builder(&vm)?;
        // It boots, and is saved.
        self.builder(&["start", "v"])?;
        self.builder(&["stop", "v"])
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        self.round += 1;
        self.builder(&["stop", "b"])?;
        let greeting = self.greeting("b")?;
        let restored = self.greeting("v")?;
        self.builder(&["stop", "v"])?;
        let ran = self
            .host()?
            .run(&format!("round={}\n{CLIENT}", self.round))?;
        ensure!(ran.code() == Some(0), "{ran}");
        let seconds = |name: &str| -> Result<f64> {
            let words = ran.stdout.lines().find_map(|line| line.strip_prefix(name));
            let nanoseconds: f64 = words.context("no number")?.trim().parse()?;
            Ok(nanoseconds / 1e9)
        };
        Ok(vec![
            Sample::alone(greeting),
            Sample::alone(restored),
            Sample::pair(seconds("output")?, seconds("export")?),
            Sample::pair(seconds("small")?, seconds("fake")?),
        ])
    }
}

impl Drop for Builders {
    fn drop(&mut self) {
        if self.host.is_some() {
            // Its service outlives whoever has started it.
            drop(self.builder(&["stop", "b", "--force", "--service"]));
            drop(self.builder(&["stop", "v", "--force", "--service"]));
        }
    }
}
