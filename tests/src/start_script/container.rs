//! A container's start script, as NixOS tests have one.
//!
//! It does what NixOS' does, over a Debian root: where a container of NixOS has an empty root
//! directory and its store bound read-only, this one has a directory with copies of `/etc` and
//! `/var`, and `/usr` bound read-only. Unlike NixOS it sets the addresses from outside; the machine
//! knows all names by its `/etc/hosts`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// What a script's container is to be.
#[derive(Debug, Clone)]
pub struct ContainerScript {
    /// Its name.
    pub name: String,
    /// Its number, from 1: the last part of its addresses.
    pub number: u8,
    /// The VLANs that it is on: `eth1` is on the first.
    pub vlans: Vec<u32>,
    /// The root directory of the Debian that it is made from. Only read.
    pub root: PathBuf,
    /// Lines of its `/etc/hosts`, beside those for itself.
    pub hosts: Vec<String>,
    /// More options of systemd-nspawn.
    pub options: Vec<String>,
    /// Files that it has beside those of the root, by their absolute paths.
    pub files: Vec<(String, String)>,
}

impl ContainerScript {
    /// One without a network.
    #[must_use]
    pub fn new(name: &str, root: &Path) -> Self {
        Self {
            name: name.to_owned(),
            number: 1,
            vlans: Vec::new(),
            root: root.to_owned(),
            hosts: Vec::new(),
            options: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Puts it on `vlans`, as machine `number` of them.
    #[must_use]
    pub fn on(mut self, number: u8, vlans: &[u32]) -> Self {
        self.number = number;
        self.vlans = vlans.to_vec();
        self
    }

    /// Writes `run-NAME-nspawn` into `directory`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let name = format!("run-{}-nspawn", self.name);
        super::write_program(directory, &name, &self.text())
    }

    /// The script. Its head is what differs between machines.
    fn text(&self) -> String {
        let mut head = String::from("#!/usr/bin/env python3\n");
        let mut put = |name: &str, value: serde_json::Value| {
            // JSON of strings, numbers and lists is Python, too. Writing to a string cannot fail.
            _ = writeln!(head, "{name} = {value}");
        };
        let interfaces: Vec<_> = self.vlans.iter().zip(1_u8..).collect();
        let interfaces: Vec<_> = interfaces
            .into_iter()
            .map(|(vlan, at)| {
                serde_json::json!([
                    format!("eth{at}"),
                    vlan,
                    format!("52:54:00:12:{vlan:02x}:{:02x}", self.number)
                ])
            })
            .collect();
        put("NAME", self.name.as_str().into());
        put("NUMBER", self.number.into());
        put("INTERFACES", interfaces.into());
        put("IMAGE", self.root.display().to_string().into());
        put("HOSTS", self.hosts.clone().into());
        put("OPTIONS", self.options.clone().into());
        let files = self.files.iter();
        put(
            "FILES",
            files
                .map(|(path, text)| serde_json::json!([path, text]))
                .collect(),
        );
        head + include_str!("container.py")
    }
}
