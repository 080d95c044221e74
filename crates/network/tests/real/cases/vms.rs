//! Virtual machines that behave badly.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::Vlan;
use machinist_network::stream::FrameReader;

use crate::lab::{Container, Sockets};
use crate::traffic::{PATIENCE, transfer, udp};

/// A frame to everybody, as QEMU would send it.
fn hello(byte: u8) -> Vec<u8> {
    [vec![0, 0, 0, 60], broadcast(byte)].concat()
}

/// A frame to everybody, of 60 bytes.
pub fn broadcast(byte: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, byte, 0x88, 0xb5]);
    frame.extend([byte; 46]);
    frame
}

/// Waits until `done`, which can only be seen by looking.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} has not happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn stopped() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    let path = sockets.path(3);
    let port = vlan.attach_socket("stopped", &path)?;
    let mut vm = UnixStream::connect(&path)?;
    vm.write_all(&hello(1))?;
    until("hearing the machine", || {
        port.counters().received.frames == 1
    });

    // More for everybody than may wait for the one who does not listen.
    let from = udp(&a.netns, a.address.v4.into(), 0);
    from.set_broadcast(true)?;
    let begun = Instant::now();
    while port.counters().drops.no_room == 0 {
        from.send_to(&[7; 1400], ("192.168.1.255", 5000))?;
        assert!(begun.elapsed() < PATIENCE, "{:?}", port.counters());
    }
    let took = transfer(&a.netns, &b.netns, b.address.v4.into(), 100_000_000);
    assert!(took < PATIENCE);

    // When it listens again, every frame it gets is whole.
    vm.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (mut reader, mut frames) = (FrameReader::default(), 0);
    loop {
        match vm.read(reader.room()) {
            Ok(count) => reader.fill(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
        let mut at = 0;
        while let Some(place) = reader.next(at)? {
            at = place.end;
            frames += 1;
            let length = reader.frame(place).len();
            assert!((42..=1514).contains(&length), "a frame of {length} bytes");
        }
        reader.consume(at);
    }
    assert!(frames > 500, "only {frames} frames waited");
    assert_eq!(frames, port.counters().sent.frames);
    Ok(())
}

pub fn reconnects() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let listener = Container::new(&vlan, 1);
    let path = sockets.path(2);
    let port = vlan.attach_socket("vm", &path)?;
    let heard = || port.counters().received.frames;
    let mut first = UnixStream::connect(&path)?;
    first.write_all(&hello(1))?;
    until("hearing the first", || heard() == 1);
    // A second one waits its turn.
    let mut second = UnixStream::connect(&path)?;
    second.write_all(&hello(2))?;
    // The first goes away in the middle of a frame.
    first.write_all(&hello(3)[..20])?;
    drop(first);
    until("hearing the second", || heard() == 2);
    for count in 3..20 {
        drop(second);
        second = UnixStream::connect(&path)?;
        second.write_all(&hello(2))?;
        until("hearing it again", || heard() == count);
    }
    assert_eq!(port.counters().drops.malformed, 0);
    until("passing all on", || {
        listener.port.counters().sent.frames >= 19
    });
    // What one sends that is not to be on the VLAN yet waits until it is.
    let (path, gone) = (sockets.path(3), sockets.path(4));
    let reserved = vlan.reserve_socket("later", &path)?;
    let mut early = UnixStream::connect(&path)?;
    early.write_all(&hello(4))?;
    let passed = listener.port.counters().sent.frames;
    let later = reserved.attach()?;
    until("hearing what waited", || {
        later.counters().received.frames == 1 && listener.port.counters().sent.frames == passed + 1
    });
    drop(vlan.reserve_socket("never", &gone)?);
    assert!(path.exists() && !gone.exists());
    Ok(())
}

pub fn garbage() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let path = sockets.path(1);
    let port = vlan.attach_socket("vm", &path)?;
    let mut peer = UnixStream::connect(&path)?;
    // A good frame, one too short to be one, and something else altogether.
    peer.write_all(&hello(1))?;
    peer.write_all(&[0, 0, 0, 2, 1, 1])?;
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    peer.set_read_timeout(Some(PATIENCE))?;
    match peer.read(&mut [0; 16]) {
        Ok(0) => {}
        // It had not read all of it when it closed.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    let counters = port.counters();
    assert_eq!((counters.received.frames, counters.drops.malformed), (2, 1));
    let mut next = UnixStream::connect(&path)?;
    next.write_all(&hello(2))?;
    until("hearing the next", || port.counters().received.frames == 3);
    Ok(())
}
