//! Real images: built by the real tools, from the real mirror, killed, and short of space.
//!
//! With `__ensure` as its first argument this is a program that makes an image and says what it does;
//! the tests run it to have processes that they can race and kill.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builder;
mod debian;
mod failures;
mod local;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("__ensure") {
        return builder::main(args);
    }
    let lacking = lacking();
    let tests: &[(&str, Test)] = &[
        ("debian_is_built_once_by_two", debian::built_once_by_two),
        ("a_killed_build_leaves_nothing", failures::killed),
        ("a_killed_build_is_taken_over", failures::taken_over),
        (
            "a_full_disk_is_told_and_leaves_nothing",
            failures::full_disk,
        ),
        ("wrong_names_and_no_network_are_told", failures::told),
        ("a_missing_tool_is_told", failures::missing_tool),
        ("a_cancelled_build_leaves_nothing", failures::cancelled),
        ("tar_and_dir", local::tar_and_dir),
        ("no_archive", local::no_archive),
        ("pruning_spares_what_is_used", local::prune),
        ("another_format_is_refused", local::format),
    ];
    let trials = tests
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

/// What this machine lacks to run any of it.
fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let missing = ["mmdebstrap", "mkfs.erofs", "unshare"]
        .into_iter()
        .find(|tool| {
            let found = Command::new("sh")
                .args(["-c", "command -v \"$1\"", "sh", tool])
                .stdout(Stdio::null())
                .status();
            !found.is_ok_and(|status| status.success())
        })?;
    Some(format!("needs {missing}"))
}
