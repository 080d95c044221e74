//! The switch against a model that is plainly right: it keeps everything it ever heard in a list.

use proptest::prelude::*;

use super::*;

fn mac(number: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0x12, 1, number])
}

fn frame(destination: Mac, source: Mac, tag: Option<u16>) -> Vec<u8> {
    let mut frame = [destination.0, source.0].concat();
    if let Some(tag) = tag {
        frame.extend([0x81, 0x00]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend([0x08, 0x00]);
    frame.extend(*b"payload");
    frame
}

#[derive(Debug, Clone)]
enum Step {
    AddPort,
    RemovePort(usize),
    SetUp(usize, bool),
    Wait(u64),
    Send {
        from: usize,
        destination: Mac,
        source: Mac,
        tag: Option<u16>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let address = prop_oneof![
        8 => (1..5_u8).prop_map(mac),
        1 => Just(Mac::BROADCAST),
        1 => Just(Mac([0x01, 0x00, 0x5e, 0, 0, 1])),
        1 => Just(PAUSE),
    ];
    prop_oneof![
        1 => Just(Step::AddPort),
        1 => (0..6_usize).prop_map(Step::RemovePort),
        2 => (0..6_usize, any::<bool>()).prop_map(|(port, up)| Step::SetUp(port, up)),
        2 => (0..400_u64).prop_map(Step::Wait),
        20 => (0..6_usize, address.clone(), address, prop::option::of(0..3_u16)).prop_map(
            |(from, destination, source, tag)| Step::Send { from, destination, source, tag }
        ),
    ]
}

#[derive(Default)]
struct Model {
    ports: Vec<(usize, bool)>,
    /// Tag, address, port, when.
    heard: Vec<(u16, Mac, usize, u64)>,
}

impl Model {
    fn up(&self, port: usize) -> bool {
        self.ports.contains(&(port, true))
    }

    fn send(
        &mut self,
        from: usize,
        destination: Mac,
        source: Mac,
        tag: u16,
        now: u64,
    ) -> Result<Vec<usize>, Refusal> {
        if !self.up(from) {
            return Err(Refusal::PortDown);
        }
        if source.is_group() {
            return Err(Refusal::Malformed);
        }
        if destination == PAUSE {
            return Err(Refusal::Pause);
        }
        self.heard.push((tag, source, from, now));
        let last = self.heard.iter().rev();
        let mut last = last.filter(|(t, mac, ..)| (*t, *mac) == (tag, destination));
        match last.next() {
            Some((_, _, port, when)) if now - when <= 300 => {
                Ok([*port].into_iter().filter(|port| *port != from).collect())
            }
            _ => {
                let up = self.ports.iter().filter(|(port, up)| *up && *port != from);
                let mut all: Vec<usize> = up.map(|(port, _)| *port).collect();
                all.sort_unstable();
                Ok(all)
            }
        }
    }

    fn forget(&mut self, port: usize) {
        // What was heard earlier at another port is no truer for it: the address has moved.
        let gone: Vec<(u16, Mac)> = self
            .heard
            .iter()
            .enumerate()
            .filter(|(at, (tag, mac, ..))| {
                let later = &self.heard[at + 1..];
                !later.iter().any(|(t, m, ..)| (t, m) == (tag, mac))
            })
            .filter(|(_, (.., heard_at, _))| *heard_at == port)
            .map(|(_, (tag, mac, ..))| (*tag, *mac))
            .collect();
        self.heard
            .retain(|(tag, mac, ..)| !gone.contains(&(*tag, *mac)));
    }
}

proptest! {
    #[test]
    fn as_the_model(steps in prop::collection::vec(step(), 0..120)) {
        let (mut switch, mut model) = (Switch::default(), Model::default());
        let mut now = 0;
        let mut to = Vec::new();
        for step in steps {
            match step {
                Step::AddPort if model.ports.len() < 6 => {
                    let port = switch.add_port().index();
                    prop_assert!(model.ports.iter().all(|(known, _)| *known != port));
                    model.ports.push((port, true));
                }
                Step::AddPort => {}
                Step::RemovePort(port) => {
                    switch.remove_port(PortId(port));
                    model.ports.retain(|(known, _)| *known != port);
                    model.forget(port);
                }
                Step::SetUp(port, up) => {
                    switch.set_up(PortId(port), up);
                    for known in model.ports.iter_mut().filter(|(known, _)| *known == port) {
                        known.1 = up;
                    }
                    if !up {
                        model.forget(port);
                    }
                }
                Step::Wait(seconds) => now += seconds,
                Step::Send { from, destination, source, tag } => {
                    let bytes = frame(destination, source, tag);
                    let time = Duration::from_secs(now);
                    let result = switch.forward(PortId(from), &bytes, time, &mut to);
                    let got = result.map(|()| to.iter().map(|port| port.index()).collect());
                    let want = model.send(from, destination, source, tag.unwrap_or(0), now);
                    prop_assert_eq!(got, want);
                }
            }
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut switch = Switch::default();
        let (from, other) = (switch.add_port(), switch.add_port());
        let mut to = vec![from];
        let result = switch.forward(from, &bytes, Duration::ZERO, &mut to);
        prop_assert_eq!(result.is_err(), to.is_empty());
        prop_assert!(to.is_empty() || to == [other]);
    }
}

#[test]
fn made_up_addresses_do_not_fill_the_memory() {
    let mut switch = Switch::default();
    let (loud, quiet, third) = (switch.add_port(), switch.add_port(), switch.add_port());
    let mut to = Vec::new();
    let at = |seconds| Duration::from_secs(seconds);
    let mut send = |switch: &mut Switch, from, destination, source, now| {
        let bytes = frame(destination, source, None);
        switch.forward(from, &bytes, now, &mut to).unwrap();
        to.clone()
    };
    send(&mut switch, quiet, Mac::BROADCAST, mac(1), at(0));
    for number in 0..10_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        send(&mut switch, loud, mac(1), Mac([2, 0, 0, b, c, d]), at(1));
    }
    assert_eq!(switch.addresses(), MOST_ADDRESSES);
    // Those who were there keep being known, those who come are served by flooding.
    assert_eq!(send(&mut switch, loud, mac(1), mac(9), at(1)), [quiet]);
    send(&mut switch, third, Mac::BROADCAST, mac(3), at(2));
    assert_eq!(
        send(&mut switch, quiet, mac(3), mac(1), at(2)),
        [loud, third]
    );
    // When the made-up ones are too old, there is room again.
    send(&mut switch, third, Mac::BROADCAST, mac(3), at(400));
    assert_eq!(send(&mut switch, quiet, mac(3), mac(1), at(400)), [third]);
}
