//! A whole renewal, in namespaces of its own that take what it does.

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use machinist_sys::netlink::{Mac, Netlink, VethEnd};
use machinist_sys::packet::{Batch, Headers, PacketSocket};
use machinist_wire::message::{HostLine, Identity, Interface};
use machinist_wire::renewal::{Change, DueTimers, HostKey};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::*;

const OLD: [u8; 6] = [0x52, 0x54, 0, 0x12, 1, 1];
const NEW: [u8; 6] = [0x52, 0x54, 0, 0x12, 1, 9];

/// Runs `f` on a thread whose file systems, network and names are its own. Says so where it may not.
fn alone(f: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if machinist_sys::isolation::leave_host().is_err() {
            eprintln!("skipped: this needs CAP_SYS_ADMIN");
            return;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        for place in ["/etc", "/var", "/run"] {
            mount("none", place, "tmpfs", MountFlags::empty(), None).unwrap();
        }
        f();
    });
    thread.join().unwrap();
}

fn write_all(files: &[(&str, &str)]) {
    for (path, text) in files {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn identity(name: &str, id: &str, mac: [u8; 6], last: u8) -> Identity {
    let address = IpAddr::from([192, 168, 1, last]);
    let line = |address, name: &str| HostLine {
        address,
        names: vec![name.to_owned()],
    };
    Identity {
        hostname: name.to_owned(),
        hosts: vec![line(address, name), line([192, 168, 1, 7].into(), "other")],
        machine_id: id.to_owned(),
        interfaces: vec![Interface {
            mac,
            name: "eth1".into(),
            addresses: vec![
                (address, 24),
                (format!("2001:db8::{last}").parse().unwrap(), 64),
            ],
        }],
        ..Identity::default()
    }
}

const STAMP: &str = "/var/lib/systemd/timers/stamp-fstrim.timer";

/// What a machine with this id has when it was saved.
fn golden_files(old: &str) {
    write_all(&[
        ("/etc/hostname", "golden\n"),
        (
            "/etc/hosts",
            "127.0.0.1 localhost\n192.168.1.1 golden\n192.168.1.7 other\n10.9.9.9 own\n",
        ),
        ("/etc/machine-id", &format!("{old}\n")),
        ("/var/lib/dbus/machine-id", &format!("{old}\n")),
        ("/var/lib/systemd/random-seed", "seed"),
        ("/var/lib/systemd/timers/stamp-fstrim.timer", ""),
        (&format!("/run/log/journal/{old}/system.journal"), "entries"),
        ("/etc/ssh/ssh_host_ed25519_key", "old"),
    ]);
    let file = fs::File::options().write(true).open(STAMP).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
}

/// What makes the machine with the id `old` the one with the id `new`.
fn into_another(old: &str, new: &str) -> Renewal {
    Renewal {
        entropy: vec![7; 64].into(),
        change: Some(Change {
            from: identity("golden", old, OLD, 1),
            to: identity("copy", new, NEW, 9),
        }),
        host_keys: vec![HostKey {
            path: "/etc/ssh/ssh_host_ed25519_key".into(),
            private: b"new".to_vec().into(),
            public: b"line".to_vec().into(),
        }],
        due: Some(DueTimers {
            stop: b"stop".to_vec().into(),
            start: b"start".to_vec().into(),
            ask: Vec::new(),
        }),
        mark: "restored".into(),
        ..Renewal::default()
    }
}

#[test]
fn a_machine_becomes_another() {
    alone(|| {
        let (old, new) = ("0".repeat(32), "1".repeat(32));
        golden_files(&old);
        fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        let heard = manager();

        let mut context = Context::default();
        let renewal = into_another(&old, &new);
        let without = renew(&renewal, &mut context).err().unwrap();
        assert_eq!(
            without.text,
            "there is no network interface 52:54:00:12:01:01"
        );
        let peer = cable();
        let (renewed, reloading) = renew(&renewal, &mut context).unwrap();
        assert!(reloading.is_none());
        assert_eq!(renewed.lacks, []);

        assert_eq!(rustix::system::uname().nodename().to_bytes(), b"copy");
        assert_eq!(read("/etc/hostname"), "copy\n");
        assert_eq!(
            read("/etc/hosts"),
            "127.0.0.1 localhost\n192.168.1.9 copy\n192.168.1.7 other\n10.9.9.9 own\n"
        );
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
            assert_eq!(read(path), format!("{new}\n"));
        }
        assert_eq!(
            read(&format!("/run/log/journal/{new}/system.journal")),
            "entries"
        );
        assert_eq!(fs::read("/var/lib/systemd/random-seed").unwrap().len(), 512);
        assert_eq!(read("/etc/ssh/ssh_host_ed25519_key"), "new");
        let stamped = fs::metadata(STAMP).unwrap().modified().unwrap();
        assert!(stamped > std::time::UNIX_EPOCH);
        let mut said = [0; 200];
        let count = journal.recv(&mut said).unwrap();
        assert!(said[..count].starts_with(b"MESSAGE=restored\n"));
        let heard = heard.join().unwrap();
        let greeted = |what| format!("\0AUTH EXTERNAL 30\r\nBEGIN\r\n{what}");
        assert_eq!(
            heard[heard.len() - 2..],
            [greeted("stop"), greeted("start")]
        );
        assert_eq!(context.sinks.len(), 1);
        the_network_is_another(&peer);
    });
}

/// Hears what systemd's manager is told: the first renewal fails after it has stopped timers.
fn manager() -> std::thread::JoinHandle<Vec<String>> {
    let manager = UnixListener::bind("/run/systemd/private").unwrap();
    std::thread::spawn(move || {
        let hear = |_| {
            let (mut socket, _) = manager.accept().unwrap();
            socket.write_all(b"OK 0\r\n").unwrap();
            let mut heard = String::new();
            io::Read::read_to_string(&mut socket, &mut heard).unwrap();
            heard
        };
        (0..3).map(hear).collect()
    })
}

/// A machine's only network card, which has been somebody else's; the other end of its cable.
fn cable() -> PacketSocket {
    let mut netlink = Netlink::open().unwrap();
    let end = |name, mac| VethEnd {
        name,
        mac: Some(Mac(mac)),
        mtu: 1500,
        netns: None,
        index: None,
    };
    netlink
        .create_veth(end("peer", [2, 0, 0, 0, 0, 1]), end("eth1", OLD))
        .unwrap();
    netlink.loopback_up().unwrap();
    for name in ["peer", "eth1"] {
        // Else both are busy searching for others who have their addresses.
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0").unwrap();
        let index = netlink.link_by_name(name).unwrap().index;
        netlink.set_up(index, true).unwrap();
    }
    let peer = netlink.link_by_name("peer").unwrap().index;
    let index = netlink.link_by_name("eth1").unwrap().index;
    netlink
        .wait_until_running(index, Duration::from_secs(5))
        .unwrap();
    for (address, prefix) in [
        ("192.168.1.1", 24),
        // Not given by us: it belonged to the other machine all the same.
        ("192.168.1.55", 24),
        ("2001:db8::1", 64),
    ] {
        let address = address.parse().unwrap();
        netlink.add_address(index, address, prefix).unwrap();
    }
    let route = ["route", "add", "10.0.0.0/8", "via", "192.168.1.254"];
    assert!(Command::new("ip").args(route).status().unwrap().success());
    PacketSocket::open(peer, Headers::None).unwrap()
}

fn the_network_is_another(peer: &PacketSocket) {
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link_by_name("eth1").unwrap();
    assert_eq!((link.mac, link.up), (Some(Mac(NEW)), true));
    let mut addresses = netlink.addresses(link.index).unwrap();
    addresses.sort();
    let wanted = [
        ("192.168.1.9", 24),
        ("2001:db8::9", 64),
        ("fe80::5054:ff:fe12:109", 64),
    ];
    let wanted = wanted.map(|(address, prefix)| (address.parse().unwrap(), prefix));
    assert_eq!(addresses, wanted);
    // Usable at once.
    drop(TcpListener::bind("192.168.1.9:0").unwrap());
    drop(UdpSocket::bind("[2001:db8::9]:0").unwrap());
    let routes = Command::new("ip").arg("route").output().unwrap();
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert!(routes.contains("10.0.0.0/8 via 192.168.1.254"), "{routes}");
    assert!(routes.contains("src 192.168.1.9"), "{routes}");

    // ARP: request, of the new MAC, that asks for its own address. Neighbour advertisement: ICMPv6
    // of type 136 in IPv6.
    let arp = |frame: &[u8]| frame[12..14] == [8, 6] && frame[28..32] == frame[38..42];
    let advertisement = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[54] == 136;
    let (mut told4, mut told6) = (false, false);
    let mut batch = Batch::default();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !(told4 && told6) {
        assert!(Instant::now() < deadline, "the neighbours are not told");
        let Ok(count) = peer.receive(&mut batch) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        for number in 0..count {
            let frame = batch.frame(number).bytes;
            let ours = frame[6..12] == NEW;
            told4 |= ours && arp(frame) && frame[28..32] == [192, 168, 1, 9];
            told6 |= ours && advertisement(frame);
        }
    }
}

#[test]
fn a_machine_that_stays_itself_keeps_what_it_has() {
    alone(|| {
        let id = "0".repeat(32);
        let same = identity("golden", &id, OLD, 1);
        write_all(&[
            ("/etc/machine-id", &format!("{id}\n")),
            ("/etc/hosts", "anything\n"),
        ]);
        let _peer = cable();
        let renewal = Renewal {
            change: Some(Change {
                from: same.clone(),
                to: same,
            }),
            ..Renewal::default()
        };
        renew(&renewal, &mut Context::default()).unwrap();
        assert_eq!(read("/etc/hosts"), "anything\n");
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link_by_name("eth1").unwrap();
        let own = ("192.168.1.55".parse().unwrap(), 24);
        assert_eq!(link.mac, Some(Mac(OLD)));
        assert!(netlink.addresses(link.index).unwrap().contains(&own));
        let notify = read("/proc/sys/net/ipv4/conf/eth1/arp_notify");
        assert_eq!(notify.trim(), "0");
    });
}

#[test]
fn what_cannot_be_done_is_said() {
    alone(|| {
        write_all(&[("/var/lib/systemd/timers/stamp-a.timer", "")]);
        let renewal = Renewal {
            due: Some(DueTimers::default()),
            ..Renewal::default()
        };
        // There is no systemd here.
        let lacks = renew(&renewal, &mut Context::default()).unwrap().0.lacks;
        let what: Vec<_> = lacks.iter().map(|lack| lack.what.as_str()).collect();
        assert_eq!(what, ["timers", "timers"]);
    });
}
