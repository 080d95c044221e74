//! A place at a VLAN for a virtual machine that is not to be on it yet.

use std::path::Path;
use std::sync::Arc;

use super::{Segment, Vlan};
use crate::error::AttachError;
use crate::port::{Device, Port, SocketDevice};

/// A socket that QEMU can connect to, and that hangs on no VLAN yet: what QEMU sends waits in it, as
/// much as a socket holds, and nothing comes from it. Dropping it removes the socket.
#[derive(Debug)]
pub struct Reserved {
    name: String,
    device: SocketDevice,
    segment: Arc<Segment>,
}

impl Vlan {
    /// A place for a virtual machine that is to be attached later: as [`Vlan::attach_socket`], but for
    /// the switch, which learns of it by [`Reserved::attach`].
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn reserve_socket(&self, name: &str, path: &Path) -> Result<Reserved, AttachError> {
        let device = SocketDevice::listen(path).map_err(|source| AttachError::Listen {
            port: name.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        Ok(Reserved {
            name: name.to_owned(),
            device,
            segment: Arc::clone(&self.segment),
        })
    }
}

impl Reserved {
    /// Attaches the virtual machine that has connected, or will.
    ///
    /// # Errors
    /// Where the switch does not take it. Then the socket is gone.
    pub fn attach(self) -> Result<Port, AttachError> {
        let vlan = Vlan {
            segment: self.segment,
        };
        vlan.attach(&self.name, vlan.mtu(), Device::Socket(self.device), None)
    }
}
