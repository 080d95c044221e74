use machinist_events::{Failure, FailureKind, Frame, Outcome, What};
use proptest::prelude::*;

use super::{PLAIN, at, failure, show};
use crate::{MAX_LINES, Options};

/// The report of a failure after consoles of so many machines.
fn report(failure: &Failure, machines: usize, options: Options) -> String {
    let mut events = vec![at(0.0, What::TestStarted).of_test("t")];
    for n in 0..300 {
        let line = format!("line {n}");
        let machine = format!("m{}", n % machines.max(1));
        events.push(
            at(
                f64::from(u32::try_from(n).unwrap()) / 10.0,
                What::Console { line },
            )
            .of_test("t")
            .of_machine(machine),
        );
    }
    let failure = Some(failure.clone());
    events.push(
        at(
            30.0,
            What::TestFinished {
                outcome: Outcome::Error,
                seconds: 30.0,
                failure,
            },
        )
        .of_test("t"),
    );
    let text = show(options, &events);
    let from = text.find("──").unwrap();
    let to = text.find("────────────").unwrap();
    text[from..to].to_owned()
}

fn huge() -> Failure {
    let mut failure = failure();
    failure.kind = FailureKind::Machinery;
    failure.message = "many words\n".repeat(50);
    failure.frames = vec![
        Frame {
            file: "a.py".into(),
            line: 1,
            function: "f".into(),
            source: "x".repeat(500)
        };
        20
    ];
    let command = failure.command.as_mut().unwrap();
    command.command = "echo a\n".repeat(30);
    command.stdout = "out\n".repeat(1000);
    command.stderr = "err\n".repeat(1000);
    failure.also = vec!["something else".into(); 30];
    failure
}

#[test]
fn the_worst_case_has_forty_lines() {
    let text = report(&huge(), 3, PLAIN);
    insta::assert_snapshot!(text, @r#"
── t after 30.0 s
   the machinery failed, not what the test asks for:
   many words
   many words
   many words
   many words
   many words
   … 45 more lines
   a.py:1 in f
       xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
   a.py:1 in f
       xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
   a.py:1 in f
       xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
   db$ echo a
   … 29 more lines
       exit status 2 after 0.4 s
   stdout
       out
       out
       out
       out
   stderr
       err
       err
       err
       err
   what else went wrong
       something else
       something else
       something else
       something else
       something else
       and 25 more
   last lines of the machines, in seconds
      29.80 m1 line 298
      29.90 m2 line 299
   logs   /run/machinist/s1
   again  machinist test 't'
   keep   machinist test --on-failure pause 't'
"#);
    assert!(text.lines().count() <= MAX_LINES);
    assert!(text.lines().all(|line| line.chars().count() <= 100));
}

proptest! {
    #[test]
    fn never_longer_and_never_obeyed(
        message in "(.|\\x1b|\\n)*", stdout in "(.|\\x1b|\\n|\\r){0,300}", name in "(.|\\x1b|\\n)*",
        frames in 0_usize..9, also in 0_usize..9, machines in 1_usize..40,
    ) {
        let mut failure = failure();
        failure.message = message;
        failure.also = vec![stdout.clone(); also];
        failure.frames = vec![Frame { file: name.clone(), line: 1, function: name.clone(), source: name.clone() }; frames];
        let command = failure.command.as_mut().unwrap();
        command.stdout = stdout;
        command.machine = name.clone();
        command.command = name;
        let text = report(&failure, machines, PLAIN);
        prop_assert!(text.lines().count() <= MAX_LINES, "{}", text);
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", text);
    }
}

#[test]
fn a_pause_shows_the_failure_once() {
    let (outcome, failure) = (Outcome::Failed, failure());
    let attach = "machinist attach s1".to_owned();
    let paused = What::TestPaused {
        failure: Some(failure.clone()),
        attach,
        python: None,
        go_on: "machinist attach s1 --continue".to_owned(),
    };
    let failure = Some(failure);
    let text = show(
        PLAIN,
        &[
            at(1.0, What::TestStarted).of_test("t"),
            at(3.0, paused).of_test("t"),
            at(
                9.0,
                What::TestFinished {
                    outcome,
                    seconds: 8.0,
                    failure,
                },
            )
            .of_test("t"),
        ],
    );
    insta::assert_snapshot!(text, @r#"
     Running t
      PAUSED t
── t after 2.0 s
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
   attach    machinist attach s1
   continue  machinist attach s1 --continue
   logs      /run/machinist/s1
   again     machinist test 't'
   keep      machinist test --on-failure pause 't'
        FAIL [    8.000s] t
────────────
     Summary [   82.000s] 1 test run: 0 passed, 1 failed, 1 not run
        FAIL t
         log events.jsonl
"#);
}
