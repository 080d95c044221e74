//! Clients of the VDE protocol.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::{AttachError, DirectoryError, Vlan, vde};

use super::vms::{broadcast, until};
use crate::lab::{Container, Sockets};
use crate::plug::{self, Plug, request, sockets};
use crate::traffic::{Bytes, PATIENCE, transfer, udp, udp_passes, udp_ping};
use crate::vm::Vm;

const MUCH: usize = 100_000_000;
const A_WHILE: Duration = Duration::from_millis(300);

/// Everybody hears everybody: two VDE clients, a virtual machine by QEMU's own protocol, a container.
pub fn talk() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (a, b) = (plug::vm(&vlan, 1, &sockets), plug::vm(&vlan, 2, &sockets));
    let (c, d) = (Vm::new(&vlan, 3, &sockets), Container::new(&vlan, 4));
    let others = [
        (&b.netns, b.address),
        (&c.netns, c.address),
        (&d.netns, d.address),
    ];
    for (netns, address) in others {
        for (from, to) in a.address.both().into_iter().zip(address.both()) {
            udp_ping(&a.netns, from, netns, to, 100);
            udp_ping(netns, to, &a.netns, from, 60_000);
            transfer(netns, &a.netns, from, 1000);
        }
    }
    let counters = a.port.counters();
    assert!(
        counters.received.frames > 100 && counters.sent.frames > 100,
        "{counters:?}"
    );
    assert_eq!(counters.drops, Default::default());
    Ok(())
}

pub fn much() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (vm, container) = (plug::vm(&vlan, 1, &sockets), Container::new(&vlan, 2));
    for address in vm.address.both() {
        transfer(&container.netns, &vm.netns, address, MUCH);
    }
    for address in container.address.both() {
        transfer(&vm.netns, &container.netns, address, MUCH / 4);
    }
    let (vm, container) = (vm.port.counters(), container.port.counters());
    // The container's kernel hands over long packets, and they are cut in software.
    assert!(
        container.received.bytes / container.received.frames > 1514,
        "{container:?}"
    );
    assert_eq!((vm.drops.too_long, vm.drops.refused), (0, 0), "{vm:?}");
    Ok(())
}

/// Each door is a cable of its own, for those to come, too.
pub fn down() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let (vm, other) = (plug::vm(&vlan, 1, &sockets), plug::vm(&vlan, 2, &sockets));
    let container = Container::new(&vlan, 3);
    let to = udp(&vm.netns, vm.address.v4.into(), 0);
    let from = udp(&container.netns, container.address.v4.into(), 0);
    assert!(udp_passes(&from, &to, PATIENCE));
    vm.port.set_up(false);
    assert!(!udp_passes(&from, &to, A_WHILE));
    assert!(!udp_passes(&to, &from, A_WHILE));
    udp_ping(
        &other.netns,
        other.address.v4.into(),
        &container.netns,
        container.address.v4.into(),
        10,
    );
    let late = Plug::new(vm.port.directory());
    let before = vm.port.counters().drops.port_down;
    late.data.send(&broadcast(1))?;
    until("dropping what comes", || {
        vm.port.counters().drops.port_down > before
    });
    vm.port.set_up(true);
    assert!(udp_passes(&from, &to, PATIENCE));
    Ok(())
}

/// Clients that are killed lose their ports at once, and nothing of them stays.
pub fn killed() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(81)?, Sockets::new());
    let door = vlan.listen_vde(&directories.path(1))?;
    let directory = door.directory().to_owned();
    let stays = Plug::new(&directory);
    for _ in 0..3 {
        let clients: Vec<Plug> = (0..20).map(|_| Plug::new(&directory)).collect();
        assert_eq!(sockets(&directory).len(), 1 + 2 * 21);
        for client in &clients {
            client.data.send(&broadcast(7))?;
        }
        // In whichever order its descriptors are closed.
        for (number, Plug { control, data }) in clients.into_iter().enumerate() {
            if number % 2 == 0 {
                drop(control);
                stays.data.send(&broadcast(8))?;
                drop(data);
            } else {
                drop(data);
                stays.data.send(&broadcast(8))?;
                drop(control);
            }
        }
        until("noticing", || sockets(&directory).len() == 3);
    }
    // Its datagram socket alone is closed: what is sent to it tells.
    let Plug { control, data } = Plug::new(&directory);
    drop(data);
    stays.data.send(&broadcast(9))?;
    until("noticing the half", || sockets(&directory).len() == 3);
    let mut control = control;
    assert_eq!(control.read(&mut [0; 1])?, 0);
    // The handle goes: so do the others, and the directory, which was made for them.
    drop(door);
    assert!(!directory.exists());
    let mut control = stays.control;
    assert_eq!(control.read(&mut [0; 1])?, 0);
    Ok(())
}

/// Requests that are none, or not all there, and then some: whoever comes after gets a port.
pub fn garbage() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(82)?, Sockets::new());
    let listener = Container::new(&vlan, 1);
    let door = vlan.listen_vde(&directories.path(2))?;
    let directory = door.directory();
    let neighbour = Plug::new(directory);
    let seed = request(&directory.join(".00001-99999"), b"nobody");
    mutations(directory, &seed)?;
    liars(directory)?;
    // Hundreds who say nothing, or half of it, and stay.
    let mut silent = Vec::new();
    for count in 0..400 {
        let mut stream = UnixStream::connect(directory.join("ctl"))?;
        drop(stream.write_all(&seed[..count % 122]));
        silent.push(stream);
    }
    // What is said after a request means nothing, and frames that are none are counted.
    let mut client = Plug::new(directory);
    client.control.write_all(&[0x5a; 10_000])?;
    client.data.send(&[])?;
    client.data.send(b"too short")?;
    let heard = listener.port.counters().sent.frames;
    client.data.send(&broadcast(1))?;
    until("passing it on", || {
        listener.port.counters().sent.frames > heard
    });
    neighbour.data.recv(&mut [0; 2000])?;
    let counters = door.counters();
    assert_eq!(counters.drops.malformed, 1, "{counters:?}");
    drop(client);
    until("its end", || sockets(directory).len() == 3);
    assert_eq!(silent.len(), 400);
    Ok(())
}

/// Requests with bytes changed, cut, repeated; with and without waiting for an answer.
fn mutations(directory: &Path, seed: &[u8]) -> Result<(), Failed> {
    let mut bytes = Bytes::new(82);
    let mut dice = || usize::from(bytes.take(1)[0]);
    for round in 0..600 {
        let mut bytes = seed.to_vec();
        for _ in 0..dice() % 6 {
            let at = dice() % bytes.len();
            bytes[at] = u8::try_from(dice())?;
        }
        match round % 5 {
            0 => bytes.truncate(dice() % bytes.len()),
            1 => bytes.extend_from_within(..),
            2 => bytes.resize(4096, 0x41),
            _ => {}
        }
        let mut stream = UnixStream::connect(directory.join("ctl"))?;
        // It may have been sent away already.
        drop(stream.write_all(&bytes));
        if round % 3 == 0 {
            drop(stream.shutdown(Shutdown::Write));
            stream.set_read_timeout(Some(PATIENCE))?;
            match stream.read_to_end(&mut Vec::new()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => panic!("round {round}: {error}"),
            }
        }
    }
    Ok(())
}

/// Requests with the address of what is no datagram socket, or somebody else's.
fn liars(directory: &Path) -> Result<(), Failed> {
    let file = directory.join(".file");
    fs::write(&file, "precious")?;
    let places = [
        directory.join("nothing"),
        file.clone(),
        directory.to_owned(),
        directory.join("ctl"),
        directory.join("port1"),
        directory.join(".."),
    ];
    for place in places {
        let mut stream = UnixStream::connect(directory.join("ctl"))?;
        stream.write_all(&request(&place, b"liar"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        assert_eq!(stream.read(&mut [0; 110])?, 0, "{}", place.display());
    }
    assert_eq!(fs::read_to_string(&file)?, "precious");
    fs::remove_file(&file)?;
    Ok(())
}

/// A client that does not read blocks nobody, and gets whole frames when it reads again.
pub fn stopped() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(1)?, Sockets::new());
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    let door = vlan.listen_vde(&directories.path(3))?;
    let client = Plug::new(door.directory());
    let from = udp(&a.netns, a.address.v4.into(), 0);
    from.set_broadcast(true)?;
    let begun = Instant::now();
    while door.counters().drops.no_room == 0 {
        from.send_to(&[7; 1400], ("192.168.1.255", 5000))?;
        assert!(begun.elapsed() < PATIENCE, "{:?}", door.counters());
    }
    assert!(transfer(&a.netns, &b.netns, b.address.v4.into(), MUCH) < PATIENCE);
    client.data.set_read_timeout(Some(A_WHILE))?;
    let mut frames = 0;
    let mut memory = [0; 2000];
    loop {
        match client.data.recv(&mut memory) {
            Ok(length) => assert!((42..=1514).contains(&length), "a frame of {length} bytes"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
        frames += 1;
    }
    assert!(frames > 500, "only {frames} frames waited");
    assert_eq!(frames, door.counters().sent.frames);
    // And then it is one as any other.
    from.send_to(b"hello", ("192.168.1.255", 5000))?;
    client.data.set_read_timeout(Some(PATIENCE))?;
    // The containers' kernels say things of their own, at times of their own.
    loop {
        let length = client.data.recv(&mut memory)?;
        if memory[..length].ends_with(b"hello") {
            return Ok(());
        }
    }
}

/// What is in the directory, before, meanwhile, and afterwards.
pub fn directories() -> Result<(), Failed> {
    let (vlan, places) = (Vlan::new(1)?, Sockets::new());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = places.path(1);
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    // Left by processes that were killed.
    drop(UnixListener::bind(directory.join("ctl"))?);
    drop(UnixDatagram::bind(directory.join("port1"))?);
    drop(UnixDatagram::bind(directory.join(".00042-00000"))?);
    fs::write(directory.join("notes"), "precious")?;
    let door = vlan.listen_vde(&directory)?;
    assert_eq!(sockets(&directory), ["ctl", "notes"]);
    let client = Plug::new(door.directory());
    let port = directory.join("port1");
    assert_eq!(
        (mode(&directory), mode(&directory.join("ctl"))),
        (0o700, 0o600)
    );
    assert_eq!(mode(&port), 0o600);
    // Two cannot serve in one directory; and the first is not disturbed.
    let taken = Vlan::new(2)?.listen_vde(&directory).unwrap_err();
    assert!(
        matches!(taken, AttachError::Directory(DirectoryError::Taken { .. })),
        "{taken}"
    );
    client.data.send(&broadcast(1))?;
    until("hearing it", || door.counters().received.frames == 1);
    drop(door);
    assert_eq!(sockets(&directory), ["notes"]);

    let long = places.path(2).join("x".repeat(vde::LONGEST_DIRECTORY));
    fs::create_dir(places.path(2))?;
    let said = vlan.listen_vde(&long).unwrap_err().to_string();
    assert!(
        said.contains("bytes long") && said.contains("92 bytes"),
        "{said}"
    );
    assert!(!long.exists());
    let longest = vde::LONGEST_DIRECTORY - places.path(2).as_os_str().len() - 1;
    let longest = places.path(2).join("x".repeat(longest));
    let door = vlan.listen_vde(&longest)?;
    drop(Plug::new(door.directory()));

    let file = directory.join("notes");
    for place in [&file, Path::new("/nonexistent/vde")] {
        let failed = vlan.listen_vde(place).unwrap_err();
        assert!(
            failed.to_string().contains(&*place.to_string_lossy()),
            "{failed}"
        );
    }
    assert_eq!(fs::read_to_string(file)?, "precious");
    Ok(())
}

/// There is an end to how many may come, and then room again for others.
pub fn many() -> Result<(), Failed> {
    let (vlan, directories) = (Vlan::new(83)?, Sockets::new());
    let door = vlan.listen_vde(&directories.path(1))?;
    let directory = door.directory();
    let mut clients: Vec<Plug> = (0..256).map(|_| Plug::new(directory)).collect();
    assert!(Plug::try_new(directory).is_none());
    clients[0].data.send(&broadcast(1))?;
    for client in &clients[1..] {
        assert_eq!(client.data.recv(&mut [0; 2000])?, 60);
    }
    clients.truncate(100);
    until("their leaving", || {
        sockets(directory)
            .iter()
            .filter(|name| name.starts_with("port"))
            .count()
            == 100
    });
    clients.push(Plug::new(directory));
    clients[100].data.send(&broadcast(1))?;
    assert_eq!(clients[0].data.recv(&mut [0; 2000])?, 60);
    Ok(())
}
