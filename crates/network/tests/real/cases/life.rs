//! Attaching and detaching.

use std::error::Error;
use std::fs;
use std::path::Path;

use libtest_mimic::Failed;
use machinist_network::{NetNs, Vlan, VlanError};
use machinist_sys::netlink::Netlink;

use crate::lab::{Container, Sockets, attach, spec};

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

fn links(netns: &NetNs) -> Vec<String> {
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
