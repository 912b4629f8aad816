//! What a container may not: its limits, its user, its system calls, its view of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use layby_runtime::client::Client;

use crate::Test;
use crate::rig::{PATIENCE, Rig, layer, layer_with_link, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "the_limits_are_written_where_the_kernel_reads_them",
        the_limits_are_written_where_the_kernel_reads_them,
    ),
    (
        "a_container_that_exceeds_its_memory_is_seen_to_have",
        a_container_that_exceeds_its_memory_is_seen_to_have,
    ),
    (
        "a_user_is_found_by_name_in_the_image",
        a_user_is_found_by_name_in_the_image,
    ),
    (
        "capabilities_are_dockers_default_ones",
        capabilities_are_dockers_default_ones,
    ),
    (
        "system_calls_beyond_a_container_are_refused",
        system_calls_beyond_a_container_are_refused,
    ),
    (
        "a_container_sees_its_own_machine_only",
        a_container_sees_its_own_machine_only,
    ),
    (
        "a_link_in_an_image_leads_nowhere_on_the_host",
        a_link_in_an_image_leads_nowhere_on_the_host,
    ),
    (
        "containers_of_a_sandbox_share_its_network",
        containers_of_a_sandbox_share_its_network,
    ),
    (
        "root_in_a_user_namespace_is_nobody_outside",
        root_in_a_user_namespace_is_nobody_outside,
    ),
    (
        "output_without_end_is_kept_within_bounds",
        output_without_end_is_kept_within_bounds,
    ),
];

/// Runs the program once more in container "web" and returns what it wrote.
fn ask(client: &mut Client, arguments: &[&str]) -> String {
    let mut argv = vec!["/probe"];
    argv.extend(arguments);
    let result = client.exec("web", &argv, 60_000).expect("exec");
    assert_eq!(
        (result.code, result.timed_out),
        (0, false),
        "{}",
        result.output
    );
    result.output
}

/// `/proc/self/status` as the container's init had it, and as an exec in it has it.
fn both_statuses(
    change: impl Fn(&mut layby_runtime::ContainerConfig),
) -> [BTreeMap<String, String>; 2] {
    let rig = Rig::one(&["cat", "/proc/self/status"], &change);
    let mut client = rig.started();
    wait_for("the end", || {
        !client.state().expect("state").running
            && client.state().expect("state").containers[0].pid.is_none()
    });
    let init = rig.log("web").join("\n");
    let rig = Rig::one(&["polite"], &change);
    let mut client = rig.started();
    let exec = ask(&mut client, &["cat", "/proc/self/status"]);
    [init, exec].map(|text| {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs
            .map(|(name, value)| {
                (
                    name.to_owned(),
                    value.split_whitespace().collect::<Vec<_>>().join(" "),
                )
            })
            .collect()
    })
}

fn the_limits_are_written_where_the_kernel_reads_them() {
    let rig = Rig::one(&["polite"], |c| {
        (c.memory_bytes, c.cpu_milli, c.pids) = (Some(64 << 20), Some(250), Some(33));
    });
    let mut client = rig.prepared();
    let check = || {
        let read = |controller: &str, file: &str| {
            let path = rig.cgroup_file(controller, "web", file);
            fs::read_to_string(&path)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                .trim()
                .to_owned()
        };
        if fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("exists") {
            assert_eq!(read("", "memory.max"), "67108864");
            assert_eq!(read("", "cpu.max"), "25000 100000");
            assert_eq!(read("", "pids.max"), "33");
        } else {
            assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
            assert_eq!(read("cpu", "cpu.cfs_quota_us"), "25000");
            assert_eq!(read("pids", "pids.max"), "33");
            assert!(!read("devices", "devices.list").contains("a *:*"));
        }
    };
    check();
    for _ in 0..2 {
        let pid = client.start().expect("start").containers[0]
            .pid
            .expect("a pid");
        check();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
        assert!(
            groups.contains(&format!("{}/web", rig.spec.cgroup)),
            "{groups}"
        );
        client.stop().expect("stop");
    }
}

fn a_container_that_exceeds_its_memory_is_seen_to_have() {
    let rig = Rig::one(&["eat", "400"], |c| c.memory_bytes = Some(32 << 20));
    let mut client = rig.prepared();
    client.watch().expect("watch");
    client.start().expect("start");
    let exit = loop {
        let state = client
            .next_state(PATIENCE)
            .expect("a state")
            .expect("in time");
        if let Some(exit) = state.containers[0].last_exit {
            break exit;
        }
    };
    assert!(exit.oom, "{exit:?}");
    assert_eq!(exit.code, 137);
    // An end without it is not blamed on memory, though the counter stands.
    wait_for("the stop", || client.stop().is_ok());
    let rig = Rig::one(&["exit", "3"], |c| c.memory_bytes = Some(32 << 20));
    let mut client = rig.started();
    wait_for("the end", || {
        client.state().expect("state").containers[0]
            .last_exit
            .is_some()
    });
    assert!(
        !client.state().expect("state").containers[0]
            .last_exit
            .expect("an exit")
            .oom
    );
}

fn a_user_is_found_by_name_in_the_image() {
    for status in both_statuses(|c| c.user = "web".to_owned()) {
        assert_eq!(status["Uid"], "1234 1234 1234 1234");
        assert_eq!(status["Gid"], "1235 1235 1235 1235");
        assert_eq!(status["Groups"], "77");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
    }
    let rig = Rig::one(&["polite"], |c| {
        (c.user, c.cwd) = ("web:logs".to_owned(), "/srv/made/for/me".to_owned());
        c.env = vec![("COLOUR".to_owned(), "green".to_owned())];
    });
    let mut client = rig.started();
    let env = ask(&mut client, &["env"]);
    for line in ["HOME=/srv/web", "HOSTNAME=test-host", "COLOUR=green"] {
        assert!(env.lines().any(|l| l == line), "{env}");
    }
    assert_eq!(ask(&mut client, &["where"]), "/srv/made/for/me");
    let status = ask(&mut client, &["cat", "/proc/self/status"]);
    assert!(status.contains("Gid:\t77\t77\t77\t77"), "{status}");
}

fn capabilities_are_dockers_default_ones() {
    for status in both_statuses(|_| ()) {
        // What `docker run` shows: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
        // net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status[set], "00000000a80425fb", "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["Seccomp"], "2");
        assert_eq!(status["SigBlk"], "0000000000000000");
    }
}

fn system_calls_beyond_a_container_are_refused() {
    let rig = Rig::one(&["calls"], |_| ());
    let mut client = rig.started();
    wait_for("the end", || {
        client.state().expect("state").containers[0]
            .last_exit
            .is_some()
    });
    let first = rig.log("web").join("\n");
    let rig = Rig::one(&["polite"], |_| ());
    let second = ask(&mut rig.started(), &["calls"]);
    for text in [first, second] {
        let said: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(said["thread"], "fine");
        for fine in ["getpid", "udp", "netlink"] {
            assert_eq!(said[fine], "0", "{fine}: {text}");
        }
        for refused in [
            "mount",
            "umount2",
            "unshare",
            "clone-user",
            "setns",
            "keyctl",
            "bpf",
            "io_uring_setup",
            "init_module",
            "vsock",
            "vsock-in-disguise",
        ] {
            assert_eq!(
                said[refused],
                nix::libc::EPERM.to_string(),
                "{refused}: {text}"
            );
        }
        assert_eq!(said["clone3"], nix::libc::ENOSYS.to_string());
    }
}

fn a_container_sees_its_own_machine_only() {
    let rig = Rig::one(&["polite"], |c| c.memory_bytes = Some(77 << 20));
    let mut client = rig.started();
    assert_eq!(ask(&mut client, &["cat", "/etc/hostname"]), "test-host\n");
    assert_eq!(
        ask(&mut client, &["cat", "/proc/sys/kernel/hostname"]),
        "test-host\n"
    );
    assert!(ask(&mut client, &["cat", "/etc/hosts"]).contains("10.1.2.3\tneighbour\n"));
    assert_eq!(
        ask(&mut client, &["cat", "/etc/resolv.conf"]),
        "nameserver 10.1.2.1\n"
    );
    assert_eq!(
        ask(&mut client, &["list", "/"]),
        "dev\netc\nprobe\nproc\nsys\n"
    );
    assert_eq!(ask(&mut client, &["list", "/sys/class/net"]), "lo\n");
    let devices = ask(&mut client, &["list", "/dev"]);
    for device in [
        "null", "zero", "urandom", "tty", "pts", "shm", "mqueue", "stdout",
    ] {
        assert!(
            devices.lines().any(|line| line == device),
            "{device}: {devices}"
        );
    }
    let mounts = ask(&mut client, &["cat", "/proc/self/mountinfo"]);
    // Its own cgroup is there to read, for those who size themselves by it.
    let own = mounts
        .lines()
        .filter(|line| line.contains(" / /sys/fs/cgroup"));
    assert!(own.count() >= 2, "{mounts}");
    let limit = ["memory/memory.limit_in_bytes", "memory.max"]
        .map(|file| ask(&mut client, &["cat", &format!("/sys/fs/cgroup/{file}")]));
    assert!(limit.contains(&format!("{}\n", 77 << 20)), "{limit:?}");
    for path in [
        "/sys/fs/cgroup/x",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/proc/sys/kernel/hostname",
    ] {
        assert_ne!(
            client
                .exec("web", &["/probe", "write", path, "1"], 60_000)
                .expect("exec")
                .code,
            0,
            "{path}"
        );
    }
    let host = rig.dir.path().display().to_string();
    let foreign = mounts.lines().filter(|line| {
        line.contains(&host) && !line.contains(" /etc/") && !line.contains("upperdir")
    });
    assert_eq!(foreign.count(), 0, "{mounts}");
    assert!(
        mounts
            .lines()
            .any(|line| line.contains(" /sys ro,") || line.contains(" /sys ro ")),
        "{mounts}"
    );
    let shown: Vec<String> = ask(&mut client, &["list", "/proc"])
        .lines()
        .filter(|n| n.parse::<u32>().is_ok())
        .map(str::to_owned)
        .collect();
    assert!(
        shown.contains(&"1".to_owned()) && shown.len() <= 3,
        "{shown:?}"
    );
    let kept = ask(&mut client, &["cat", "/proc/self/limits"]);
    assert!(kept.contains("Max open files"), "{kept}");
}

fn a_link_in_an_image_leads_nowhere_on_the_host() {
    // A user that only the host knows, behind a link that leaves the image when followed carelessly.
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("passwd");
    fs::write(&secret, "host-only:x:7:7::/:\n").expect("a file");
    let upper = layer_with_link(dir.path(), "etc/passwd", &secret.display().to_string());
    let rig = Rig::one(&["polite"], |c| {
        c.lower.insert(0, upper.clone());
        c.user = "host-only".to_owned();
    });
    let error = rig
        .prepared()
        .start()
        .expect_err("the link is not followed");
    assert!(error.sentence().contains("host-only"), "{error:?}");
    drop(rig);
    // The same with whole directories, upwards, where files are mounted and made.
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    for (number, target) in [
        outside.display().to_string(),
        format!("../../../../../../../..{}", outside.display()),
    ]
    .into_iter()
    .enumerate()
    {
        let place = dir.path().join(number.to_string());
        let upper = layer_with_link(&place, "etc", &target);
        let rig = Rig::one(&["polite"], |c| {
            c.lower.insert(0, upper);
            c.cwd = "/etc/made".to_owned();
        });
        // Whether it runs is its own affair: its link leads to nothing of its own.
        let _ = rig.prepared().start();
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    }
    assert_eq!(fs::read_to_string(layer().join("etc/hosts")).ok(), None);
}

fn containers_of_a_sandbox_share_its_network() {
    let rig = Rig::of(vec![
        crate::rig::container("web", &["serve", "80"]),
        crate::rig::container("side", &["polite"]),
    ]);
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let result = client
        .exec("side", &["/probe", "get", "80"], 60_000)
        .expect("exec");
    assert!(result.output.ends_with("hello"), "{result:?}");
    // Another sandbox may take the same port, as any user: it is another network.
    let other = Rig::one(&["serve", "80"], |c| c.user = "1000".to_owned());
    let mut client = other.started();
    other.wait_for_line("ready");
    assert!(ask(&mut client, &["get", "80"]).ends_with("hello"));
}

fn output_without_end_is_kept_within_bounds() {
    let rig = Rig::one(&["flood", "120000"], |_| ());
    let mut client = rig.started();
    // Others are served while it floods.
    assert!(client.state().is_ok());
    wait_for("the end of the flood", || {
        std::thread::sleep(Duration::from_millis(20));
        client.state().expect("state").containers[0]
            .last_exit
            .is_some()
    });
    let logs = rig.bundle().join("logs");
    let sizes: Vec<u64> = ["web.log", "web.log.1"]
        .iter()
        .map(|name| fs::metadata(logs.join(name)).expect("a log").len())
        .collect();
    assert!(
        sizes
            .iter()
            .all(|size| *size <= layby_runtime::logs::MAX_FILE_BYTES),
        "{sizes:?}"
    );
    assert!(
        sizes.iter().sum::<u64>() > layby_runtime::logs::MAX_FILE_BYTES,
        "{sizes:?}"
    );
    assert_eq!(fs::read_dir(logs).expect("logs").count(), 2);
    assert!(rig.log("web").iter().all(|line| line == &"f".repeat(200)));
}

fn root_in_a_user_namespace_is_nobody_outside() {
    use std::os::unix::fs::MetadataExt;

    let mut rig = Rig::of(vec![
        crate::rig::container("web", &["polite"]),
        crate::rig::container("side", &["serve", "80"]),
    ]);
    rig.spec.id_map = Some((500_000, 65_536));
    rig.spec.containers[0].cwd = "/srv/made".to_owned();
    rig.spec.containers[1].user = "web".to_owned();
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let state = client.state().expect("state");
    for (container, uid) in [(0, 500_000), (1, 501_234)] {
        let pid = state.containers[container].pid.expect("a pid");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        assert!(
            status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")),
            "{status}"
        );
    }
    // Inside it is root, with the image's files its own.
    let status = ask(&mut client, &["cat", "/proc/self/status"]);
    for line in [
        "Uid:\t0\t0\t0\t0",
        "CapEff:\t00000000a80425fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{status}");
    }
    ask(&mut client, &["write", "/etc/passwd", "changed"]);
    ask(&mut client, &["write", "made", "text"]);
    ask(&mut client, &["write", "/etc/hosts", "text"]);
    ask(&mut client, &["write", "/dev/null", "text"]);
    let upper = rig.bundle().join("containers/web/upper");
    for path in ["etc/passwd", "srv/made", "srv/made/made"] {
        let meta = fs::metadata(upper.join(path)).expect("written");
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path}");
    }
    assert!(
        fs::read_to_string(layer().join("etc/passwd"))
            .expect("passwd")
            .contains("Web")
    );
    assert!(ask(&mut client, &["get", "80"]).ends_with("hello"));
    assert_eq!(ask(&mut client, &["list", "/sys/class/net"]), "lo\n");
    let calls = ask(&mut client, &["calls"]);
    assert!(
        calls.contains("mount 1\n") && calls.contains("unshare 1\n"),
        "{calls}"
    );
    assert!(rig.log("side").contains(&"ready".to_owned()));
    // It sleeps and wakes as others do.
    client.stop().expect("stop");
    client.start().expect("start");
    assert_eq!(ask(&mut client, &["cat", "/etc/passwd"]), "changed");
}
