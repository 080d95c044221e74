use machinist_events::{Event, Outcome, SkipReason, What};

use super::{at, run};
use crate::Junit;

fn xml(events: &[Event]) -> String {
    let mut junit = Junit::new("lab.toml");
    for event in events {
        junit.event(event);
    }
    let mut out = Vec::new();
    junit.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_run() {
    insta::assert_snapshot!(xml(&run()), @r#"
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="machinist" tests="3" skipped="1" failures="1" errors="0" timestamp="2026-01-01T00:00:00.000+00:00" time="82.000">
    <testsuite name="lab.toml" tests="3" skipped="1" errors="0" failures="1" timestamp="2026-01-01T00:00:00.000+00:00" time="82.000">
        <testcase name="serves the index" classname="lab.toml" timestamp="2026-01-01T00:00:09.100+00:00" time="3.200">
            <system-out>   12.100 web: $ curl localhost
   12.200 web: Welcome
</system-out>
        </testcase>
        <testcase name="failover" classname="lab.toml" timestamp="2026-01-01T00:00:09.200+00:00" time="71.800">
            <properties>
                <property name="subtest.primary" value="failed after 1.000 s: no"/>
            </properties>
            <failure message="command `pg_isready` failed (exit status 2)" type="failed">command `pg_isready` failed (exit status 2)
tests/failover.py:12 in &lt;module&gt;
        db.succeed(&quot;pg_isready&quot;)
db$ pg_isready
exit status 2
stdout:
/var/run/postgresql:5432 - no response
stderr:
warning: slow
also: db: unit postgresql@15-main.service has failed</failure>
            <system-out>   11.000 db: [    1.0] postgres: could not bind
   12.400 script: two
   12.400 script: lines
</system-out>
        </testcase>
        <testcase name="nested" classname="lab.toml" timestamp="2026-01-01T00:01:21.100+00:00" time="0.000">
            <skipped message="needs /dev/kvm"/>
        </testcase>
    </testsuite>
</testsuites>
"#);
}

#[test]
fn errors_and_what_xml_cannot_say() {
    let end = |outcome| What::TestFinished {
        outcome,
        seconds: 1.0,
        failure: None,
    };
    let text = xml(&[
        at(0.0, What::TestStarted).of_test("a\u{1}<b>&\u{ffff}"),
        at(
            0.5,
            What::ScriptOutput {
                stream: machinist_events::Stream::Stdout,
                line: "]]>\0\x1b[1m".into(),
            },
        )
        .of_test("a\u{1}<b>&\u{ffff}"),
        at(1.0, end(Outcome::Error)).of_test("a\u{1}<b>&\u{ffff}"),
        at(1.0, end(Outcome::TimedOut)).of_test("late"),
        at(1.0, end(Outcome::Interrupted)).of_test("stopped"),
        at(1.0, What::TestSkipped(SkipReason { text: "no".into() })).of_test("skipped"),
    ]);
    insta::assert_snapshot!(text, @r#"
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="machinist" tests="4" skipped="1" failures="1" errors="2" timestamp="2026-01-01T00:00:00.000+00:00" time="1.000">
    <testsuite name="lab.toml" tests="4" skipped="1" errors="2" failures="1" timestamp="2026-01-01T00:00:00.000+00:00" time="1.000">
        <testcase name="a&lt;b&gt;&amp;" classname="lab.toml" timestamp="2026-01-01T00:00:00.000+00:00" time="1.000">
            <error type="machinery failed"/>
            <system-out>    0.500 script: ]]&gt;
</system-out>
        </testcase>
        <testcase name="late" classname="lab.toml" timestamp="2026-01-01T00:00:01.000+00:00" time="1.000">
            <failure type="timed out"/>
        </testcase>
        <testcase name="stopped" classname="lab.toml" timestamp="2026-01-01T00:00:01.000+00:00" time="1.000">
            <error type="interrupted"/>
        </testcase>
        <testcase name="skipped" classname="lab.toml" timestamp="2026-01-01T00:00:01.000+00:00" time="0.000">
            <skipped message="no"/>
        </testcase>
    </testsuite>
</testsuites>
"#);
}
