//! JUnit, with subtests as cases.

use super::*;

fn write(events: &[Event]) -> String {
    let mut report = DriverReport::new(Level::Info).with_junit();
    for event in events {
        report.event(event).unwrap();
    }
    let mut out = Vec::new();
    report.junit(&mut out).unwrap();
    let mut reader = quick_xml::Reader::from_reader(out.as_slice());
    while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
    String::from_utf8(out).unwrap()
}

#[test]
fn without_subtests_it_is_one_case() {
    let mut events = beginning();
    events.push(over(Outcome::Passed, 2.0, None));
    insta::assert_snapshot!(write(&events), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="NixOS integration test" tests="1" skipped="0" failures="0" errors="0" time="2.000">
        <testsuite name="NixOS integration test" tests="1" skipped="0" errors="0" failures="0" time="2.000">
            <testcase name="main" time="2.000">
                <system-out>run the VM test script
    starting vm (tcg)
    machine # OK Started a.service
    connected to guest root shell
    (connecting took 0.90 seconds)
    must succeed: uname -r
    machine # a warning
    (finished: must succeed: uname -r, in 0.03 seconds)
    printed
    of interest
    of the machine
    (finished: run the VM test script, in 2.00 seconds)
    test script finished in 2.00s
    </system-out>
            </testcase>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn subtests_are_cases() {
    insta::assert_snapshot!(write(&failing()), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="NixOS integration test" tests="2" skipped="0" failures="1" errors="0" time="3.300">
        <testsuite name="NixOS integration test" tests="2" skipped="0" errors="0" failures="1" time="3.300">
            <testcase name="works" time="0.500">
                <system-out>subtest: works
    waiting for unit a.service
    (finished: waiting for unit a.service, in 0.25 seconds)
    (finished: subtest: works, in 0.50 seconds)
    </system-out>
            </testcase>
            <testcase name="fails" time="0.200">
                <failure message="command `false` failed (exit code 1)"/>
                <system-out>subtest: fails
    must succeed: false
    output: so sorry
    </system-out>
                <system-err>Test &quot;fails&quot; failed with error: &quot;command `false` failed (exit code 1)&quot;
    </system-err>
            </testcase>
            <system-out>run the VM test script
    starting vm (tcg)
    machine # OK Started a.service
    connected to guest root shell
    (connecting took 0.90 seconds)
    must succeed: uname -r
    machine # a warning
    (finished: must succeed: uname -r, in 0.03 seconds)
    printed
    of interest
    of the machine
    subtest: works
    waiting for unit a.service
    (finished: waiting for unit a.service, in 0.25 seconds)
    (finished: subtest: works, in 0.50 seconds)
    subtest: fails
    must succeed: false
    output: so sorry
    </system-out>
            <system-err>Test &quot;fails&quot; failed with error: &quot;command `false` failed (exit code 1)&quot;
    Traceback (most recent call last):
      File &quot;/t/script.py&quot;, line 3, in &lt;module&gt;
        machine.succeed(&quot;false&quot;)

    RequestedAssertionFailed: command `false` failed (exit code 1)
    machine: unit a.service has failed
    </system-err>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn a_failure_outside_of_all_subtests_is_a_case_too() {
    let events = [
        at(0.0, subtest("works")),
        at(1.0, subtest_over("works", 1.0, None)),
        over(Outcome::Failed, 3.0, Some(failed())),
    ];
    insta::assert_snapshot!(write(&events), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="NixOS integration test" tests="2" skipped="0" failures="1" errors="0" time="3.000">
        <testsuite name="NixOS integration test" tests="2" skipped="0" errors="0" failures="1" time="3.000">
            <testcase name="works" time="1.000">
                <system-out>subtest: works
    (finished: subtest: works, in 1.00 seconds)
    </system-out>
            </testcase>
            <testcase name="main" time="2.000">
                <failure message="command `false` failed (exit code 1)"/>
                <system-err>Traceback (most recent call last):
      File &quot;/t/script.py&quot;, line 3, in &lt;module&gt;
        machine.succeed(&quot;false&quot;)

    RequestedAssertionFailed: command `false` failed (exit code 1)
    machine: unit a.service has failed
    </system-err>
            </testcase>
            <system-out>subtest: works
    (finished: subtest: works, in 1.00 seconds)
    </system-out>
            <system-err>Traceback (most recent call last):
      File &quot;/t/script.py&quot;, line 3, in &lt;module&gt;
        machine.succeed(&quot;false&quot;)

    RequestedAssertionFailed: command `false` failed (exit code 1)
    machine: unit a.service has failed
    </system-err>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn nested_subtests_count_their_own_time() {
    let events = [
        at(0.0, subtest("outer")),
        at(1.0, subtest("inner")),
        at(3.0, subtest_over("inner", 2.0, None)),
        at(4.0, subtest_over("outer", 4.0, None)),
        over(Outcome::Passed, 4.0, None),
    ];
    let text = write(&events);
    assert_eq!(text.matches("time=\"2.000\"").count(), 2, "{text}");
}

#[test]
fn machinery_is_an_error_and_a_subtest_that_never_ended_has_failed() {
    let failure = Failure {
        kind: FailureKind::Machinery,
        ..failed()
    };
    let events = [
        at(0.0, subtest("boots")),
        over(Outcome::Error, 3.0, Some(failure)),
    ];
    let text = write(&events);
    assert!(text.contains("errors=\"1\""), "{text}");
    assert!(text.contains("<error message=\"did not end\""), "{text}");

    let text = write(&[
        at(0.0, subtest("hangs")),
        over(Outcome::TimedOut, 3.0, None),
    ]);
    assert!(text.contains("<failure message=\"did not end\""), "{text}");
}

#[test]
fn what_a_guest_prints_is_harmless() {
    let events = [
        of("m", 0.0, console("]]> <a b='\u{ffff}\u{1}\x1b[2J&amp;")),
        at(0.0, subtest("<&\"\u{2}]]>")),
        at(0.0, subtest_over("<&\"\u{2}]]>", 0.0, Some("\u{fffe}'\"<"))),
        over(Outcome::Failed, 1.0, Some(failed())),
    ];
    let text = write(&events);
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(text.contains("]]&gt; &lt;a b="), "{text}");
}
