use super::{PLAIN, Shared, run};
use crate::{Options, Progress, Summary, Terminal};

/// What a terminal of 80 columns shows after these bytes.
fn screen(bytes: &[u8]) -> String {
    let mut parser = vt100::Parser::new(30, 80, 0);
    // The line discipline of a terminal sees to it that a new line begins at the left.
    parser.process(
        String::from_utf8_lossy(bytes)
            .replace('\n', "\r\n")
            .as_bytes(),
    );
    parser.screen().contents()
}

#[test]
fn bars_say_what_each_test_waits_for() {
    let out = Shared::default();
    let progress = Progress::Bar;
    let options = Options {
        progress,
        width: 80,
        ..PLAIN
    };
    let mut terminal = Terminal::new(out.clone(), options);
    let events = run();
    for event in &events[..14] {
        terminal.event(event).unwrap();
    }
    terminal
        .event(&super::at(
            11.4,
            machinist_events::What::Warning {
                text: "a line above".into(),
            },
        ))
        .unwrap();
    let busy = screen(out.text().as_bytes());
    assert!(
        busy.contains("serves the index  web: waiting for port 80 (nobody listens)"),
        "{busy}"
    );
    assert!(busy.contains("failover  db: booting"), "{busy}");
    assert!(busy.contains("     WARNING a line above"), "{busy}");
    for event in &events[14..] {
        terminal.event(event).unwrap();
    }
    terminal
        .finish(&Summary {
            seconds: 82.0,
            ..Summary::default()
        })
        .unwrap();
    let end = screen(out.text().as_bytes());
    assert!(!end.contains("waiting for port"), "{end}");
    assert!(
        end.contains("Summary [   82.000s] 2 tests run: 1 passed, 1 failed, 1 skipped"),
        "{end}"
    );
}
