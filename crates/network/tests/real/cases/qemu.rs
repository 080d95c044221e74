//! The real QEMU. It needs no guest: its boot firmware asks for an address by itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::Vlan;
use machinist_sys::packet::{Batch, Headers, PacketSocket};

use crate::lab::{Address, Container, Sockets};

/// Firmware under emulation on a busy machine takes its time.
pub const FIRMWARE: Duration = Duration::from_secs(90);

/// A QEMU that does not outlive its test.
pub struct Qemu(Child);

impl Qemu {
    fn new(socket: &Path, address: Address) -> Self {
        let socket = socket.display();
        let netdev = format!("stream,id=n1,server=off,addr.type=unix,addr.path={socket}");
        Self::with(&netdev, address)
    }

    /// One with a network card at this backend, `n1`, from which it boots.
    pub fn with(netdev: &str, address: Address) -> Self {
        let device = format!("virtio-net-pci,netdev=n1,mac={},bootindex=0", address.mac);
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-M",
                "q35",
                "-accel",
                "tcg",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-display", "none", "-netdev", netdev, "-device", &device])
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether there is a QEMU, and firmware that boots from the network.
pub fn is_there() -> bool {
    let found = Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let roms = [
        "/usr/lib/ipxe/qemu",
        "/usr/share/qemu",
        "/usr/share/ipxe/qemu",
    ];
    let rom = roms
        .iter()
        .any(|dir| Path::new(dir).join("efi-virtio.rom").exists());
    found.is_ok_and(|status| status.success()) && rom
}

pub fn boots() -> Result<(), Failed> {
    let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
    let listener = Container::new(&vlan, 1);
    let address = Address::of(1, 2);
    let path = sockets.path(2);
    let port = vlan.attach_socket("qemu", &path)?;
    let open = || {
        let mut netlink = machinist_sys::netlink::Netlink::open().unwrap();
        let index = netlink.link_by_name("eth1").unwrap().index;
        PacketSocket::open(index, Headers::Offload).unwrap()
    };
    let heard = listener.netns.run(open)?;
    // Once more, as after a power cut.
    for _ in 0..2 {
        let qemu = Qemu::new(&path, address);
        let begun = Instant::now();
        let mut batch = Batch::new();
        let asked = 'asked: loop {
            let mut ready = [rustix::event::PollFd::new(
                &heard,
                rustix::event::PollFlags::IN,
            )];
            let tick = rustix::event::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            rustix::event::poll(&mut ready, Some(&tick))?;
            for index in 0..heard.receive(&mut batch).unwrap_or(0) {
                let frame = batch.frame(index).bytes;
                // A broadcast from it: the question for an address.
                if frame.starts_with(&[0xff; 6]) && frame[6..12] == address.mac.0 {
                    break 'asked true;
                }
            }
            if begun.elapsed() > FIRMWARE {
                break false;
            }
        };
        assert!(asked, "QEMU was not heard: {:?}", port.counters());
        drop(qemu);
    }
    assert_eq!(port.counters().drops.malformed, 0);
    Ok(())
}
