//! The VLANs of a session, and which machine hangs on which.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machinist_machine::ground::{Ground, GroundError};
use machinist_machine::{Attach, NicSpec, Reserve};
use machinist_network::{
    AttachError, Mac, NetNs, Port, Reserved, Still, VdeDoor, VethSpec, Vlan, VlanError,
};
use thiserror::Error;

use crate::checkpoints::Wire;
use crate::control::{Links, Standstill};

/// The VLANs of a session.
#[derive(Debug)]
pub(crate) struct Network {
    vlans: BTreeMap<u32, Vlan>,
    /// The ports of each machine that runs.
    ports: Arc<Mutex<Ports>>,
    /// The doors of each VM that a start script runs. They are there before it, and after it.
    doors: Mutex<HashMap<String, Vec<Door>>>,
    /// What containers' start scripts stand on.
    ground: Ground,
    /// How the VLANs reach that ground, once it is laid.
    taps: Mutex<Option<Vec<Port>>>,
    sockets: PathBuf,
    made: AtomicU64,
}

/// By the machines' names.
type Ports = HashMap<String, Vec<Hung>>;

/// A machine's place on a VLAN.
#[derive(Debug)]
struct Hung {
    vlan: u32,
    port: Port,
    /// Whether its cable is in.
    up: AtomicBool,
}

/// The place on a VLAN of a machine whose QEMU speaks VDE.
#[derive(Debug)]
struct Door {
    vlan: u32,
    door: VdeDoor,
    /// Whether its cable is in.
    up: AtomicBool,
    /// Whether anybody is at the other end of it: a machine that boots to be saved is alone.
    plugged: AtomicBool,
}

impl Door {
    fn set(&self, which: &AtomicBool, on: bool) {
        which.store(on, Ordering::Relaxed);
        let both = [&self.up, &self.plugged];
        self.door
            .set_up(both.iter().all(|it| it.load(Ordering::Relaxed)));
    }
}

/// Containers of start scripts cannot be brought to the VLANs.
#[derive(Debug, Error)]
pub(crate) enum LayError {
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Network {
    /// VLANs with these numbers, whose sockets are made in `directory`. `exe` is our own program.
    pub(crate) fn new(
        numbers: impl IntoIterator<Item = u32>,
        directory: &Path,
        exe: &Path,
    ) -> Result<Self, VlanError> {
        let vlans: Result<_, VlanError> = numbers
            .into_iter()
            .map(|number| Ok((number, Vlan::numbered(number)?)))
            .collect();
        Ok(Self {
            vlans: vlans?,
            ports: Arc::default(),
            doors: Mutex::default(),
            ground: Ground::new(exe.to_owned()),
            taps: Mutex::default(),
            sockets: directory.to_owned(),
            made: AtomicU64::new(0),
        })
    }

    /// Directories that serve the VDE protocol for a machine, one for each VLAN: whoever connects
    /// there has a port of that machine.
    pub(crate) fn open_doors(&self, machine: &str) -> Result<BTreeMap<u32, PathBuf>, AttachError> {
        let mut directories = BTreeMap::new();
        let mut doors = Vec::new();
        for (&vlan, switch) in &self.vlans {
            // Short: clients bind sockets in it, whose paths have 107 bytes.
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let door = switch.listen_vde(&self.sockets.join(format!("v{number}")))?;
            directories.insert(vlan, door.directory().to_owned());
            doors.push(Door {
                vlan,
                door,
                up: AtomicBool::new(true),
                plugged: AtomicBool::new(true),
            });
        }
        let before = lock(&self.doors).insert(machine.to_owned(), doors);
        // Outside of the lock: sending clients away takes its time.
        drop(before);
        Ok(directories)
    }

    /// The VLAN of a door, by its directory.
    pub(crate) fn vlan_of_door(&self, machine: &str, directory: &Path) -> Option<u32> {
        let doors = lock(&self.doors);
        let door = doors
            .get(machine)?
            .iter()
            .find(|door| door.door.directory() == directory);
        door.map(|door| door.vlan)
    }

    /// Lays the ground for containers of start scripts, with a `vde-tap<n>` for each VLAN, once.
    /// Blocks.
    pub(crate) fn lay_ground(&self) -> Result<(), LayError> {
        let mut taps = lock(&self.taps);
        if taps.is_none() {
            let netns = self.ground.network()?;
            let attached = self.vlans.values().map(|vlan| vlan.attach_tap(&netns));
            *taps = Some(attached.collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    fn vlan(&self, number: u8) -> io::Result<&Vlan> {
        self.vlans
            .get(&number.into())
            .ok_or_else(|| io::Error::other(format!("there is no VLAN {number}")))
    }

    fn keep(&self, machine: &str, vlan: u8, port: Port) {
        hang(&self.ports, machine, vlan.into(), port);
    }

    /// Where the next socket of a port is. Short, and never the same twice: a socket path has 107
    /// bytes, and a VM that starts anew must not meet the socket of its former life.
    fn next_socket(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.sockets.join(format!("port{number}"))
    }
}

/// Gives a machine a place on a VLAN.
fn hang(ports: &Mutex<Ports>, machine: &str, vlan: u32, port: Port) {
    let hung = Hung {
        vlan,
        port,
        up: AtomicBool::new(true),
    };
    let mut ports = lock(ports);
    ports.entry(machine.to_owned()).or_default().push(hung);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attach for Network {
    fn vm_port(&self, machine: &str, nic: &NicSpec) -> io::Result<PathBuf> {
        let path = self.next_socket();
        let name = port_name(machine, nic);
        let port = self.vlan(nic.vlan)?.attach_socket(&name, &path);
        self.keep(machine, nic.vlan, port.map_err(io::Error::other)?);
        Ok(path)
    }

    fn reserve(&self, machine: &str, nics: &[NicSpec]) -> io::Result<Box<dyn Reserve>> {
        let reserve = |nic: &NicSpec| {
            let path = self.next_socket();
            let vlan = self.vlan(nic.vlan)?;
            let place = vlan.reserve_socket(&port_name(machine, nic), &path);
            Ok((path, (nic.vlan.into(), place.map_err(io::Error::other)?)))
        };
        let reserved: io::Result<Vec<_>> = nics.iter().map(reserve).collect();
        let (sockets, places) = reserved?.into_iter().unzip();
        Ok(Box::new(Places {
            machine: machine.to_owned(),
            sockets,
            places,
            ports: Arc::clone(&self.ports),
        }))
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
                .vlan(nic.vlan)?
                .attach_veth(&port_name(machine, nic), spec);
            self.keep(machine, nic.vlan, port.map_err(io::Error::other)?);
        }
        Ok(())
    }

    fn detach(&self, machine: &str) {
        let gone = lock(&self.ports).remove(machine);
        // Outside of the lock: taking interfaces down takes its time.
        drop(gone);
    }

    fn plug(&self, machine: &str, plugged: bool) {
        for door in lock(&self.doors).get(machine).into_iter().flatten() {
            door.set(&door.plugged, plugged);
        }
    }

    fn ground(&self) -> Option<Ground> {
        Some(self.ground.clone())
    }
}

impl Links for Network {
    fn set_up(&self, machine: Option<&str>, vlan: Option<u32>, up: bool) {
        let is_wanted = |name: &str| machine.is_none_or(|machine| machine == name);
        let on_wanted = |number: u32| vlan.is_none_or(|vlan| vlan == number);
        for (name, hung) in lock(&self.ports).iter() {
            let hung = hung.iter().filter(|hung| on_wanted(hung.vlan));
            for hung in hung.filter(|_| is_wanted(name)) {
                hung.port.set_up(up);
                hung.up.store(up, Ordering::Relaxed);
            }
        }
        for (name, doors) in lock(&self.doors).iter() {
            let doors = doors.iter().filter(|door| on_wanted(door.vlan));
            for door in doors.filter(|_| is_wanted(name)) {
                door.set(&door.up, up);
            }
        }
    }

    fn hold(&self) -> Box<dyn Standstill> {
        let stills = self
            .vlans
            .iter()
            .map(|(&number, vlan)| (number, vlan.hold()));
        Box::new(Held {
            stills: stills.collect(),
            ports: Arc::clone(&self.ports),
        })
    }
}

/// Places for a VM that is to take a machine's place. Nobody finds them by the machine's name before
/// they are its own: what is done to its cables is done to those that it has.
#[derive(Debug)]
struct Places {
    machine: String,
    sockets: Vec<PathBuf>,
    /// With the numbers of their VLANs.
    places: Vec<(u32, Reserved)>,
    ports: Arc<Mutex<Ports>>,
}

impl Reserve for Places {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn take(self: Box<Self>) -> io::Result<()> {
        for (vlan, place) in self.places {
            let port = place.attach().map_err(io::Error::other)?;
            hang(&self.ports, &self.machine, vlan, port);
        }
        Ok(())
    }
}

/// The VLANs of a session, standing still.
#[derive(Debug)]
struct Held {
    stills: BTreeMap<u32, Still>,
    ports: Arc<Mutex<Ports>>,
}

impl Standstill for Held {
    fn look(&self) -> Wire {
        let frames = self
            .stills
            .iter()
            .map(|(&vlan, still)| (vlan, still.frames()));
        let mut pulled = Vec::new();
        for (machine, hung) in lock(&self.ports).iter() {
            let down = hung.iter().filter(|hung| !hung.up.load(Ordering::Relaxed));
            pulled.extend(down.map(|hung| (machine.clone(), hung.vlan)));
        }
        Wire {
            frames: frames.collect(),
            pulled,
        }
    }

    fn put_back(self: Box<Self>, mut wire: Wire) {
        for (machine, hung) in lock(&self.ports).iter() {
            for hung in hung {
                let is_pulled =
                    |(name, vlan): &(String, u32)| name == machine && *vlan == hung.vlan;
                let up = !wire.pulled.iter().any(is_pulled);
                hung.port.set_up(up);
                hung.up.store(up, Ordering::Relaxed);
            }
        }
        for (vlan, still) in self.stills {
            still.thaw(wire.frames.remove(&vlan).unwrap_or_default());
        }
    }
}

fn port_name(machine: &str, nic: &NicSpec) -> String {
    format!("{machine}:{}", nic.name)
}
