//! The options of `nixos-test-driver`: what all three generations of NixOS's driver have.

use super::argparse::{Spec, Takes};

pub const CONFIG: usize = 0;
pub const TEST_SCRIPT: usize = 1;
pub const KEEP: usize = 2;
pub const INTERACTIVE: usize = 3;
pub const DEBUG_HOOK: usize = 4;
pub const VM_NAMES: usize = 5;
pub const VM_SCRIPTS: usize = 6;
pub const CONTAINER_NAMES: usize = 7;
pub const CONTAINER_SCRIPTS: usize = 8;
pub const VLANS: usize = 9;
pub const TIMEOUT: usize = 10;
pub const OUT_DIR: usize = 11;
pub const JUNIT: usize = 12;
pub const VSOCKS: usize = 13;
pub const LOG_LEVEL: usize = 14;
pub const WARM: usize = 15;
pub const HELP: usize = 16;

/// All options. Their order is that of the constants above.
pub const OPTIONS: &[Spec] = &[
    option(
        &["-c", "--config"],
        Takes::One("FILE"),
        Some("the machines, VLANs and the test script, as JSON; instead of the lists below"),
    ),
    option(
        &["--test-script"],
        Takes::One("FILE"),
        Some("the test script, before the one that --config names"),
    ),
    option(
        &["-K", "--keep-machine-state", "--keep-vm-state"],
        Takes::Nothing,
        Some("re-use a machine state coming from a previous run"),
    ),
    option(
        &["-I", "--interactive", "--no-interactive"],
        Takes::Nothing,
        Some("a Python prompt with the names of a test script, instead of running one"),
    ),
    option(
        &["--debug-hook-attach"],
        Takes::One("COMMAND"),
        Some("stand still at a failure and at debug.breakpoint(), and say how to attach"),
    ),
    option(
        &["--vm-names"],
        Takes::Any("NAME"),
        Some("names of virtual machines; else run-NAME-vm says them (environment: vmNames)"),
    ),
    option(
        &["--vm-start-scripts", "--start-scripts"],
        Takes::Any("SCRIPT"),
        Some("start scripts of virtual machines (environment: vmStartScripts, startScripts)"),
    ),
    option(
        &["--container-names"],
        Takes::Any("NAME"),
        Some("names of containers; else run-NAME-nspawn says them (environment: containerNames)"),
    ),
    option(
        &["--container-start-scripts"],
        Takes::Any("SCRIPT"),
        Some("start scripts of containers (environment: containerStartScripts)"),
    ),
    option(
        &["--vlans"],
        Takes::Any("VLAN"),
        Some("numbers of the VLANs (environment: vlans)"),
    ),
    option(
        &["--global-timeout"],
        Takes::One("SECONDS"),
        Some("after which the whole test has failed (environment: globalTimeout)"),
    ),
    option(
        &["-o", "--output_directory"],
        Takes::One("DIR"),
        Some("where files of the machines and screenshots go; it must be there"),
    ),
    option(
        &["--junit-xml"],
        Takes::One("FILE"),
        Some("write a JUnit report, relative to the output directory"),
    ),
    option(
        &["--dump-vsocks"],
        Takes::One("OFFSET"),
        Some("say for each machine how to log in by SSH"),
    ),
    option(
        &["--log-level"],
        Takes::One("LEVEL"),
        Some("debug, info, warning, or error (environment: logLevel)"),
    ),
    option(
        &["--warm"],
        Takes::Nothing,
        Some("restore virtual machines from snapshots (environment: MACHINIST_WARM)"),
    ),
    option(&["-h", "--help"], Takes::Nothing, None),
];

const fn option(flags: &'static [&'static str], takes: Takes, help: Option<&'static str>) -> Spec {
    Spec { flags, takes, help }
}

/// What an option is called in messages.
pub fn name(option: usize) -> String {
    OPTIONS[option].name()
}
