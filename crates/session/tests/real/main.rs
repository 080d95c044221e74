//! Sessions with real containers on this host's root: tests to their end, and engines that are
//! killed.
//!
//! The test binary is also the `exe` of its engines, and with `__engine` an engine to be killed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests: what fails here has nothing to tell but where"
)]

mod killed;
mod lab;
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn() -> Result<(), Failed>;

const TESTS: &[(&str, Test)] = &[
    ("steps_pass", tests::steps_pass),
    ("a_step_waits_for_the_journal", tests::journal_waits),
    ("a_unit_that_cannot_come_is_told_at_once", tests::unit_waits),
    ("a_step_that_fails_says_what_it_got", tests::step_fails),
    ("a_script_passes", tests::script_passes),
    ("a_full_disk_is_no_failed_test", tests::disk_full),
    (
        "a_script_that_fails_shows_its_own_frames",
        tests::script_fails,
    ),
    ("a_script_that_takes_too_long_is_ended", tests::script_late),
    (
        "a_script_that_is_interrupted_is_ended",
        tests::script_interrupted,
    ),
    (
        "a_script_that_dies_without_a_word_has_failed",
        tests::script_dies,
    ),
    ("no_python_is_a_clear_sentence", tests::no_python),
    ("a_paused_test_waits_for_a_client", tests::paused),
    ("a_session_that_is_dropped_is_over", tests::dropped),
    ("a_guard_cleans_up_after_its_engine", killed::engine),
    ("a_sweep_cleans_up_after_both", killed::engine_and_guard),
    (
        "an_engine_killed_at_any_moment_leaves_nothing",
        killed::at_any_moment,
    ),
    ("a_guard_ignores_signals", killed::guard_is_signalled),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = machinist_session::guard::dispatch(&arguments) {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = machinist_machine::helper::dispatch(&words) {
        return code;
    }
    if words.first().is_some_and(|verb| verb == killed::VERB) {
        return killed::be_an_engine(&words[1..]);
    }
    let lacking = lab::lacking();
    let trials = TESTS
        .iter()
        .map(|&(name, test)| match &lacking {
            None => Trial::test(name, test),
            Some(reason) => Trial::test(name, test)
                .with_kind(format!("skipped: {reason}"))
                .with_ignored_flag(true),
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
