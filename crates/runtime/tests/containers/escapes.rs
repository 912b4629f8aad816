//! Ways out of a container that others have found, and that must lead nowhere: a program that tries them all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layby_runtime::ContainerConfig;
use layby_runtime::client::Client;

use crate::Test;
use crate::rig::{Rig, layer_with_link, wait_for};
use crate::steps::Bench;

pub(crate) const TESTS: &[Test] = &[
    (
        "the_program_of_the_shim_cannot_be_overwritten_from_inside",
        the_program_of_the_shim_cannot_be_overwritten_from_inside,
    ),
    (
        "a_working_directory_leads_nowhere_on_the_machine",
        a_working_directory_leads_nowhere_on_the_machine,
    ),
    (
        "no_descriptor_of_the_machine_is_left_open_inside",
        no_descriptor_of_the_machine_is_left_open_inside,
    ),
    (
        "what_is_not_the_containers_own_cannot_be_looked_into",
        what_is_not_the_containers_own_cannot_be_looked_into,
    ),
    (
        "a_node_of_the_machines_disk_opens_nothing",
        a_node_of_the_machines_disk_opens_nothing,
    ),
    (
        "no_call_reaches_the_machine_by_a_side_door",
        no_call_reaches_the_machine_by_a_side_door,
    ),
    (
        "the_name_of_a_setting_leads_to_none_of_the_machines",
        the_name_of_a_setting_leads_to_none_of_the_machines,
    ),
    (
        "a_build_step_is_as_closed_as_a_container",
        a_build_step_is_as_closed_as_a_container,
    ),
];

const MAP: (u32, u32) = (0x3000_0000, 65_536);

fn rig(mapped: bool, arguments: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> Rig {
    let mut rig = Rig::one(arguments, change);
    rig.spec.id_map = mapped.then_some(MAP);
    rig
}

fn ask(client: &mut Client, arguments: &[&str]) -> String {
    let mut argv = vec!["/probe"];
    argv.extend(arguments);
    let result = client.exec("web", &argv, 60_000).expect("exec");
    assert_eq!(result.code, 0, "{arguments:?}: {}", result.output);
    result.output
}

/// CVE-2019-5736: the program that the runtime executes inside is the runtime's own.
fn the_program_of_the_shim_cannot_be_overwritten_from_inside() {
    let own = std::env::current_exe().expect("this program");
    let before = fs::read(&own).expect("read");
    for mapped in [true, false] {
        let rig = rig(mapped, &["polite"], |_| ());
        let mut client = rig.started();
        rig.wait_for_line("ready");
        let attack = {
            let mut client = rig.client();
            std::thread::spawn(move || ask(&mut client, &["overwrite", "1500"]))
        };
        while !attack.is_finished() {
            // Itself, as the attack's image would have it; whether it gets far enough to say anything is its own affair.
            let _ = client.exec("web", &["/proc/self/exe", "no-such-test"], 60_000);
            ask(&mut client, &["exit", "0"]);
        }
        let told = attack.join().expect("no panic");
        assert!(told.starts_with("wrote 0 of "), "{told}");
    }
    assert!(fs::read(&own).expect("read") == before);
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime, or a link out of the root.
fn a_working_directory_leads_nowhere_on_the_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("secret"), "of the machine").expect("a file");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let up = format!(
        "../../../../../../../../../..{}/secret",
        dir.path().display()
    );
    for mapped in [true, false] {
        let mut places: Vec<String> = (3..16).map(|fd| format!("/proc/self/fd/{fd}")).collect();
        places.push("/proc/self/fd/7/../../..".to_owned());
        places.push("/proc/self/cwd".to_owned());
        places.push("/proc/1/root".to_owned());
        for place in places {
            let rig = rig(mapped, &["cat", &up], |c| c.cwd.clone_from(&place));
            // Whether it runs is its own affair.
            if rig.prepared().start().is_ok() {
                let mut client = rig.client();
                wait_for("the end", || {
                    client.state().expect("state").containers[0]
                        .last_exit
                        .is_some()
                });
                let log = rig.log("web").join("\n");
                assert!(!log.contains("of the machine"), "{place}: {log}");
            }
        }
        for (number, target) in [
            outside.display().to_string(),
            format!("../../../../../../../..{}", outside.display()),
            "/proc/self/root".to_owned(),
            "/proc/self/fd/8".to_owned(),
        ]
        .into_iter()
        .enumerate()
        {
            let place = dir.path().join(format!("{mapped}-{number}"));
            let upper = layer_with_link(&place, "job", &target);
            let rig = rig(mapped, &["cat", &up], |c| {
                c.lower.insert(0, upper);
                c.cwd = "/job/made".to_owned();
            });
            let _ = rig.prepared().start();
            assert_eq!(
                fs::read_dir(&outside).expect("outside").count(),
                0,
                "{target}"
            );
            assert!(
                !rig.log("web").join("\n").contains("of the machine"),
                "{target}"
            );
        }
    }
}

fn no_descriptor_of_the_machine_is_left_open_inside() {
    for mapped in [true, false] {
        for init in [false, true] {
            let rig = rig(
                mapped,
                &["all", "list", "/proc/self/fd", ";", "list", "/proc/1/fd"],
                |c| {
                    c.options.init = init;
                },
            );
            let mut client = rig.started();
            wait_for("the end", || {
                client.state().expect("state").containers[0]
                    .last_exit
                    .is_some()
            });
            // 3 is the one that lists; the init's are closed to others where it is the shim's own program.
            let log = rig.log("web");
            assert_eq!(&log[..4], ["0", "1", "2", "3"], "{log:?}");
            assert!(init || log[4..] == ["0", "1", "2"], "{log:?}");
        }
        let rig = rig(mapped, &["polite"], |_| ());
        let listed = ask(&mut rig.started(), &["list", "/proc/self/fd"]);
        assert_eq!(listed, "0\n1\n2\n3\n");
    }
}

/// What runs inside before it is the container's own program: the exec's helper, and a small init.
fn what_is_not_the_containers_own_cannot_be_looked_into() {
    for mapped in [true, false] {
        let rig = rig(mapped, &["polite"], |c| c.options.init = true);
        let mut client = rig.started();
        rig.wait_for_line("ready");
        let attack = {
            let mut client = rig.client();
            std::thread::spawn(move || ask(&mut client, &["peek", "1500"]))
        };
        while !attack.is_finished() {
            ask(&mut client, &["exit", "0"]);
        }
        let told = attack.join().expect("no panic");
        assert_eq!(told, "", "mapped: {mapped}");
    }
}

fn a_node_of_the_machines_disk_opens_nothing() {
    let disk = fs::metadata("/").expect("the root").dev();
    let (major, minor) = (nix::sys::stat::major(disk), nix::sys::stat::minor(disk));
    let (major, minor) = (major.to_string(), minor.to_string());
    for mapped in [true, false] {
        let rig = rig(mapped, &["polite"], |_| ());
        let mut client = rig.started();
        for path in ["/disk", "/dev/disk", "/dev/shm/disk"] {
            let told = ask(&mut client, &["disk", path, &major, &minor]);
            assert_eq!(told, "closed", "{path}, mapped: {mapped}");
        }
    }
}

/// A slash in a name stands for a dot of the path, so that two of them lead upwards.
fn the_name_of_a_setting_leads_to_none_of_the_machines() {
    // What would be written is what is there already.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a setting");
    for name in [
        "net.//.kernel.core_pattern",
        "net.ipv4.//.//.kernel.core_pattern",
        "fs.mqueue.//.//.kernel.core_pattern",
    ] {
        let mut rig = rig(true, &["polite"], |_| ());
        let value = pattern.trim_end().to_owned();
        rig.spec.sysctls.insert(name.to_owned(), value);
        let error = rig.spawn().expect_err(name);
        assert!(
            error.fatal() && error.sentence().contains(name),
            "{error:?}"
        );
    }
}

fn no_call_reaches_the_machine_by_a_side_door() {
    for mapped in [true, false] {
        let rig = rig(mapped, &["polite"], |_| ());
        let mut client = rig.started();
        let told = ask(&mut client, &["doors"]);
        for line in told.lines() {
            assert!(line.ends_with(" shut"), "{line}, mapped: {mapped}");
        }
        assert!(told.lines().count() >= 10, "{told}");
    }
}

fn a_build_step_is_as_closed_as_a_container() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("secret"), "of the machine").expect("a file");
    let disk = fs::metadata("/").expect("the root").dev();
    let (major, minor) = (nix::sys::stat::major(disk), nix::sys::stat::minor(disk));
    let words = format!(
        "all list /proc/self/fd ; disk /disk {major} {minor} ; doors ; overwrite 100 ; peek 100"
    );
    for mapped in [true, false] {
        let words: Vec<&str> = words.split(' ').collect();
        let bench = Bench::new(mapped, &words, |_| ());
        let told = bench.output();
        let mut lines = told.lines();
        let first: Vec<&str> = lines.by_ref().take(4).collect();
        assert_eq!(first, ["0", "1", "2", "3"], "{told}");
        assert!(
            lines.next().is_some_and(|line| line.starts_with("closed")),
            "{told}"
        );
        assert!(!told.contains(" open"), "{told}");
        assert!(told.contains("wrote 0 of "), "{told}");
        let up = format!(
            "../../../../../../../../../..{}/secret",
            dir.path().display()
        );
        for fd in 3..16 {
            let bench = Bench::new(mapped, &["cat", &up], |c| {
                c.cwd = format!("/proc/self/fd/{fd}")
            });
            let (_, output) = bench.run();
            assert!(!output.contains("of the machine"), "{output}");
            assert_eq!(bench.layer(), Vec::<String>::new());
        }
        let place = dir.path().join(format!("{mapped}"));
        let target = Path::new("../../../../../../../..")
            .join(dir.path().strip_prefix("/").expect("absolute"));
        let upper = layer_with_link(&place, "job", &target.display().to_string());
        let before = fs::read_dir(dir.path()).expect("outside").count();
        let bench = Bench::new(mapped, &["write", "made", "text"], |c| {
            c.lower.insert(0, upper);
            c.cwd = "/job".to_owned();
        });
        let _ = bench.run();
        assert_eq!(fs::read_dir(dir.path()).expect("outside").count(), before);
    }
}
