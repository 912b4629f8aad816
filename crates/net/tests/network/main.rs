//! The network as the kernel sees it. Needs root.
//!
//! It has a main of its own, because it moves into a network and mount namespace of its own before any
//! thread exists: all threads of the tests are then in there, and all that they make vanishes with the process.

mod dns;
mod kit;
mod lasting;
mod reach;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use kit::RESOLVER;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A test: its name, and what it does in a folder of its own.
type Test = (&'static str, fn(&Path));

const TESTS: &[Test] = &[
    (
        "two_replicas_reach_each_other_and_the_machine_reaches_both",
        reach::two_replicas_reach_each_other_and_the_machine_reaches_both,
    ),
    (
        "replicas_of_two_nodes_do_not_reach_each_other",
        reach::replicas_of_two_nodes_do_not_reach_each_other,
    ),
    (
        "two_nodes_that_start_at_once_take_two_subnets",
        reach::two_nodes_that_start_at_once_take_two_subnets,
    ),
    (
        "a_replica_reaches_another_machine_under_the_address_of_its_own",
        reach::a_replica_reaches_another_machine_under_the_address_of_its_own,
    ),
    (
        "who_shares_no_network_is_not_reached_and_an_internal_one_reaches_nothing_outside",
        reach::who_shares_no_network_is_not_reached_and_an_internal_one_reaches_nothing_outside,
    ),
    (
        "a_firewall_that_drops_by_default_is_opened_and_left_as_it_was",
        reach::a_firewall_that_drops_by_default_is_opened_and_left_as_it_was,
    ),
    (
        "attaching_again_gives_the_same_also_after_a_restart",
        lasting::attaching_again_gives_the_same_also_after_a_restart,
    ),
    (
        "a_freed_address_is_not_given_out_at_once",
        lasting::a_freed_address_is_not_given_out_at_once,
    ),
    (
        "what_is_half_made_is_removed_at_the_next_start",
        lasting::what_is_half_made_is_removed_at_the_next_start,
    ),
    ("closing_leaves_nothing", lasting::closing_leaves_nothing),
    (
        "what_a_firewall_drops_is_told_by_its_rules",
        reach::what_a_firewall_drops_is_told_by_its_rules,
    ),
    (
        "a_fence_that_somebody_removed_is_put_up_again",
        reach::a_fence_that_somebody_removed_is_put_up_again,
    ),
    (
        "two_apps_do_not_reach_each_other_and_builds_reach_nobody",
        reach::two_apps_do_not_reach_each_other_and_builds_reach_nobody,
    ),
    (
        "a_replica_does_not_pass_for_one_of_another_app",
        reach::a_replica_does_not_pass_for_one_of_another_app,
    ),
    (
        "what_begins_on_the_machine_is_answered_whichever_port_it_has",
        reach::what_begins_on_the_machine_is_answered_whichever_port_it_has,
    ),
    (
        "a_virtual_address_leads_to_the_redirect_for_its_app_alone",
        reach::a_virtual_address_leads_to_the_redirect_for_its_app_alone,
    ),
    (
        "a_datagram_to_a_virtual_address_comes_to_no_socket_of_all_addresses",
        reach::a_datagram_to_a_virtual_address_comes_to_no_socket_of_all_addresses,
    ),
    (
        "a_start_that_comes_to_nothing_claims_nothing",
        lasting::a_start_that_comes_to_nothing_claims_nothing,
    ),
    (
        "doors_open_and_close_in_a_fence_that_stands",
        lasting::doors_open_and_close_in_a_fence_that_stands,
    ),
    (
        "bridges_names_and_doors_outlive_a_restart",
        lasting::bridges_names_and_doors_outlive_a_restart,
    ),
    (
        "a_bridge_goes_with_the_last_replica_and_the_last_name",
        lasting::a_bridge_goes_with_the_last_replica_and_the_last_name,
    ),
    (
        "a_bridge_whose_number_says_otherwise_than_its_networks_is_made_anew",
        lasting::a_bridge_whose_number_says_otherwise_than_its_networks_is_made_anew,
    ),
    (
        "the_bridge_of_an_older_layout_is_cleared_away",
        lasting::the_bridge_of_an_older_layout_is_cleared_away,
    ),
    (
        "names_are_answered_to_their_app_over_udp_and_tcp",
        dns::names_are_answered_to_their_app_over_udp_and_tcp,
    ),
    (
        "the_name_server_is_open_to_nobody_outside_of_the_bridges",
        dns::the_name_server_is_open_to_nobody_outside_of_the_bridges,
    ),
    (
        "what_the_node_does_not_know_is_asked_of_the_machines_resolver",
        dns::what_the_node_does_not_know_is_asked_of_the_machines_resolver,
    ),
];

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: the network needs root");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = move_out() {
        println!("SKIPPED: no namespaces of our own: {error}");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    let mut passed = 0;
    for (name, test) in TESTS {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().to_owned();
        let test = *test;
        // A panic is printed by the thread itself.
        if std::thread::spawn(move || test(&path)).join().is_ok() {
            passed += 1;
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED");
        }
        unbind_all(&dir.path().join("run"));
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Moves the process into namespaces of its own; no thread may exist yet.
fn move_out() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // Nothing is known of the world in here but what the tests put there.
    let resolv = std::env::temp_dir().join(format!("layby-net-resolv-{}", std::process::id()));
    fs::write(&resolv, format!("nameserver {RESOLVER}\n")).map_err(|_| nix::errno::Errno::EIO)?;
    let bound = mount(
        Some(&resolv),
        "/etc/resolv.conf",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    fs::remove_file(&resolv).map_err(|_| nix::errno::Errno::EIO)?;
    bound
}

/// Unmounts what a failed test left, so that its folder can be removed.
fn unbind_all(run: &Path) {
    for node in fs::read_dir(run).into_iter().flatten().flatten() {
        let files = fs::read_dir(node.path().join("netns"));
        for file in files.into_iter().flatten().flatten() {
            // One that is no mount is fine.
            let _ = nix::mount::umount2(&file.path(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
