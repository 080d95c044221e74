use proptest::prelude::*;

use super::*;

fn does(life: &mut Lifecycle, event: Event) -> Vec<Effect> {
    match life.handle(event) {
        Decision::Do(effects) => effects,
        Decision::Refuse(refused) => panic!("refused: {refused}"),
    }
}

fn up() -> Lifecycle {
    let mut life = Lifecycle::default();
    assert_eq!(
        does(&mut life, Event::Start),
        [Effect::Launch { plain: false }]
    );
    assert_eq!(does(&mut life, Event::AgentUp), []);
    assert_eq!(life.state(), &State::Up);
    life
}

#[test]
fn a_plain_life() {
    let mut life = up();
    assert_eq!(does(&mut life, Event::SystemReady), []);
    assert_eq!(life.state(), &State::Ready);
    assert_eq!(does(&mut life, Event::Shutdown), [Effect::AskToStop]);
    assert_eq!(does(&mut life, Event::AgentLost), []);
    assert_eq!(
        does(&mut life, Event::Ended(Ending::ByItself)),
        [Effect::DropAgent]
    );
    assert_eq!(life.state(), &State::Off);
}

#[test]
fn ready_before_the_agent_is_not_forgotten() {
    let mut life = Lifecycle::default();
    does(&mut life, Event::Start);
    does(&mut life, Event::SystemReady);
    does(&mut life, Event::AgentUp);
    assert_eq!(life.state(), &State::Ready);
}

#[test]
fn there_is_one_fallback_and_no_second() {
    let mut life = Lifecycle::default();
    does(&mut life, Event::Start);
    assert_eq!(
        does(&mut life, Event::Unfit("kvm: internal error".into())),
        [Effect::Launch { plain: true }]
    );
    assert_eq!(life.state(), &State::Starting);
    does(&mut life, Event::Unfit("again".into()));
    assert_eq!(
        life.state(),
        &State::Failed {
            reason: "again".into()
        }
    );
}

#[test]
fn a_machine_that_goes_off_by_itself_is_off() {
    let mut life = up();
    does(&mut life, Event::AgentLost);
    assert_eq!(life.state(), &State::Silent);
    does(&mut life, Event::Ended(Ending::ByItself));
    assert_eq!(life.state(), &State::Off);
}

#[test]
fn a_silent_machine_that_stays_has_failed() {
    let mut life = up();
    does(&mut life, Event::AgentLost);
    assert_eq!(
        does(&mut life, Event::Expired),
        [Effect::DropAgent, Effect::Kill]
    );
    assert!(matches!(life.state(), State::Failed { .. }));
}

#[test]
fn a_restart_from_inside() {
    let mut life = up();
    does(&mut life, Event::AgentLost);
    assert_eq!(does(&mut life, Event::GuestReset), [Effect::DropAgent]);
    assert_eq!(life.state(), &State::Rebooting);
    does(&mut life, Event::AgentUp);
    assert_eq!(life.state(), &State::Up);
}

#[test]
fn a_panic_is_told_even_while_stopping() {
    let mut life = up();
    does(&mut life, Event::Shutdown);
    does(&mut life, Event::Panicked("kernel panic".into()));
    assert_eq!(
        life.state(),
        &State::Failed {
            reason: "kernel panic".into()
        }
    );
}

#[test]
fn the_plug_ends_an_orderly_stop() {
    let mut life = up();
    does(&mut life, Event::Shutdown);
    assert_eq!(does(&mut life, Event::PowerOff), [Effect::Kill]);
    does(&mut life, Event::Ended(Ending::Killed));
    assert_eq!(life.state(), &State::Off);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut life = Lifecycle::default();
    assert_eq!(
        life.handle(Event::Reboot),
        Decision::Refuse(Refused::NotRunning)
    );
    let mut life = up();
    does(&mut life, Event::Shutdown);
    assert_eq!(
        life.handle(Event::Start),
        Decision::Refuse(Refused::Leaving)
    );
}

/// What the world around does: whether a backend runs, and how often it was started since `Start`.
#[derive(Debug, Default)]
struct World {
    runs: bool,
    plain_launches: u32,
    agent: bool,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Start),
        1 => Just(Event::Shutdown),
        1 => Just(Event::PowerOff),
        1 => Just(Event::Reboot),
        1 => any::<bool>().prop_map(|ready| Event::Restore { ready }),
        3 => Just(Event::AgentUp),
        1 => Just(Event::SystemReady),
        1 => Just(Event::AgentLost),
        1 => Just(Event::GuestReset),
        1 => Just(Event::Unfit("unfit".into())),
        1 => Just(Event::Panicked("panic".into())),
        1 => Just(Event::Broken("broken".into())),
        1 => Just(Event::Ended(Ending::ByItself)),
        1 => Just(Event::Ended(Ending::Killed)),
        1 => Just(Event::Ended(Ending::Fault("fault".into()))),
        1 => Just(Event::Expired),
    ]
}

impl World {
    /// Whether the event can happen in this world at all.
    fn allows(&self, event: &Event) -> bool {
        match event {
            Event::Start
            | Event::Shutdown
            | Event::PowerOff
            | Event::Reboot
            | Event::Restore { .. }
            | Event::Expired => true,
            Event::AgentUp => self.runs && !self.agent,
            Event::AgentLost => self.agent,
            Event::SystemReady
            | Event::GuestReset
            | Event::Unfit(_)
            | Event::Panicked(_)
            | Event::Broken(_)
            | Event::Ended(_) => self.runs,
        }
    }

    fn sees(&mut self, event: &Event) {
        match event {
            Event::AgentUp => self.agent = true,
            Event::AgentLost => self.agent = false,
            // A start of its own, by what the one before ran on.
            Event::Restore { .. } => self.plain_launches = 0,
            Event::Ended(_) => {
                self.runs = false;
                self.agent = false;
            }
            _ => {}
        }
    }

    fn obeys(&mut self, effect: &Effect) {
        match effect {
            Effect::Launch { plain } => {
                self.runs = true;
                self.agent = false;
                self.plain_launches = if *plain { self.plain_launches + 1 } else { 0 };
                assert!(self.plain_launches <= 1, "more than one fallback");
            }
            // A dead backend cannot be asked, only killed again.
            Effect::AskToStop | Effect::AskToReboot => assert!(self.runs),
            Effect::DropAgent => self.agent = false,
            Effect::Kill => {}
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: a running machine has a backend, an answering one an
    /// agent, nothing runs unowned for long, and the plug always works.
    #[test]
    fn the_world_and_the_state_agree(events in prop::collection::vec(any_event(), 0..60)) {
        let mut life = Lifecycle::default();
        let mut world = World::default();
        for event in events {
            if !world.allows(&event) {
                continue;
            }
            world.sees(&event);
            let decision = life.handle(event);
            let mut killed = false;
            if let Decision::Do(effects) = &decision {
                for effect in effects {
                    world.obeys(effect);
                    killed |= *effect == Effect::Kill;
                }
            }
            match life.state() {
                State::Off => prop_assert!(!world.runs),
                State::Failed { .. } if world.runs && killed => {
                    // The kill takes effect before anything else is seen of that backend.
                    world.sees(&Event::Ended(Ending::Killed));
                    let decision = life.handle(Event::Ended(Ending::Killed));
                    prop_assert_eq!(decision, Decision::nothing());
                }
                State::Failed { .. } => prop_assert!(!world.runs),
                State::Up | State::Ready => prop_assert!(world.runs && world.agent),
                State::Starting | State::Silent | State::Rebooting | State::Stopping => {
                    prop_assert!(world.runs);
                }
            }
        }
        // The plug: at most two steps from anywhere to a machine that does not run.
        if let Decision::Do(effects) = life.handle(Event::PowerOff)
            && effects.contains(&Effect::Kill)
        {
            let _effects = life.handle(Event::Ended(Ending::Killed));
        }
        prop_assert!(life.state().is_over());
    }
}
