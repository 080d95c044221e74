//! The switch with real network namespaces and real TCP/IP stacks on it.
//!
//! The machines are network namespaces of their own. A "container" is attached by a veth pair, as
//! real ones are; a "virtual machine" speaks QEMU's stream protocol, and behind that is the kernel's
//! network stack too, so that whatever the switch makes of offloads is checked by somebody else.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: where it goes wrong, it is to stop and say so"
)]

mod cases;
mod crowd;
mod death;
mod lab;
mod plug;
mod traffic;
mod vm;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use machinist_network::NetNs;

const QEMU: &str = "qemu_connects";
const VDE_QEMU: &str = "qemu_connects_as_a_vde_client";
const VDE_PLUG: &str = "vde_plug_connects";
const VDE_TAP: &str = "vde_plug2tap_connects";

type Case = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    if let Some(code) = death::dispatch().or_else(crowd::dispatch) {
        return code;
    }
    let arguments = Arguments::from_args();
    let skip = NetNs::new().err();
    if let Some(error) = &skip {
        eprintln!("skipped: these tests make network namespaces, and that needs root ({error})");
    }
    let qemu = cases::qemu::is_there();
    if !qemu {
        eprintln!("skipped: the tests with QEMU need qemu-system-x86 and ipxe-qemu");
    }
    let plug = cases::vde_programs::is_there("vde_plug");
    if !plug {
        eprintln!("skipped: the test with vde_plug needs vde2");
    }
    let tap = cases::vde_programs::is_there("vde_plug2tap") && cases::vde_programs::may_tap();
    if !tap {
        eprintln!("skipped: the test with vde_plug2tap needs vde2 and /dev/net/tun");
    }
    let trials = all().into_iter().map(|(name, case)| {
        let possible = match name {
            QEMU | VDE_QEMU => qemu,
            VDE_PLUG => plug,
            VDE_TAP => tap,
            _ => true,
        };
        Trial::test(name, case).with_ignored_flag(skip.is_some() || !possible)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("attaching_is_prompt", cases::life::prompt),
        ("containers_talk", cases::talk::containers),
        ("a_vm_and_a_container_talk", cases::talk::vm_and_container),
        ("multicast_reaches_all", cases::talk::multicast),
        ("tags_pass", cases::talk::tags),
        ("transfer_between_containers", cases::transfer::containers),
        (
            "transfer_between_vm_and_container",
            cases::transfer::vm_and_container,
        ),
        (
            "udp_segments_are_cut_for_a_vm",
            cases::transfer::udp_segments,
        ),
        ("vlans_are_isolated", cases::walls::vlans),
        ("the_host_sees_nothing", cases::walls::host),
        ("jumbo_frames_are_refused_cleanly", cases::walls::jumbo),
        ("a_port_that_is_down_lets_nothing_pass", cases::walls::down),
        ("a_vm_that_stops_reading_blocks_nobody", cases::vms::stopped),
        ("a_vm_may_come_back", cases::vms::reconnects),
        ("a_peer_that_is_no_qemu_is_sent_away", cases::vms::garbage),
        (
            "a_container_that_deletes_its_interface_is_no_trouble",
            cases::life::unplugged,
        ),
        ("vde_clients_talk_with_all", cases::vde::talk),
        ("transfer_with_a_vde_client", cases::vde::much),
        (
            "a_vde_door_that_is_down_lets_nothing_pass",
            cases::vde::down,
        ),
        ("vde_clients_that_are_killed_are_gone", cases::vde::killed),
        ("garbage_to_a_vde_door_is_survived", cases::vde::garbage),
        (
            "a_vde_client_that_stops_reading_blocks_nobody",
            cases::vde::stopped,
        ),
        ("vde_directories_are_in_order", cases::vde::directories),
        ("many_vde_clients_come_and_go", cases::vde::many),
        ("without_descriptors_clients_are_sent_away", crowd::crowded),
        ("a_bridge_of_start_scripts_is_joined", cases::bridge::joined),
        ("taps_are_told_apart", cases::bridge::taps),
        (QEMU, cases::qemu::boots),
        (VDE_QEMU, cases::vde_programs::qemu),
        (VDE_PLUG, cases::vde_programs::plug),
        (VDE_TAP, cases::vde_programs::plug2tap),
        ("errors_name_the_thing", cases::life::errors),
        ("what_is_dropped_is_gone", cases::life::dropped),
        ("killed_leaves_nothing", death::killed),
    ]
}
