//! Traffic between two network namespaces.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use machinist_network::NetNs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long anything may take that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn udp(netns: &NetNs, address: IpAddr, port: u16) -> UdpSocket {
    let socket = netns
        .run(|| UdpSocket::bind((address, port)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends from one to the other and back.
pub fn udp_ping(from: &NetNs, from_address: IpAddr, to: &NetNs, to_address: IpAddr, length: usize) {
    let (here, there) = (udp(from, from_address, 0), udp(to, to_address, 0));
    let sent: Vec<u8> = Bytes::new(7).take(length);
    here.send_to(&sent, there.local_addr().unwrap()).unwrap();
    let mut memory = vec![0; 65536];
    let (count, sender) = there.recv_from(&mut memory).unwrap();
    assert_eq!(sender, here.local_addr().unwrap());
    assert_eq!(memory[..count], sent);
    there.send_to(&memory[..count], sender).unwrap();
    let (count, _) = here.recv_from(&mut memory).unwrap();
    assert_eq!(memory[..count], sent);
}

/// Whether a datagram that is sent now arrives within this time.
pub fn udp_passes(from: &UdpSocket, to: &UdpSocket, within: Duration) -> bool {
    to.set_read_timeout(Some(within)).unwrap();
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    match to.recv_from(&mut [0; 16]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// Sends `bytes` over TCP and checks every one of them. Returns how long it took.
pub fn transfer(from: &NetNs, to: &NetNs, address: IpAddr, bytes: usize) -> Duration {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let target: SocketAddr = listener.local_addr().unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut stream = accept(&listener);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut want, mut got) = (Bytes::new(1), 0);
            let mut memory = vec![0; 256 * 1024];
            loop {
                let count = stream.read(&mut memory).unwrap();
                if count == 0 {
                    break;
                }
                assert_eq!(memory[..count], want.take(count), "after {got} bytes");
                got += count;
                assert!(begun.elapsed() < 3 * PATIENCE, "only {got} bytes have come");
            }
            assert_eq!(got, bytes);
        });
        let connect = || TcpStream::connect_timeout(&target, PATIENCE);
        let mut stream = from.run(connect).unwrap().unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (mut source, mut left) = (Bytes::new(1), bytes);
        while left > 0 {
            let part = source.take(left.min(256 * 1024));
            stream.write_all(&part).unwrap();
            left -= part.len();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        receiver.join().unwrap();
    });
    begun.elapsed()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(
        poll(&mut ready, Some(&patience)),
        Ok(1),
        "nobody has connected"
    );
    listener.accept().unwrap().0
}

/// Bytes that look random and are always the same, however they are taken.
pub struct Bytes {
    state: u64,
    left: Vec<u8>,
}

impl Bytes {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            left: Vec::new(),
        }
    }

    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.left.len() < count {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.left.extend(self.state.to_le_bytes());
        }
        let rest = self.left.split_off(count);
        std::mem::replace(&mut self.left, rest)
    }
}
