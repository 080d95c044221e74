use machinist_events::{Outcome, What};

use super::{PLAIN, at, run, show};
use crate::{Options, Progress};

#[test]
fn a_run_in_lines() {
    insta::assert_snapshot!(show(PLAIN, &run()), @r#"
    Building image debian:bookworm
    Building image debian:bookworm: packages
       Built [    8.900s] image debian:bookworm
     Running serves the index
     Machine web: starting by nspawn
     Running failover
     Machine db: starting by qemu (kvm)
     WARNING db: no hardware virtualization, emulating: KVM: internal error
     Machine web: up after 0.9 s
     Waiting web: waiting for port 80 (nobody listens)
        PASS [    3.200s] serves the index
failover: two
failover: lines
        SLOW [>  60.000s] failover (db: booting)
        FAIL [   71.800s] failover
── failover after 1 min 11 s
   command `pg_isready` failed (exit status 2)
   tests/failover.py:12
       db.succeed("pg_isready")
   db$ pg_isready
       exit status 2 after 0.4 s
   stdout
       /var/run/postgresql:5432 - no response
   stderr
       warning: slow
   what else went wrong
       db: unit postgresql@15-main.service has failed
   last lines of the machines, in seconds
      11.00 db [    1.0] postgres: could not bind
   logs   /run/machinist/s1
   again  machinist test 'failover'
   keep   machinist test --on-failure pause 'failover'
        SKIP nested (needs /dev/kvm)
────────────
     Summary [   82.000s] 2 tests run: 1 passed, 1 failed, 1 skipped, 1 not run
        FAIL failover
         log events.jsonl
"#);
}

#[test]
fn without_progress() {
    let progress = Progress::None;
    let text = show(Options { progress, ..PLAIN }, &run());
    insta::assert_snapshot!(text.lines().take(5).collect::<Vec<_>>().join("\n"), @r#"
     WARNING db: no hardware virtualization, emulating: KVM: internal error
        PASS [    3.200s] serves the index
        SLOW [>  60.000s] failover (db: booting)
        FAIL [   71.800s] failover
── failover after 1 min 11 s
"#);
}

#[test]
fn what_is_heard_of_a_test_that_has_ended_does_not_make_it_slow() {
    let ended = What::TestFinished {
        outcome: Outcome::Passed,
        seconds: 1.0,
        failure: None,
    };
    let events = [
        at(70.0, What::TestStarted).of_test("quick"),
        at(71.0, ended).of_test("quick"),
        at(71.5, What::MachineStopped)
            .of_test("quick")
            .of_machine("web"),
    ];
    let text = show(PLAIN, &events);
    assert!(text.contains("PASS") && !text.contains("SLOW"), "{text}");
}

#[test]
fn verbose() {
    let text = show(
        Options {
            verbose: true,
            ..PLAIN
        },
        &run()[10..21],
    );
    insta::assert_snapshot!(text, @r#"
web: ready after 1.0 s
web: waiting for port 80
db: [    1.0] postgres: could not bind
     Waiting web: waiting for port 80 (nobody listens)
web: came true after 1.8 s
web: $ curl localhost
web: | Welcome
web: exit status 0 after 0.1 s
        PASS [    3.200s] serves the index
failover: two
failover: lines
failover: a part
────────────
     Summary [   82.000s] 1 test run: 1 passed, 1 not run
         log events.jsonl
"#);
}

#[test]
fn colours_only_where_wanted() {
    assert!(!show(PLAIN, &run()).contains('\x1b'));
    let text = show(
        Options {
            colour: true,
            ..PLAIN
        },
        &run(),
    );
    assert!(
        text.contains("\x1b[1m\x1b[32m        PASS\x1b[0m"),
        "{text:?}"
    );
}
