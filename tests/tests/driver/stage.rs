//! A driver's test: its start scripts, its Python script, and the call.

use std::path::{Path, PathBuf};

use anyhow::Result;
use machinist_tests::start_script::{ContainerScript, VmScript};
use machinist_tests::{Bench, Command, images};

/// What machines are made from.
pub const IMAGE: &str = "debian:bookworm";

/// A test in the making.
pub struct Stage<'a> {
    bench: &'a Bench,
    packages: &'a [&'a str],
    containers: Vec<(String, PathBuf)>,
    vms: Vec<(String, PathBuf)>,
    vlans: Vec<u32>,
}

impl<'a> Stage<'a> {
    /// One without machines.
    pub fn new(bench: &'a Bench) -> Self {
        Self::with(bench, &[])
    }

    /// One without machines, which will have these packages.
    pub fn with(bench: &'a Bench, packages: &'a [&'a str]) -> Self {
        Self {
            bench,
            packages,
            containers: Vec::new(),
            vms: Vec::new(),
            vlans: Vec::new(),
        }
    }

    /// With VLANs of these numbers.
    pub fn vlans(mut self, numbers: &[u32]) -> Self {
        self.vlans = numbers.to_vec();
        self
    }

    /// With a container that is machine `number` on `vlans`.
    pub fn container(mut self, name: &str, number: u8, vlans: &[u32]) -> Result<Self> {
        let root = images::root(IMAGE, self.packages)?;
        let script = ContainerScript::new(name, &root).on(number, vlans);
        let path = script.write(&self.bench.path())?;
        self.containers.push((name.to_owned(), path));
        Ok(self)
    }

    /// With a VM that is machine `number` on `vlans`.
    pub fn vm(self, name: &str, number: u8, vlans: &[u32]) -> Result<Self> {
        self.vm_with(name, number, vlans, |script| script)
    }

    /// With a VM that is machine `number` on `vlans`, and has something of its own.
    pub fn vm_with(
        mut self,
        name: &str,
        number: u8,
        vlans: &[u32],
        change: impl FnOnce(VmScript) -> VmScript,
    ) -> Result<Self> {
        let mut system = images::system(IMAGE, self.packages)?;
        // Three seconds of each emulated boot would go into unpacking it. That a packed kernel boots,
        // as NixOS has it, is seen with a real Nix (`tests/nix`).
        system.kernel = images::unpacked(&system.kernel);
        let script = change(VmScript::new(name, &system).on(number, vlans));
        let path = script.write(&self.bench.path())?;
        self.vms.push((name.to_owned(), path));
        Ok(self)
    }

    /// Where state directories are.
    pub fn state(&self) -> PathBuf {
        self.bench.path().join("state")
    }

    /// The state directory of a machine.
    pub fn state_of(&self, machine: &str) -> PathBuf {
        self.state().join(format!("vm-state-{machine}"))
    }

    /// The driver with all of that, and more arguments, about to run `script`.
    pub fn driver(&self, arguments: &[&str], script: &str) -> Result<Command> {
        let script = self.bench.write("test.py", script)?;
        std::fs::create_dir_all(self.bench.path().join("out"))?;
        std::fs::create_dir_all(self.state())?;
        let mut words: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut list = |option: &str, values: Vec<String>| {
            if !values.is_empty() {
                words.push(option.to_owned());
                words.extend(values);
            }
        };
        for (kind, machines) in [("container", &self.containers), ("vm", &self.vms)] {
            let names = machines.iter().map(|(name, _)| name.clone());
            list(&format!("--{kind}-names"), names.collect());
            let scripts = machines.iter().map(|(_, path)| text(path));
            list(&format!("--{kind}-start-scripts"), scripts.collect());
        }
        list("--vlans", self.vlans.iter().map(u32::to_string).collect());
        words.extend(["-o".to_owned(), text(&self.bench.path().join("out"))]);
        words.push(text(&script));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let driver = self.bench.machinist(&words).called("nixos-test-driver");
        Ok(driver.env("XDG_RUNTIME_DIR", text(&self.state())))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
