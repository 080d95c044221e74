//! A client of the VDE protocol, as libvdeplug is one.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use machinist_network::vde::{MAGIC, VERSION};
use machinist_network::{VdeDoor, Vlan};
use machinist_sys::packet::{Batch, Frame, VnetHeader};

use crate::lab::Sockets;
use crate::traffic::PATIENCE;
use crate::vm::{Vm, Wire};

/// How many clients of this process there have been.
static CLIENTS: AtomicU32 = AtomicU32::new(0);

/// A connected client. Dropping it is as if its process were killed: its socket's file stays.
pub struct Plug {
    pub control: UnixStream,
    pub data: UnixDatagram,
}

impl Plug {
    pub fn new(directory: &Path) -> Self {
        Self::try_new(directory).unwrap()
    }

    /// Like [`Plug::new`]; `None` where the switch does not want us.
    pub fn try_new(directory: &Path) -> Option<Self> {
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".{:05}-{client:05}", std::process::id()));
        let data = UnixDatagram::bind(&path).unwrap();
        let mut control = UnixStream::connect(directory.join("ctl")).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        control
            .write_all(&request(&path, b"a test of machinist"))
            .ok()?;
        let mut answer = [0; 110];
        if let Err(error) = control.read_exact(&mut answer) {
            assert!(matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ));
            return None;
        }
        assert_eq!(answer[..2], [1, 0]);
        let path = answer[2..].split(|byte| *byte == 0).next().unwrap();
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        assert_eq!(path.parent(), Some(directory));
        data.connect(&path).unwrap();
        data.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { control, data })
    }
}

/// A request for a port.
pub fn request(path: &Path, description: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(1_u16.to_ne_bytes());
    bytes.extend(path.as_os_str().as_bytes());
    bytes.resize(122, 0);
    bytes.extend(description);
    bytes
}

/// What sockets are in a directory, by their names.
pub fn sockets(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A machine with a network card of that kind.
pub fn vm(vlan: &Vlan, n: usize, sockets: &Sockets) -> Vm<VdeDoor> {
    let door = vlan.listen_vde(&sockets.path(n)).unwrap();
    let plug = Plug::new(door.directory());
    plug.data.set_nonblocking(true).unwrap();
    let wire = Datagrams {
        plug,
        batch: Batch::new(),
    };
    Vm::behind(door, vlan, n, wire)
}

struct Datagrams {
    plug: Plug,
    batch: Batch,
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.plug.data.as_fd()
    }
}

impl Wire for Datagrams {
    fn receive(&mut self, out: &mut dyn FnMut(&[Frame<'_>])) -> bool {
        let Ok(count) = self.batch.receive_datagrams(self.plug.data.as_fd()) else {
            return true;
        };
        let header = VnetHeader::default();
        let frame = |index| Frame {
            header: &header,
            bytes: self.batch.frame(index).bytes,
        };
        let list: Vec<Frame<'_>> = (0..count).map(frame).collect();
        out(&list);
        true
    }

    fn send(&mut self, frame: &[u8]) {
        drop(self.plug.data.send(frame));
    }
}
