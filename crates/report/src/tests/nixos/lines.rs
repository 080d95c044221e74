//! The terminal.

use super::*;

#[test]
fn a_passed_test() {
    let mut events = beginning();
    events.push(over(Outcome::Passed, 1.234, None));
    let (log, out) = show(&events, Level::Info, false);
    insta::assert_snapshot!(log, @r#"
    run the VM test script
    machine: starting vm (tcg)
    machine # OK Started a.service
    machine: connected to guest root shell
    machine: (connecting took 0.90 seconds)
    machine: must succeed: uname -r
    machine # a warning
    machine: (finished: must succeed: uname -r, in 0.03 seconds)
    of interest
    machine: of the machine
    (finished: run the VM test script, in 1.23 seconds)
    test script finished in 1.23s
    "#);
    assert_eq!(out, "printed\n");
}

#[test]
fn a_failed_one() {
    let mut events = parts();
    events.push(over(Outcome::Failed, 3.3, Some(failed())));
    insta::assert_snapshot!(show(&events, Level::Info, false).0, @r#"
    subtest: works
    machine: waiting for unit a.service
    machine: (finished: waiting for unit a.service, in 0.25 seconds)
    (finished: subtest: works, in 0.50 seconds)
    subtest: fails
    machine: must succeed: false
    machine: output: so sorry
    !!! Test "fails" failed with error: "command `false` failed (exit code 1)"
    !!! Traceback (most recent call last):
    !!!   File "/t/script.py", line 3, in <module>
    !!!     machine.succeed("false")
    !!!
    !!! RequestedAssertionFailed: command `false` failed (exit code 1)
    !!! machine: unit a.service has failed
    "#);
}

#[test]
fn trouble_of_the_driver_itself_is_told_with_all_frames() {
    let failure = Failure {
        kind: FailureKind::Machinery,
        traceback: Some("Traceback (most recent call last):\n  all of it\nMachineError: no".into()),
        ..failed()
    };
    let events = [over(Outcome::Error, 1.0, Some(failure))];
    insta::assert_snapshot!(show(&events, Level::Info, false).0, @r#"
    !!! Traceback (most recent call last):
    !!!   all of it
    !!! MachineError: no
    !!! machine: unit a.service has failed
    "#);
}

#[test]
fn levels_leave_out_what_matters_less() {
    let warning = What::Warning {
        text: "careful".into(),
    };
    let events = [
        // Of the script's own lines the script leaves out what matters too little.
        at(0.0, log("info", Level::Info)),
        at(0.0, warning),
        at(0.0, What::TestResumed),
        of("m", 0.0, log("of a machine", Level::Info)),
        of("m", 0.0, console("serial")),
    ];
    let lines = |level| show(&events, level, false).0;
    let end = "m: of a machine\nm # serial\n";
    let info = format!("info\nwarning: careful\nthe test goes on\n{end}");
    assert_eq!(lines(Level::Debug), info);
    assert_eq!(lines(Level::Info), info);
    let warning = format!("info\nwarning: careful\n{end}");
    assert_eq!(lines(Level::Warning), warning);
    assert_eq!(lines(Level::Error), format!("info\n{end}"));
}

#[test]
fn consoles_can_be_left_out() {
    let events = [
        of("m", 0.0, console("one")),
        at(0.0, What::ConsolesShown { on: false }),
        of("m", 0.0, console("two")),
        of("m", 0.0, printed(1, Stream::Stderr, "three")),
        at(0.0, What::ConsolesShown { on: true }),
        of("m", 0.0, console("four")),
    ];
    assert_eq!(show(&events, Level::Info, false).0, "m # one\nm # four\n");
}

#[test]
fn things_side_by_side_and_in_parts_have_their_own_ends() {
    let section = |name: &str| What::SectionStarted { name: name.into() };
    let over = |name: &str, ok| What::SectionFinished {
        name: name.into(),
        seconds: 1.0,
        ok,
    };
    let events = [
        at(0.0, section("all")),
        of("a", 0.0, section("type")),
        of("b", 0.0, section("type")),
        of("a", 0.0, started(1, "x", Some("must fail"))),
        of("b", 0.0, started(2, "y", Some("must fail"))),
        of("a", 0.0, ended(1, 1, 0.5)),
        of("b", 0.0, ended(2, 0, 0.5)),
        of("a", 0.0, over("type", true)),
        of("b", 0.0, over("type", false)),
        at(0.0, over("all", true)),
    ];
    insta::assert_snapshot!(show(&events, Level::Info, false).0, @r#"
    all
    a: type
    b: type
    a: must fail: x
    b: must fail: y
    a: (finished: must fail: x, in 0.50 seconds)
    a: (finished: type, in 1.00 seconds)
    (finished: all, in 1.00 seconds)
    "#);
}

#[test]
fn a_pause_says_how_to_attach_and_the_failure_is_told_once() {
    let paused = What::TestPaused {
        failure: Some(failed()),
        attach: "machinist attach s1".into(),
        python: Some("machinist attach s1 --python".into()),
        go_on: "machinist attach s1 --continue".into(),
    };
    let events = [
        at(0.0, paused),
        at(1.0, What::TestResumed),
        over(Outcome::Failed, 2.0, Some(failed())),
    ];
    let log = Shared::default();
    let report = DriverReport::new(Level::Info).in_build(true);
    let mut report = report.with_terminal(log.clone(), Shared::default(), false);
    for event in &events {
        report.event(event).unwrap();
    }
    insta::assert_snapshot!(log.text(), @r#"
    !!! Traceback (most recent call last):
    !!!   File "/t/script.py", line 3, in <module>
    !!!     machine.succeed("false")
    !!!
    !!! RequestedAssertionFailed: command `false` failed (exit code 1)
    !!! machine: unit a.service has failed
    !!! Breakpoint reached. A shell in a machine: sudo machinist attach s1
    !!! The Python prompt of the script: sudo machinist attach s1 --python
    !!! To go on: sudo machinist attach s1 --continue
    the test goes on
    "#);
}

#[test]
fn a_person_needs_not_be_told_how_long_it_took() {
    let log = Shared::default();
    let report = DriverReport::new(Level::Info).interactive(true);
    let mut report = report.with_terminal(log.clone(), Shared::default(), false);
    report.event(&over(Outcome::Passed, 1.0, None)).unwrap();
    assert_eq!(log.text(), "");
}

#[test]
fn a_terminal_gets_colours_of_ours_and_none_of_a_guest() {
    let (log, _) = show(&failing(), Level::Info, true);
    assert!(
        log.contains("\x1b[1m\x1b[32mmust succeed: uname -r\x1b[0m"),
        "{log:?}"
    );
    assert!(
        log.contains("\x1b[2mmachine # OK Started a.service\x1b[0m"),
        "{log:?}"
    );
    assert!(log.contains("\x1b[31m!!!\x1b[0m Traceback"), "{log:?}");
    assert!(!log.contains("\x1b]0;title"), "{log:?}");
}
