//! How fast TCP is between two containers: over our switch, and over `vde_switch` with two
//! `vde_plug2tap`, on the same machine in the same minutes. And over our switch from a container to
//! what is in a virtual machine's place: a process that speaks QEMU's protocol and hands the frames
//! to a kernel, so that the switch has to cut and to sum up, and nothing is emulated.
//!
//! `cargo run --release -p machinist-network --example throughput [SECONDS [ROUNDS]]`, as root. Each
//! is measured for SECONDS (3) in each of ROUNDS (3) rounds, alternating; the medians are printed,
//! one `name<TAB>value<TAB>unit` per line. What this machine lacks is said on standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program of its own, run by people and by xtask"
)]

#[path = "../tests/real/lab.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod lab;
#[path = "../tests/real/traffic.rs"]
#[expect(dead_code, reason = "as above")]
mod traffic;
#[path = "../tests/real/vm.rs"]
#[expect(dead_code, reason = "as above")]
mod vm;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Container, Sockets, number};
use machinist_network::addresses;
use machinist_network::{NetNs, Vlan};
use machinist_sys::netlink::Netlink;
use vm::Vm;

/// What a sender writes and a receiver reads at once.
const CHUNK: usize = 128 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |otherwise: u64| -> Result<u64> {
        let given = arguments.next().map(|text| text.parse());
        Ok(given
            .transpose()
            .context("SECONDS and ROUNDS are numbers")?
            .unwrap_or(otherwise))
    };
    let (time, rounds) = (Duration::from_secs(argument(3)?), argument(3)?);
    let (mut ours, mut theirs, mut stream) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (vlan, sockets) = (Vlan::new(1)?, Sockets::new());
        let (from, to) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
        ours.push(pair(&from.netns, &to.netns).measure(time)?);
        drop(to);
        let to = Vm::new(&vlan, 2, &sockets);
        stream.push(pair(&from.netns, &to.netns).measure(time)?);
        match Vde::new() {
            Ok(vde) => theirs.push(pair(&vde.machines[0], &vde.machines[1]).measure(time)?),
            Err(error) => eprintln!("vde was not measured: {error:#}"),
        }
    }
    let ours = median(ours).context("ROUNDS is at least 1")?;
    println!("switch\t{ours:.2}\tGbit/s");
    if let Some(stream) = median(stream) {
        println!("switch-to-stream\t{stream:.2}\tGbit/s");
    }
    if let Some(theirs) = median(theirs) {
        println!("vde\t{theirs:.2}\tGbit/s");
        println!("ratio\t{:.1}\ttimes", ours / theirs);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Two machines, and the second one's address.
struct Pair<'a> {
    from: &'a NetNs,
    to: &'a NetNs,
    address: IpAddr,
}

const fn pair<'a>(from: &'a NetNs, to: &'a NetNs) -> Pair<'a> {
    Pair {
        from,
        to,
        address: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2)),
    }
}

impl Pair<'_> {
    /// Gbit/s of one TCP connection.
    fn measure(&self, time: Duration) -> Result<f64> {
        let listener = self.to.run(|| TcpListener::bind((self.address, 0)))??;
        let target = listener.local_addr()?;
        let receiver = thread::spawn(move || -> io::Result<(u64, Duration)> {
            let (mut stream, _) = listener.accept()?;
            let (begun, mut total) = (Instant::now(), 0);
            let mut memory = vec![0; CHUNK];
            loop {
                match stream.read(&mut memory)? {
                    0 => return Ok((total, begun.elapsed())),
                    count => total += count as u64,
                }
            }
        });
        let mut stream = self
            .from
            .run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
        let (chunk, begun) = (vec![7; CHUNK], Instant::now());
        while begun.elapsed() < time {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let (total, elapsed) = receiver.join().ok().context("the receiver has failed")??;
        #[expect(clippy::cast_precision_loss, reason = "a measurement")]
        let bits = total as f64 * 8.0;
        Ok(bits / elapsed.as_secs_f64() / 1e9)
    }
}

/// Debian's `vde2`: a switch, and a tap interface in each machine.
struct Vde {
    machines: [NetNs; 2],
    children: Vec<Child>,
    _directory: tempfile::TempDir,
}

impl Vde {
    fn new() -> Result<Self> {
        ensure!(
            Path::new("/dev/net/tun").exists(),
            "there is no /dev/net/tun"
        );
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("switch");
        let mut vde = Self {
            machines: [NetNs::new()?, NetNs::new()?],
            children: Vec::new(),
            _directory: directory,
        };
        // It ends when its standard input does, so that is kept open.
        let switch = Command::new("vde_switch")
            .arg("-s")
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start vde_switch (Debian: vde2)")?;
        vde.children.push(switch);
        until(|| Ok(socket.join("ctl").exists())).context("vde_switch has not come up")?;
        for (position, netns) in vde.machines.iter().enumerate() {
            let machine = number(position + 1);
            let plug = || {
                let mut plug = Command::new("vde_plug2tap");
                plug.arg("-s").arg(&socket).arg("eth1");
                plug.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
            };
            let plug = netns
                .run(plug)?
                .context("cannot start vde_plug2tap (Debian: vde2)")?;
            vde.children.push(plug);
            netns.run(|| -> Result<()> {
                let mut netlink = Netlink::open()?;
                until(|| Ok(netlink.link_by_name("eth1").is_ok())).context("no tap interface")?;
                let index = netlink.link_by_name("eth1")?.index;
                netlink.set_mac(index, addresses::mac(1, machine))?;
                netlink.set_up(index, true)?;
                netlink.add_address(index, addresses::ipv4(1, machine).into(), 24)?;
                Ok(())
            })??;
        }
        Ok(vde)
    }
}

impl Drop for Vde {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Looks again and again until it is so: other people's programs say nothing when they are ready.
fn until(mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !so()? {
        ensure!(
            begun.elapsed() < PATIENCE,
            "it takes longer than {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
