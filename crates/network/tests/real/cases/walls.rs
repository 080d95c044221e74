//! What must not pass does not.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::Vlan;
use machinist_sys::netlink::Netlink;

use crate::lab::Container;
use crate::traffic::{PATIENCE, udp, udp_passes, udp_ping};

const A_WHILE: Duration = Duration::from_millis(300);

/// The same machines' numbers on two VLANs, with the same addresses even: nobody hears the other.
pub fn vlans() -> Result<(), Failed> {
    let (one, two) = (Vlan::new(1)?, Vlan::new(2)?);
    let (a, b) = (Container::new(&one, 1), Container::new(&one, 2));
    let (c, d) = (Container::new(&two, 1), Container::new(&two, 2));
    udp_ping(
        &a.netns,
        a.address.v4.into(),
        &b.netns,
        b.address.v4.into(),
        10,
    );
    udp_ping(
        &c.netns,
        c.address.v6.into(),
        &d.netns,
        d.address.v6.into(),
        10,
    );

    let everybody = |machine: &Container| {
        let socket = udp(&machine.netns, Ipv4Addr::UNSPECIFIED.into(), 5000);
        socket.set_broadcast(true).unwrap();
        socket
    };
    let sockets: Vec<_> = [&a, &b, &c, &d].into_iter().map(everybody).collect();
    sockets[0].send_to(b"one", (Ipv4Addr::new(192, 168, 1, 255), 5000))?;
    sockets[2].send_to(b"two", (Ipv4Addr::new(192, 168, 2, 255), 5000))?;
    for (listener, want) in [(1, b"one"), (3, b"two")] {
        let mut memory = [0; 8];
        assert_eq!(sockets[listener].recv(&mut memory)?, 3);
        assert_eq!(&memory[..3], want);
        sockets[listener].set_read_timeout(Some(A_WHILE))?;
        assert!(
            sockets[listener].recv(&mut memory).is_err(),
            "more than one came"
        );
    }
    Ok(())
}

/// Attaching adds no interface to the host's own network.
pub fn host() -> Result<(), Failed> {
    let names = || -> Vec<String> {
        let links = Netlink::open().unwrap().links().unwrap();
        links.into_iter().map(|link| link.name).collect()
    };
    let before = names();
    let vlan = Vlan::new(3)?;
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    udp_ping(
        &a.netns,
        a.address.v4.into(),
        &b.netns,
        b.address.v4.into(),
        10,
    );
    // What others have on the host at the same time goes; what is ours would stay.
    let begun = Instant::now();
    let new = || -> Vec<String> {
        let all = names().into_iter();
        all.filter(|name| !before.contains(name)).collect()
    };
    while !new().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", new());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub fn jumbo() -> Result<(), Failed> {
    let vlan = Vlan::with_mtu(1, 9000)?;
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    let small = Container::with_mtu(&vlan, 3, Some(1500));
    udp_ping(
        &a.netns,
        a.address.v4.into(),
        &b.netns,
        b.address.v4.into(),
        8900,
    );
    assert_eq!(b.port.counters().drops, Default::default());

    let from = udp(&a.netns, a.address.v4.into(), 0);
    let to = udp(&small.netns, small.address.v4.into(), 0);
    assert!(udp_passes(&from, &to, PATIENCE));
    for dropped in 1..4 {
        from.send_to(&[1; 5000], to.local_addr()?)?;
        to.set_read_timeout(Some(A_WHILE))?;
        assert!(to.recv(&mut [0; 9000]).is_err());
        assert_eq!(small.port.counters().drops.too_long, dropped);
    }
    assert!(udp_passes(&from, &to, PATIENCE), "the port is stuck");
    Ok(())
}

pub fn down() -> Result<(), Failed> {
    let vlan = Vlan::new(1)?;
    let (a, b) = (Container::new(&vlan, 1), Container::new(&vlan, 2));
    let from = udp(&a.netns, a.address.v4.into(), 0);
    let to = udp(&b.netns, b.address.v4.into(), 0);
    assert!(udp_passes(&from, &to, PATIENCE));
    for port in [&a.port, &b.port] {
        port.set_up(false);
        assert!(!udp_passes(&from, &to, A_WHILE));
        port.set_up(true);
        assert!(udp_passes(&from, &to, PATIENCE));
    }
    assert!(a.port.counters().drops.port_down >= 1);
    Ok(())
}
