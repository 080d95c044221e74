//! What is said about a machine that is saved and restored, as bytes.

use machinist_wire::Blob;
use machinist_wire::message::{HostLine, Identity, Interface, Reply, Request, decode, encode};
use machinist_wire::renewal::{
    Change, DueTimers, HostKey, HostKeyFile, Lack, Renewal, Renewed, Settled,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn blob() -> impl Strategy<Value = Blob> {
    vec(any::<u8>(), 0..40).prop_map(Blob)
}

prop_compose! {
    fn identity()(
        hostname in ".{0,20}",
        names in vec(".{0,9}", 0..3),
        address in any::<[u8; 16]>(),
        mac in any::<[u8; 6]>(),
        prefix in any::<u8>(),
        clock in any::<u64>(),
    ) -> Identity {
        let interface = Interface {
            mac,
            name: "eth1".into(),
            addresses: vec![(address.into(), prefix)],
        };
        let line = HostLine { address: address.into(), names };
        Identity { hostname, hosts: vec![line], interfaces: vec![interface], clock, ..Identity::default() }
    }
}

prop_compose! {
    fn renewal()(
        clock in any::<u64>(),
        entropy in blob(),
        from in identity(),
        to in identity(),
        (path, private, public) in (blob(), blob(), blob()),
        reload in vec(any::<u32>(), 0..3),
        thaw in vec(blob(), 0..3),
        (stop, ask, start) in (blob(), vec(blob(), 0..3), blob()),
        mark in ".{0,20}",
    ) -> Renewal {
        Renewal {
            clock,
            entropy,
            change: Some(Change { from, to }),
            host_keys: vec![HostKey { path, private, public }],
            reload,
            thaw,
            due: Some(DueTimers { stop, ask, start }),
            mark,
        }
    }
}

prop_compose! {
    fn settled()(
        (path, kind, bits) in (blob(), ".{0,9}", any::<u32>()),
        sshd in vec(any::<u32>(), 0..3),
        vmgenid in any::<bool>(),
        frozen in vec(blob(), 0..3),
        (what, why) in (".{0,9}", ".{0,9}"),
    ) -> Settled {
        Settled {
            host_keys: vec![HostKeyFile { path, kind, bits }],
            sshd,
            vmgenid,
            frozen,
            lacks: vec![Lack { what, why }],
        }
    }
}

proptest! {
    #[test]
    fn what_is_said_is_heard(renewal in renewal(), settled in settled(), clock in any::<u64>()) {
        let request = Request::Renew(Box::new(renewal));
        prop_assert_eq!(decode::<Request>(&encode(&request), "request"), Ok(request));
        let renewed = Renewed { clock, lacks: settled.lacks.clone() };
        for reply in [Reply::Settled(settled), Reply::Renewed(renewed)] {
            prop_assert_eq!(decode::<Reply>(&encode(&reply), "reply"), Ok(reply));
        }
    }

    /// Neither a cut message nor a changed one is more than an error.
    #[test]
    fn what_is_garbled_is_refused_or_means_something(renewal in renewal(), at in any::<usize>(), to in any::<u8>()) {
        let request = Request::Renew(Box::new(renewal));
        let mut bytes = encode(&request);
        let at = at % bytes.len();
        prop_assert!(decode::<Request>(&bytes[..at], "request").is_err());
        bytes[at] = to;
        if let Ok(other) = decode::<Request>(&bytes, "request") {
            prop_assert_eq!(decode::<Request>(&encode(&other), "request"), Ok(other));
        }
    }
}
