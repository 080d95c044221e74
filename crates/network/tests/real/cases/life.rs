//! Attaching and detaching.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::{NetNs, Vlan, VlanError};
use machinist_sys::netlink::Netlink;

use crate::lab::{Container, Sockets, attach, spec};
use crate::traffic::{udp, udp_ping};

/// The whole chain, as the command line prints it.
fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

pub fn links(netns: &NetNs) -> Vec<String> {
    let links = netns.run(|| Netlink::open().unwrap().links().unwrap());
    links.unwrap().into_iter().map(|link| link.name).collect()
}

pub fn errors() -> Result<(), Failed> {
    assert!(matches!(Vlan::new(0), Err(VlanError::Number { vlan: 0 })));
    assert!(matches!(Vlan::new(255), Err(VlanError::Number { .. })));
    let vlan = Vlan::new(9)?;
    let machine = Container::new(&vlan, 1);
    let taken = vlan
        .attach_veth("web", spec(9, 2, &machine.netns, None))
        .unwrap_err();
    let said = text(&taken);
    assert!(
        said.contains("port web") && said.contains("eth1") && said.contains("exists"),
        "{said}"
    );

    let no_namespace = NetNs::open(Path::new("/dev/null"))?;
    let said = text(
        &vlan
            .attach_veth("web", spec(9, 2, &no_namespace, None))
            .unwrap_err(),
    );
    assert!(said.contains("port web"), "{said}");

    let netns = NetNs::new()?;
    let mut wrong = spec(9, 2, &netns, None);
    wrong.addresses.push(("10.0.0.1".parse()?, 33));
    let said = text(&vlan.attach_veth("web", wrong).unwrap_err());
    assert!(said.contains("10.0.0.1/33"), "{said}");
    // What was half made is gone.
    assert_eq!(links(&netns), ["lo"]);

    let nowhere = Path::new("/nonexistent/socket");
    let said = text(&vlan.attach_socket("web", nowhere).unwrap_err());
    assert!(
        said.contains("port web") && said.contains("/nonexistent/socket"),
        "{said}"
    );
    Ok(())
}

pub fn dropped() -> Result<(), Failed> {
    let threads = || -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks
            .filter_map(name)
            .map(|name| name.trim().to_owned())
            .collect()
    };
    let sockets = Sockets::new();
    let path = sockets.path(1);
    let netns = NetNs::new()?;
    let vlan = Vlan::new(77)?;
    let socket = vlan.attach_socket("vm", &path)?;
    let veth = attach(&vlan, 2, &netns, None);
    assert!(path.exists());
    assert_eq!(links(&netns), ["lo", "eth1"]);
    drop(socket);
    assert!(!path.exists());
    drop(veth);
    assert_eq!(links(&netns), ["lo"]);
    // A socket that a killed process left is replaced, anything else is not touched.
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    let again = vlan.attach_socket("vm", &path)?;
    let file = sockets.path(2);
    fs::write(&file, "precious")?;
    assert!(vlan.attach_socket("vm", &file).is_err());
    assert_eq!(fs::read_to_string(&file)?, "precious");

    assert!(threads().contains(&"vlan77".to_owned()));
    // The port keeps the switch going when the handle is gone.
    drop(vlan);
    again.set_up(false);
    drop(again);
    assert!(!threads().contains(&"vlan77".to_owned()));

    // A machine whose network namespace is gone before its port is no trouble.
    let vlan = Vlan::new(78)?;
    let Container { netns, port, .. } = Container::new(&vlan, 1);
    drop(netns);
    drop(port);
    Ok(())
}

/// Root in a container may do to its interface what it likes.
pub fn unplugged() -> Result<(), Failed> {
    let vlan = Vlan::new(79)?;
    let gone = Container::new(&vlan, 1);
    let (a, b) = (Container::new(&vlan, 2), Container::new(&vlan, 3));
    gone.netns.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link_by_name("eth1").unwrap().index;
        netlink.delete(index).unwrap();
    })?;
    let ping = || {
        let (from, to) = (a.address.v4.into(), b.address.v4.into());
        udp_ping(&a.netns, from, &b.netns, to, 100);
    };
    ping();
    // The loop does not spin over what is gone.
    let before = switched("vlan79");
    std::thread::sleep(Duration::from_millis(500));
    let spent = switched("vlan79") - before;
    assert!(
        spent < 10,
        "the switch used {spent} of 50 ticks doing nothing"
    );
    ping();
    // To everybody, and one of them is not there any more.
    let socket = udp(&a.netns, a.address.v4.into(), 0);
    socket.set_broadcast(true)?;
    socket.send_to(b"hello", ("192.168.79.255", 5000))?;
    ping();
    Ok(())
}

/// The processor time of one of our threads, in ticks of 10 ms.
fn switched(name: &str) -> u64 {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if fs::read_to_string(path.join("comm")).unwrap().trim() != name {
            continue;
        }
        let stat = fs::read_to_string(path.join("stat")).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        // utime and stime are fields 14 and 15, of which two are before the last parenthesis.
        return fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    }
    panic!("there is no thread {name}");
}

/// The kernel looks at cables at most once a second, where it does not see that somebody waits.
pub fn prompt() -> Result<(), Failed> {
    let begun = Instant::now();
    for round in 1..=6 {
        let vlan = Vlan::new(round)?;
        let netns = NetNs::new()?;
        let tap = NetNs::new()?;
        let machine = attach(&vlan, 1, &netns, None);
        let wire = vlan.attach_tap(&tap)?;
        drop((machine, wire));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    Ok(())
}
