//! Which system packages machinist needs, and which of them are missing.

use anyhow::Result;

use crate::command::{self, command};

/// The package of the VMM.
pub const QEMU: &str = "qemu-system-x86";

/// The first QEMU with `reconnect-ms` on its `stream` netdev, which is how VMs reach a switch.
const QEMU_AT_LEAST: &str = "1:9.2";

/// What every lab needs, besides QEMU.
const NEEDED: [&str; 5] = [
    // containers
    "systemd-container",
    // containers without root
    "uidmap",
    // images
    "mmdebstrap",
    "erofs-utils",
    // test scripts
    "python3",
];

/// What only tests need.
const TESTS: [&str; 7] = [
    // logging in to machines
    "openssh-client",
    // reading screens
    "tesseract-ocr",
    "imagemagick",
    // its plugin
    "python3-pytest",
    // types of the Python package, and of scripts against it
    "mypy",
    // clients of the VDE protocol
    "vde2",
    // initrds of VMs with start scripts
    "busybox-static",
];

/// What machinist is measured against.
const BENCH: [&str; 1] = ["iperf3"];

/// What is not installed yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// QEMU itself, or a new enough one.
    pub qemu: bool,
    /// Packages of any version.
    pub plain: Vec<&'static str>,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        !self.qemu && self.plain.is_empty()
    }

    /// All names, for people.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.plain.iter().map(|name| (*name).to_owned()).collect();
        if self.qemu {
            names.push(format!("{QEMU} (>= {QEMU_AT_LEAST})"));
        }
        names
    }
}

/// Looks what is installed. Takes a few milliseconds.
pub fn missing(bench: bool) -> Result<Missing> {
    let mut wanted = NEEDED.to_vec();
    wanted.extend(TESTS);
    if bench {
        wanted.extend(BENCH);
    }
    let Ok(output) = command::output(&mut command(
        "dpkg-query",
        [
            "--show",
            "--showformat=${Package} ${db:Status-Status} ${Version}\n",
        ]
        .iter()
        .chain(&wanted)
        .chain([&QEMU]),
    )) else {
        // Not a Debian: tell by the programs.
        return Ok(by_programs());
    };
    let installed = parse(&String::from_utf8_lossy(&output.stdout));
    let version_of = |name: &str| {
        let found = installed.iter().find(|(package, _)| package == name);
        found.map(|(_, version)| version.as_str())
    };
    Ok(Missing {
        qemu: !version_of(QEMU).is_some_and(new_enough),
        plain: wanted
            .into_iter()
            .filter(|name| version_of(name).is_none())
            .collect(),
    })
}

/// Whether the release's own QEMU is too old.
pub fn needs_backports(codename: &str) -> bool {
    codename == "bookworm"
}

fn new_enough(version: &str) -> bool {
    let mut compare = command("dpkg", ["--compare-versions", version, "ge", QEMU_AT_LEAST]);
    command::output(&mut compare).is_ok_and(|output| output.status.success())
}

/// Installed packages with their versions, from dpkg-query's lines.
fn parse(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, status, version) = (words.next()?, words.next()?, words.next()?);
            (status == "installed").then(|| (name.to_owned(), version.to_owned()))
        })
        .collect()
}

fn by_programs() -> Missing {
    let is_there = |program: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    let programs = [
        ("systemd-nspawn", NEEDED[0]),
        ("newuidmap", NEEDED[1]),
        ("mmdebstrap", NEEDED[2]),
        ("mkfs.erofs", NEEDED[3]),
        ("python3", NEEDED[4]),
    ];
    Missing {
        qemu: !is_there("qemu-system-x86_64"),
        plain: programs
            .into_iter()
            .filter(|(program, _)| !is_there(program))
            .map(|(_, package)| package)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_were_removed_are_not_there() {
        let text =
            "vde2 config-files 2.3\npython3 installed 3.11.2-1+b1\nerofs-utils not-installed \n";
        assert_eq!(
            parse(text),
            [("python3".to_owned(), "3.11.2-1+b1".to_owned())]
        );
    }
}
