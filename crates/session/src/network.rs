//! The VLANs of a session, and which machine hangs on which.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machinist_machine::{Attach, NicSpec};
use machinist_network::{AttachError, Mac, NetNs, Port, VethSpec, Vlan, VlanError};

use crate::control::Links;

/// The VLANs of a session.
#[derive(Debug)]
pub(crate) struct Network {
    vlans: BTreeMap<u32, Vlan>,
    /// The ports of each machine that runs.
    ports: Mutex<HashMap<String, Vec<Hung>>>,
    sockets: PathBuf,
    made: AtomicU64,
}

/// A machine's place on a VLAN.
#[derive(Debug)]
struct Hung {
    vlan: u32,
    port: Port,
}

impl Network {
    /// VLANs with these numbers, whose sockets are made in `directory`.
    pub(crate) fn new(
        numbers: impl IntoIterator<Item = u32>,
        directory: &Path,
    ) -> Result<Self, VlanError> {
        let vlans: Result<_, VlanError> = numbers
            .into_iter()
            .map(|number| Ok((number, Vlan::new(number as u8)?)))
            .collect();
        Ok(Self {
            vlans: vlans?,
            ports: Mutex::default(),
            sockets: directory.to_owned(),
            made: AtomicU64::new(0),
        })
    }

    /// Directories that serve the VDE protocol for a machine, one for each VLAN.
    pub(crate) fn doors(
        &self,
        _machine: &str,
        _vlans: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, PathBuf>, AttachError> {
        Ok(BTreeMap::new())
    }

    fn vlan(&self, number: u32) -> io::Result<&Vlan> {
        self.vlans
            .get(&number)
            .ok_or_else(|| io::Error::other(format!("there is no VLAN {number}")))
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<String, Vec<Hung>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, machine: &str, vlan: u8, port: Port) {
        let vlan = vlan.into();
        self.ports()
            .entry(machine.to_owned())
            .or_default()
            .push(Hung { vlan, port });
    }
}

impl Attach for Network {
    fn vm_port(&self, machine: &str, nic: &NicSpec) -> io::Result<PathBuf> {
        // Short, and never the same twice: a socket path has 107 bytes, and a VM that starts anew
        // must not meet the socket of its former life.
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.sockets.join(format!("port{number}"));
        let name = port_name(machine, nic);
        let port = self.vlan(nic.vlan.into())?.attach_socket(&name, &path);
        self.keep(machine, nic.vlan, port.map_err(io::Error::other)?);
        Ok(path)
    }

    fn container_ports(&self, machine: &str, nics: &[NicSpec], pid: u32) -> io::Result<()> {
        for nic in nics {
            let spec = VethSpec {
                netns: NetNs::of_process(pid)?,
                ifname: nic.name.clone(),
                mac: Mac(nic.mac),
                addresses: nic.addresses.clone(),
                mtu: None,
            };
            let port = self
                .vlan(nic.vlan.into())?
                .attach_veth(&port_name(machine, nic), spec);
            self.keep(machine, nic.vlan, port.map_err(io::Error::other)?);
        }
        Ok(())
    }

    fn detach(&self, machine: &str) {
        let gone = self.ports().remove(machine);
        // Outside of the lock: taking interfaces down takes its time.
        drop(gone);
    }
}

fn port_name(machine: &str, nic: &NicSpec) -> String {
    format!("{machine}:{}", nic.name)
}

impl Links for Network {
    fn set_up(&self, machine: Option<&str>, vlan: Option<u32>, up: bool) -> io::Result<()> {
        let ports = self.ports();
        let of_machine = |(name, _): &(&String, &Vec<Hung>)| machine.is_none_or(|it| it == *name);
        let hung = ports.iter().filter(of_machine).flat_map(|(_, hung)| hung);
        for hung in hung.filter(|hung| vlan.is_none_or(|vlan| vlan == hung.vlan)) {
            hung.port.set_up(up);
        }
        Ok(())
    }
}
