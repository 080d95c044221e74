//! One request, one answer.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader,
};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::NetlinkError;

/// The kernel's replies to a dump are at most this long.
const REPLY: usize = 64 * 1024;

/// A connection to the kernel's route netlink, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A request before it has its header.
pub(super) struct Request<'a> {
    pub kind: u16,
    /// `NLM_F_CREATE` and the like.
    pub flags: u16,
    pub body: &'a dyn Emitable,
    /// For the error: what the caller wants, as "rename eth0 to eth1".
    pub doing: &'a dyn Fn() -> String,
}

impl Netlink {
    /// Connects, in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel grants no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                // Protocol 0 is NETLINK_ROUTE.
                None,
            )?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(NetlinkError::Open)?,
            sequence: 0,
        })
    }

    /// Sends `request` and waits until the kernel has done it, or has said why not.
    pub(super) fn ask(&mut self, request: &Request<'_>) -> Result<(), NetlinkError> {
        self.converse(request, NLM_F_ACK, |_| Ok(()))
    }

    /// Sends `request` for a list and hands each entry's body to `entry`.
    pub(super) fn list(
        &mut self,
        request: &Request<'_>,
        entry: impl FnMut(&[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.converse(request, NLM_F_DUMP, entry)
    }

    fn converse(
        &mut self,
        request: &Request<'_>,
        flags: u16,
        mut entry: impl FnMut(&[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let failed = |error: rustix::io::Errno| {
            NetlinkError::refused((request.doing)(), error.raw_os_error(), false)
        };
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(request, flags, self.sequence);
        rustix::net::send(&self.socket, &message, SendFlags::empty()).map_err(failed)?;
        let mut memory = vec![0; REPLY];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, &mut memory[..], RecvFlags::empty())
            })
            .map_err(failed)?;
            let mut rest = &memory[..length];
            while !rest.is_empty() {
                let reply = Reply::first_of(rest)?;
                rest = reply.after;
                // An answer to an earlier request that was given up.
                if reply.sequence != self.sequence {
                    continue;
                }
                match reply.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return verdict(reply.body, request),
                    _ => entry(reply.body)?,
                }
            }
        }
    }
}

fn message(request: &Request<'_>, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let head = header.buffer_len();
    let length = head + request.body.buffer_len();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = request.kind;
    header.flags = request.flags | flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    request.body.emit(&mut bytes[head..]);
    bytes
}

/// One message of the kernel's.
struct Reply<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
    /// What follows it.
    after: &'a [u8],
}

impl<'a> Reply<'a> {
    fn first_of(bytes: &'a [u8]) -> Result<Self, NetlinkError> {
        let malformed = |what: String| NetlinkError::Malformed { what };
        let message = NetlinkBuffer::new_checked(bytes).map_err(|e| malformed(e.to_string()))?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let body = bytes
            .get(NetlinkHeader::default().buffer_len()..length)
            .ok_or_else(|| malformed(format!("a message of {length} bytes")))?;
        Ok(Self {
            kind: message.message_type(),
            sequence: message.sequence_number(),
            body,
            after: bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
        })
    }
}

/// What an `NLMSG_ERROR` says: zero is the acknowledgement.
fn verdict(body: &[u8], request: &Request<'_>) -> Result<(), NetlinkError> {
    let code = body
        .first_chunk::<4>()
        .map(|code| i32::from_ne_bytes(*code))
        .ok_or_else(|| NetlinkError::Malformed {
            what: "an acknowledgement without a code".to_owned(),
        })?;
    if code == 0 {
        return Ok(());
    }
    let creates = request.flags & netlink_packet_core::NLM_F_CREATE != 0;
    Err(NetlinkError::refused(
        (request.doing)(),
        code.saturating_neg(),
        creates,
    ))
}
