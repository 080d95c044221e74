//! Bytes of a liar, to either end of a channel that is in use.
#![no_main]

use libfuzzer_sys::fuzz_target;
use machinist_wire::{Endpoint, Hello, Info, Role, VERSION};

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (to_host, piece, bytes) = input;
    let (mut host, mut agent) = (Endpoint::new(Role::Host), Endpoint::new(Role::Agent));
    let hello = |info| Hello {
        version: VERSION,
        nonce: 1,
        info,
    };
    host.hello(&hello(None));
    agent.receive(host.output()).expect("a hello");
    agent.hello(&hello(Some(Info::default())));
    host.receive(agent.output()).expect("a hello");
    host.open(b"request").expect("established");
    let endpoint = if to_host { &mut host } else { &mut agent };
    for piece in bytes.chunks(usize::from(piece) + 1) {
        if endpoint.receive(piece).is_err() {
            return;
        }
        while endpoint.next_event().is_some() {}
    }
});
