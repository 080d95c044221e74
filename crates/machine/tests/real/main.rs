//! Real machines: started by the real QEMU and systemd-nspawn, used, stopped, and killed.
//!
//! The test binary is also the `exe` of its machines: with a hidden verb as its first argument it is
//! a helper. With `__owner` it owns machines that a test kills it over.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program of tests"
)]

mod container;
mod ground;
mod lab;
mod leftovers;
mod renewal;
mod script_container;
mod script_vm;
mod script_warm;
mod snapshot;
mod vm;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn() -> Result<(), Failed>;

const CONTAINERS: &[(&str, Test)] = &[
    ("container_runs_commands_and_stops", container::life),
    ("container_restarts", container::restarts),
    ("container_switches_itself_off", container::off_by_itself),
    ("container_init_exits", container::init_exits),
    ("container_is_killed", container::killed),
    ("container_launch_stands_still", container::stuck),
    (
        "container_sees_its_volumes_devices_and_name",
        container::sees,
    ),
    ("container_port_is_published", container::published),
    (
        "container_without_a_terminal_on_the_host",
        container::no_terminals,
    ),
    ("container_on_the_hosts_root", container::on_host_root),
    ("container_is_seen", container::screenshot),
    ("container_image_without_init", container::no_init),
    ("a_killed_owner_leaves_no_container", leftovers::container),
    ("a_killed_owner_leaves_no_script", leftovers::script),
    ("ground_is_complete_for_root", ground::complete),
    ("ground_on_a_bare_root", ground::bare),
    ("ground_names_what_is_lacking", ground::lacks),
    ("script_containers_live_on_one_wire", script_container::life),
    ("script_container_restarts", script_container::restarts),
    (
        "script_containers_of_two_sessions",
        script_container::two_sessions,
    ),
    (
        "script_containers_of_all_generations",
        script_container::generations,
    ),
    (
        "script_container_leaves_a_marked_directory",
        script_container::immutable,
    ),
    ("script_of_a_container_fails", script_container::fails),
    ("script_of_a_container_is_deaf", script_container::deaf),
];

const VMS: &[(&str, Test)] = &[
    ("vm_is_saved_and_restored", snapshot::life),
    ("vm_with_a_system_is_saved_and_restored", snapshot::system),
    ("vm_is_to_be_saved_on_a_full_disk", snapshot::disk_full),
    ("vm_settles_and_is_renewed", renewal::settles),
    ("vm_by_whatever_accelerates", vm::automatic),
    ("vm_full_life", vm::life),
    ("vm_shares_folders_and_disks", vm::shares),
    ("vm_kernel_panics", vm::panics),
    ("vm_qemu_is_killed", vm::killed),
    ("a_killed_owner_leaves_no_vm", leftovers::vm),
    (
        "a_killed_owner_leaves_no_script_of_a_vm",
        leftovers::forking_script,
    ),
    ("script_vm_full_life", script_vm::life),
    ("script_vm_is_saved_and_restored", script_warm::life),
    ("script_vm_that_cannot_be_saved", script_warm::refused),
    (
        "script_vm_without_a_shared_directory",
        script_vm::through_the_shell,
    ),
    ("script_vm_leaves_its_initrd", script_vm::switches_root),
    ("script_vm_that_cannot_have_an_agent", script_vm::read_only),
    ("script_of_a_vm_is_wrong", script_vm::wrong),
    ("script_of_a_vm_forks_and_is_killed", script_vm::killed),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = machinist_machine::helper::dispatch(&arguments) {
        return code;
    }
    if arguments.first().is_some_and(|verb| verb == "__owner") {
        return leftovers::own(&arguments[1..]);
    }
    if arguments.first().is_some_and(|verb| verb == "__warm") {
        return snapshot::own(&arguments[1..]);
    }
    let mut trials = Vec::new();
    for (tests, lacking) in [
        (CONTAINERS, lab::lacking_for_containers()),
        (VMS, lab::lacking_for_vms()),
    ] {
        trials.extend(tests.iter().map(|&(name, test)| {
            match &lacking {
                None => Trial::test(name, test),
                Some(reason) => Trial::test(name, test)
                    .with_kind(format!("skipped: {reason}"))
                    .with_ignored_flag(true),
            }
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
