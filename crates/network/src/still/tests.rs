//! A VLAN that stands still: no frame is lost or doubled between those that are with the machines
//! and those that are on their way. The machines are ends of sockets here.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::stream::FrameReader;
use crate::{InFlight, Port, Vlan};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A virtual machine, as far as a switch sees one.
struct Peer {
    socket: UnixStream,
    _port: Port,
}

impl Peer {
    fn new(vlan: &Vlan, name: &str, directory: &Path) -> Self {
        let path = directory.join(name);
        let port = vlan.attach_socket(name, &path).unwrap();
        let socket = UnixStream::connect(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        Self {
            socket,
            _port: port,
        }
    }

    fn say(&mut self, number: u32, length: usize) {
        let mut frame = b"\xff\xff\xff\xff\xff\xff\x52\x54\0\x12\x01\x01\x08\x00".to_vec();
        frame.extend(number.to_be_bytes());
        frame.resize(frame.len() + length, 0);
        let announced = u32::try_from(frame.len()).unwrap();
        frame.splice(0..0, announced.to_be_bytes());
        self.socket.write_all(&frame).unwrap();
    }

    /// Returns once the switch has taken both connections, with nothing on its way between them.
    fn meet(&mut self, other: &mut Self) {
        let mut said = 0;
        let heard = other.listen(&mut FrameReader::default(), |heard| {
            if heard.is_empty() {
                said += 1;
                self.say(said, 0);
            }
            heard.last() == Some(&said)
        });
        assert_eq!(heard.last(), Some(&said), "they never met");
    }

    /// Reads until `enough`, and says which frames have come.
    fn listen(
        &mut self,
        reader: &mut FrameReader,
        mut enough: impl FnMut(&[u32]) -> bool,
    ) -> Vec<u32> {
        let mut heard = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !enough(&heard) && Instant::now() < deadline {
            match self.socket.read(reader.room()) {
                Ok(count) => reader.fill(count),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            let mut at = 0;
            while let Some(place) = reader.next(at).unwrap() {
                at = place.end;
                heard.push(number(reader.frame(place)));
            }
            reader.consume(at);
        }
        heard
    }
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

type Listening = JoinHandle<(Peer, FrameReader, Vec<u32>)>;

/// A machine that runs until it is stopped.
fn running(mut peer: Peer) -> (Arc<AtomicBool>, Listening) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let mut reader = FrameReader::default();
        let heard = peer.listen(&mut reader, |_| told.load(Ordering::Acquire));
        (peer, reader, heard)
    });
    (stop, thread)
}

fn numbers(frames: &[InFlight], port: &str) -> Vec<u32> {
    let theirs = frames.iter().filter(|held| held.port == port);
    theirs.map(|held| number(&held.frame)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_frame_is_with_a_machine_or_on_its_way(
        // As many as a socket holds that nobody reads while the VLAN stands still.
        lengths in prop::collection::vec(0..1400_usize, 1..60),
        pause_us in 0..2000_u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let vlan = Vlan::new(1).unwrap();
        let mut a = Peer::new(&vlan, "a", directory.path());
        let mut b = Peer::new(&vlan, "b", directory.path());
        a.meet(&mut b);
        let (stop, listening) = running(b);
        let all: Vec<u32> = (0..u32::try_from(lengths.len()).unwrap()).collect();
        let talk = thread::spawn(move || {
            for (number, length) in (0..).zip(lengths) {
                a.say(number, length);
            }
            a
        });
        thread::sleep(Duration::from_micros(pause_us));
        let still = vlan.hold();
        stop.store(true, Ordering::Release);
        let (mut b, mut reader, heard) = listening.join().unwrap();
        let a = talk.join().unwrap();
        let frames = still.frames();
        let on_their_way = numbers(&frames, "b");
        let both: Vec<u32> = heard.iter().chain(&on_their_way).copied().collect();
        prop_assert_eq!(&both, &all);
        prop_assert!(numbers(&frames, "a").is_empty());
        // Looking changes nothing.
        prop_assert_eq!(&still.frames(), &frames);

        // It goes on: the same machine gets the rest, once.
        drop(still);
        let rest = b.listen(&mut reader, |heard| heard.len() == on_their_way.len());
        prop_assert_eq!(&rest, &on_their_way);

        // Back to that moment, with a machine in the place of the former.
        let still = vlan.hold();
        drop((a, b));
        let mut b = Peer::new(&vlan, "b", directory.path());
        still.thaw(frames);
        let mut reader = FrameReader::default();
        let again = b.listen(&mut reader, |heard| heard.len() == on_their_way.len());
        prop_assert_eq!(again, on_their_way);
    }
}
