//! The socket.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Batch, VnetHeader};

/// At most so many frames pass in one system call.
pub const FRAMES_AT_ONCE: usize = 64;

/// How much may wait in the kernel, in bytes of its own reckoning, in each direction.
const SOCKET_BUFFER: libc::c_int = 16 * 1024 * 1024;

/// Whether frames come and go with the kernel's offload notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// With notes: frames may be up to 64 KiB long and lack checksums.
    Offload,
    /// Without. Frames that are sent must be complete; those received may still lack a checksum, see
    /// [`super::Received::checksum_missing`].
    None,
}

/// A frame to be sent, from the destination address on, without frame check sequence.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What is to be done to it; sockets without offload notes ignore this.
    pub header: &'a VnetHeader,
    /// The frame.
    pub bytes: &'a [u8],
}

/// A socket that receives all frames that arrive at one network interface, and sends frames there.
/// It never waits: where the kernel has nothing or takes nothing, the error is `WouldBlock`.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    headers: Headers,
}

impl PacketSocket {
    /// Opens one on the interface with number `index` in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, without `AF_PACKET` in the kernel, or where there is no such interface.
    pub fn open(index: u32, headers: Headers) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing is received before `bind` says from which interface.
        // SAFETY: socket() takes no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the kernel just gave us this descriptor; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd, headers };
        // What we send ourselves would come back as if a machine had sent it.
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // The kernel takes 802.1Q tags out of frames and tells them only here.
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        if headers == Headers::Offload {
            socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        }
        for (force, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            // Beyond the system's limit only with CAP_NET_ADMIN over the first user namespace.
            if socket.set(libc::SOL_SOCKET, force, SOCKET_BUFFER).is_err() {
                socket.set(libc::SOL_SOCKET, plain, SOCKET_BUFFER)?;
            }
        }
        socket.bind(index)?;
        Ok(socket)
    }

    /// Receives what is there into `batch`, replacing what was in it. Returns the number of frames,
    /// which is not 0.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there. `InvalidInput` (`EINVAL`) where the next frame cannot be
    /// described by an offload note; that frame is lost and the next call goes on after it.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.receive(self.fd.as_fd(), self.headers)
    }

    /// Sends up to [`FRAMES_AT_ONCE`] of `frames`. Returns how many the kernel took: the first so
    /// many, at least one unless `frames` is empty.
    ///
    /// # Errors
    /// `WouldBlock` where the kernel's queue is full. Any other error is about the first frame.
    pub fn send(&self, frames: &[Frame<'_>]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(FRAMES_AT_ONCE)];
        // SAFETY: both are plain structures of the kernel's interface for which all zero is valid.
        let mut parts: [[libc::iovec; 2]; FRAMES_AT_ONCE] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; FRAMES_AT_ONCE] = unsafe { mem::zeroed() };
        for ((frame, parts), message) in frames.iter().zip(&mut parts).zip(&mut messages) {
            parts[0].iov_base = std::ptr::from_ref(frame.header).cast_mut().cast();
            parts[0].iov_len = size_of::<VnetHeader>();
            parts[1].iov_base = frame.bytes.as_ptr().cast_mut().cast();
            parts[1].iov_len = frame.bytes.len();
            let parts = match self.headers {
                Headers::Offload => &mut parts[..],
                Headers::None => &mut parts[1..],
            };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len();
        }
        // At most FRAMES_AT_ONCE.
        #[expect(clippy::cast_possible_truncation, reason = "at most FRAMES_AT_ONCE")]
        let count = frames.len() as libc::c_uint;
        // SAFETY: the first `count` messages point to `parts`, to the headers and to the frames, all
        // of which live until the call returns; the kernel only reads them.
        let sent = check(unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        })?;
        Ok(usize::try_from(sent).unwrap_or(0))
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `address` is a whole sockaddr_ll and lives through the call.
        check(unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })?;
        Ok(())
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `value` is the int that all these options take, and lives through the call.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(&value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        })?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's -1 as the error it stands for.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
