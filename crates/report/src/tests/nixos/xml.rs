//! The XML log.

use proptest::prelude::*;
use quick_xml::events::Event as Markup;

use super::*;

/// Reads a document, and fails if it is none. Gives the text of its lines.
fn lines_of(text: &str) -> Vec<String> {
    assert!(text.chars().all(allowed), "{text:?}");
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let (mut depth, mut lines, mut roots) = (0, Vec::new(), 0);
    let mut line: Option<String> = None;
    loop {
        match reader.read_event().unwrap() {
            Markup::Start(tag) => {
                roots += usize::from(depth == 0);
                depth += 1;
                for attribute in tag.attributes() {
                    attribute.unwrap();
                }
                if tag.name().as_ref() == b"line" {
                    line = Some(String::new());
                }
            }
            Markup::End(_) => {
                depth -= 1;
                lines.extend(line.take());
            }
            Markup::Text(text) => {
                let text = text.decode().unwrap();
                assert!(!text.contains("]]>"));
                if let Some(line) = &mut line {
                    line.push_str(&text);
                }
            }
            Markup::GeneralRef(name) => {
                let known = match name.decode().unwrap().as_ref() {
                    "lt" => "<",
                    "gt" => ">",
                    "amp" => "&",
                    "quot" => "\"",
                    "apos" => "'",
                    other => panic!("what is &{other};?"),
                };
                if let Some(line) = &mut line {
                    line.push_str(known);
                }
            }
            Markup::Decl(_) => {}
            Markup::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((depth, roots), (0, 1), "{text}");
    lines
}

/// What XML 1.0 calls a character.
fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// What is in the file after each event, and in the end.
fn write(events: &[Event]) -> (Vec<String>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.xml");
    let mut report = DriverReport::new(Level::Info)
        .with_xml(File::create(&path).unwrap())
        .unwrap();
    let mut after = vec![contents(&path)];
    for event in events {
        report.event(event).unwrap();
        after.push(contents(&path));
    }
    report.finish().unwrap();
    (after, contents(&path))
}

#[test]
fn a_failed_test() {
    let (_, end) = write(&failing());
    lines_of(&end);
    insta::assert_snapshot!(end.replace("><", ">\n<"), @r#"
    <?xml version="1.0" encoding="utf-8"?>
    <logfile>
    <nest>
    <head>run the VM test script</head>
    <line machine="machine">starting vm (tcg)</line>
    <line machine="machine" type="serial">OK Started a.service</line>
    <line machine="machine">connected to guest root shell</line>
    <line machine="machine">(connecting took 0.90 seconds)</line>
    <nest>
    <head machine="machine">must succeed: uname -r</head>
    <line machine="machine" type="serial">a warning</line>
    <line>(finished: must succeed: uname -r, in 0.03 seconds)</line>
    </nest>
    <line>of interest</line>
    <line machine="machine">of the machine</line>
    <nest>
    <head>subtest: works</head>
    <nest>
    <head machine="machine">waiting for unit a.service</head>
    <line>(finished: waiting for unit a.service, in 0.25 seconds)</line>
    </nest>
    <line>(finished: subtest: works, in 0.50 seconds)</line>
    </nest>
    <nest>
    <head>subtest: fails</head>
    <nest>
    <head machine="machine">must succeed: false</head>
    <line machine="machine">output: so sorry</line>
    </nest>
    <line>Test &quot;fails&quot; failed with error: &quot;command `false` failed (exit code 1)&quot;</line>
    </nest>
    </nest>
    <line>Traceback (most recent call last):</line>
    <line>  File &quot;/t/script.py&quot;, line 3, in &lt;module&gt;</line>
    <line>    machine.succeed(&quot;false&quot;)</line>
    <line>
    </line>
    <line>RequestedAssertionFailed: command `false` failed (exit code 1)</line>
    <line>machine: unit a.service has failed</line>
    </logfile>
    "#);
}

#[test]
fn it_is_whole_after_every_event() {
    let (after, end) = write(&failing());
    for text in &after {
        lines_of(text);
    }
    assert_eq!(after.last(), Some(&end));
    assert!(after.windows(2).all(|pair| pair[0].len() <= pair[1].len()));
}

#[test]
fn ends_in_any_order_are_nested_all_the_same() {
    let events = [
        of("a", 0.0, started(1, "one", Some("must succeed"))),
        of("b", 0.0, started(2, "two", Some("must succeed"))),
        of("a", 0.0, ended(1, 0, 0.0)),
        of("b", 0.0, ended(2, 0, 0.0)),
    ];
    let (_, end) = write(&events);
    assert_eq!(
        lines_of(&end),
        [
            "(finished: must succeed: one, in 0.00 seconds)",
            "(finished: must succeed: two, in 0.00 seconds)"
        ]
    );
}

#[test]
fn a_pipe_is_ended_once() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let mut report = DriverReport::new(Level::Info).with_xml(file).unwrap();
    report.event(&of("m", 0.0, console("hello"))).unwrap();
    report.finish().unwrap();
    drop(report);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(lines_of(&text), ["hello"]);
}

proptest! {
    #[test]
    fn whatever_a_guest_prints(
        texts in proptest::collection::vec("(.|\\n|[<>&'\"]|\\]\\]>|[\\x00-\\x1f]|\\x{fffe}|\\x{ffff}|\\x{202e})*", 1..4),
        bytes: Vec<u8>,
    ) {
        let mut events = Vec::new();
        for (id, text) in (10..).zip(&texts) {
            events.push(of(text, 0.0, console(&String::from_utf8_lossy(&bytes))));
            events.push(of(text, 0.0, console(text)));
            events.push(of("m", 0.0, started(id, text, Some(text))));
            events.push(at(0.0, log(text, Level::Info)));
            events.push(at(0.0, subtest(text)));
            events.push(at(0.0, subtest_over(text, 0.0, Some(text))));
        }
        let (after, _) = write(&events);
        for text in &after {
            lines_of(text);
        }
    }
}
