//! What containers may more or less than is usual.

use std::fs;
use std::path::Path;

use layby_runtime::client::Client;
use layby_runtime::{ContainerConfig, DeviceConfig, OptionsConfig, UlimitConfig};

use crate::Test;
use crate::rig::{Rig, container, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "capabilities_are_added_and_dropped",
        capabilities_are_added_and_dropped,
    ),
    (
        "programs_that_may_gain_privileges_have_a_filter_all_the_same",
        programs_that_may_gain_privileges_have_a_filter_all_the_same,
    ),
    (
        "an_unconfined_container_has_no_filter",
        an_unconfined_container_has_no_filter,
    ),
    (
        "a_privileged_container_has_all_of_the_machine",
        a_privileged_container_has_all_of_the_machine,
    ),
    (
        "a_read_only_root_cannot_be_written",
        a_read_only_root_cannot_be_written,
    ),
    (
        "limits_and_shares_are_as_asked",
        limits_and_shares_are_as_asked,
    ),
    (
        "kernel_settings_are_the_sandboxs_own",
        kernel_settings_are_the_sandboxs_own,
    ),
    (
        "an_init_passes_signals_on_and_reaps",
        an_init_passes_signals_on_and_reaps,
    ),
    (
        "a_device_is_given_with_its_permissions",
        a_device_is_given_with_its_permissions,
    ),
    (
        "a_device_by_cdi_brings_what_its_file_says",
        a_device_by_cdi_brings_what_its_file_says,
    ),
    ("a_terminals_output_is_logged", a_terminals_output_is_logged),
    (
        "the_machines_namespaces_are_shared_where_asked",
        the_machines_namespaces_are_shared_where_asked,
    ),
    (
        "any_user_may_ping_and_listen_on_low_ports_unless_a_setting_says_otherwise",
        any_user_may_ping_and_listen_on_low_ports_unless_a_setting_says_otherwise,
    ),
    (
        "containers_share_their_processes_where_asked",
        containers_share_their_processes_where_asked,
    ),
    ("nonsense_is_refused_by_name", nonsense_is_refused_by_name),
];

/// Something done to a config.
type Change = fn(&mut ContainerConfig);

const MAP: (u32, u32) = (0x3000_0000, 65_536);

fn rig(mapped: bool, options: OptionsConfig) -> Rig {
    let mut rig = Rig::one(&["polite"], |c| c.options = options);
    rig.spec.id_map = mapped.then_some(MAP);
    rig
}

fn probe(client: &mut Client, arguments: &[&str]) -> (i32, String) {
    let mut argv = vec!["/probe"];
    argv.extend(arguments);
    let result = client.exec("web", &argv, 60_000).expect("exec");
    (result.code, result.output)
}

fn ask(client: &mut Client, arguments: &[&str]) -> String {
    let (code, output) = probe(client, arguments);
    assert_eq!(code, 0, "{arguments:?}: {output}");
    output
}

/// `/proc/PID/status` of the container's init, and of a command in it.
fn statuses(rig: &Rig, client: &mut Client) -> [String; 2] {
    let pid = client.state().expect("state").containers[0]
        .pid
        .expect("a pid");
    rig.wait_for_line("ready");
    let init = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    [init, ask(client, &["cat", "/proc/self/status"])]
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// All capabilities that this test, and what it starts, can have.
fn everything() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.expect("a line").trim().to_owned()
}

fn capabilities_are_added_and_dropped() {
    let everything = everything();
    for mapped in [true, false] {
        for (add, drop, expected) in [
            (
                &["SYS_TIME"][..],
                &["CAP_MKNOD", "chown"][..],
                "00000000a20425fa",
            ),
            (&[], &["ALL"], "0000000000000000"),
            (&["NET_BIND_SERVICE"], &["ALL"], "0000000000000400"),
            (
                &["ALL"],
                &[],
                if mapped {
                    "000001ffffffffff"
                } else {
                    &everything
                },
            ),
        ] {
            let rig = rig(
                mapped,
                OptionsConfig {
                    cap_add: words(add),
                    cap_drop: words(drop),
                    ..OptionsConfig::default()
                },
            );
            let mut client = rig.started();
            for status in statuses(&rig, &mut client) {
                for set in ["CapEff", "CapBnd"] {
                    let line = format!("{set}:\t{expected}");
                    assert!(status.contains(&line), "{line}: {status}");
                }
            }
        }
    }
}

fn programs_that_may_gain_privileges_have_a_filter_all_the_same() {
    for mapped in [true, false] {
        for user in ["", "web"] {
            let mut rig = Rig::one(&["polite"], |c| {
                c.user = user.to_owned();
                c.options.new_privileges = true;
            });
            rig.spec.id_map = mapped.then_some(MAP);
            let mut client = rig.started();
            let [init, _] = statuses(&rig, &mut client);
            let held = if user.is_empty() {
                "00000000a80425fb"
            } else {
                "0000000000000000"
            };
            for line in [
                "NoNewPrivs:\t0".to_owned(),
                "Seccomp:\t2".to_owned(),
                "CapBnd:\t00000000a80425fb".to_owned(),
                format!("CapEff:\t{held}"),
                format!("CapPrm:\t{held}"),
            ] {
                assert!(init.contains(&line), "{line}: {init}");
            }
            // Nor has a command in it more than that.
            let status = ask(&mut client, &["cat", "/proc/self/status"]);
            assert!(status.contains("CapBnd:\t00000000a80425fb"), "{status}");
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
    }
}

fn an_unconfined_container_has_no_filter() {
    let rig = rig(
        true,
        OptionsConfig {
            seccomp_unconfined: true,
            ..OptionsConfig::default()
        },
    );
    let mut client = rig.started();
    for status in statuses(&rig, &mut client) {
        assert!(status.contains("Seccomp:\t0"), "{status}");
    }
    // It may make namespaces.
    let calls = ask(&mut client, &["calls"]);
    assert!(calls.contains("unshare 0\n"), "{calls}");
}

fn a_privileged_container_has_all_of_the_machine() {
    let rig = rig(
        false,
        OptionsConfig {
            privileged: true,
            ..OptionsConfig::default()
        },
    );
    let mut client = rig.started();
    for status in statuses(&rig, &mut client) {
        for line in [
            format!("CapEff:\t{}", everything()),
            "Seccomp:\t0".to_owned(),
        ] {
            assert!(status.contains(&line), "{line}: {status}");
        }
    }
    assert_eq!(
        probe(
            &mut client,
            &["write", "/proc/sys/kernel/hostname", "other"]
        )
        .0,
        0
    );
    let devices = ask(&mut client, &["list", "/dev"]);
    for device in ["kmsg", "null"] {
        let there = Path::new("/dev").join(device).exists();
        assert_eq!(
            devices.lines().any(|line| line == device),
            there,
            "{device}: {devices}"
        );
    }
    drop(rig);
    let error = self::rig(
        true,
        OptionsConfig {
            privileged: true,
            ..OptionsConfig::default()
        },
    )
    .spawn()
    .expect_err("it has no user namespace");
    assert!(error.fatal(), "{error:?}");
}

fn a_read_only_root_cannot_be_written() {
    for mapped in [true, false] {
        let rig = rig(
            mapped,
            OptionsConfig {
                read_only: true,
                ..OptionsConfig::default()
            },
        );
        let mut client = rig.started();
        for path in ["/x", "/etc/passwd"] {
            assert_ne!(probe(&mut client, &["write", path, "x"]).0, 0, "{path}");
        }
        ask(&mut client, &["write", "/dev/shm/x", "x"]);
    }
}

fn limits_and_shares_are_as_asked() {
    let mut options = OptionsConfig {
        shm_size_bytes: Some(3 << 20),
        oom_score_adj: Some(77),
        cpuset: Some("0".to_owned()),
        cpu_shares: Some(333),
        group_add: words(&["logs", "4711"]),
        ..OptionsConfig::default()
    };
    let limit = |soft, hard| UlimitConfig { soft, hard };
    options
        .ulimits
        .insert("nofile".to_owned(), limit(Some(33), Some(44)));
    options
        .ulimits
        .insert("core".to_owned(), limit(Some(0), Some(0)));
    // More than this process may have is brought down to that.
    options
        .ulimits
        .insert("nproc".to_owned(), limit(None, None));
    let rig = rig(true, options);
    let mut client = rig.started();
    for text in [
        ask(&mut client, &["cat", "/proc/self/limits"]),
        ask(&mut client, &["cat", "/proc/1/limits"]),
    ] {
        let line = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .expect(name);
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("Max open files"), "Max open files 33 44 files");
        assert_eq!(line("Max core file size"), "Max core file size 0 0 bytes");
    }
    let [init, _] = statuses(&rig, &mut client);
    assert!(init.contains("Cpus_allowed_list:\t0\n"), "{init}");
    let status = ask(&mut client, &["cat", "/proc/self/status"]);
    assert!(status.contains("Groups:\t77 4711"), "{status}");
    assert_eq!(ask(&mut client, &["cat", "/proc/1/oom_score_adj"]), "77\n");
    let mounts = ask(&mut client, &["cat", "/proc/self/mountinfo"]);
    let shm = mounts
        .lines()
        .find(|line| line.contains(" /dev/shm "))
        .expect("shm");
    assert!(shm.contains("size=3072k"), "{shm}");
    let shares = rig.cgroup_file("cpu", "web", "cpu.shares");
    if shares.exists() {
        assert_eq!(fs::read_to_string(shares).expect("shares"), "333\n");
    }
}

fn kernel_settings_are_the_sandboxs_own() {
    let outside = fs::read_to_string("/proc/sys/kernel/shmmni").expect("a setting");
    for mapped in [true, false] {
        let mut rig = rig(mapped, OptionsConfig::default());
        for (name, value) in [
            ("net.ipv4.ip_default_ttl", "33"),
            ("kernel.shmmni", "77"),
            ("fs.mqueue.msg_max", "9"),
        ] {
            rig.spec.sysctls.insert(name.to_owned(), value.to_owned());
        }
        rig.spec.dns_search = words(&["one.test", "two.test"]);
        rig.spec.dns_options = words(&["ndots:3"]);
        let mut client = rig.started();
        for (path, value) in [
            ("net/ipv4/ip_default_ttl", "33"),
            ("kernel/shmmni", "77"),
            ("fs/mqueue/msg_max", "9"),
        ] {
            let found = ask(&mut client, &["cat", &format!("/proc/sys/{path}")]);
            assert_eq!(found.trim(), value, "{path}");
        }
        assert_eq!(
            ask(&mut client, &["cat", "/etc/resolv.conf"]),
            "nameserver 10.1.2.1\nsearch one.test two.test\noptions ndots:3\n"
        );
    }
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/shmmni").expect("a setting"),
        outside
    );
    let mut rig = rig(true, OptionsConfig::default());
    rig.spec
        .sysctls
        .insert("kernel.panic".to_owned(), "1".to_owned());
    let error = rig.spawn().expect_err("the machine's");
    assert!(error.sentence().contains("kernel.panic"), "{error:?}");
}

fn any_user_may_ping_and_listen_on_low_ports_unless_a_setting_says_otherwise() {
    for mapped in [true, false] {
        let rig = |settings: &[(&str, &str)]| {
            let mut rig = rig(mapped, OptionsConfig::default());
            rig.spec.containers[0].user = "1234:4321".to_owned();
            rig.spec.containers[0].options.cap_drop = words(&["ALL"]);
            for (name, value) in settings {
                let (name, value) = ((*name).to_owned(), (*value).to_owned());
                rig.spec.sysctls.insert(name, value);
            }
            rig
        };
        let usual = rig(&[]);
        let mut client = usual.started();
        assert_eq!(ask(&mut client, &["ping"]), "answered", "mapped: {mapped}");
        assert_eq!(ask(&mut client, &["listen", "80"]), "bound");
        let strict = rig(&[
            ("net.ipv4.ping_group_range", "1 0"),
            ("net.ipv4.ip_unprivileged_port_start", "1024"),
        ]);
        let mut client = strict.started();
        for words in [&["ping"][..], &["listen", "80"]] {
            let said = ask(&mut client, words);
            assert!(said.contains("Permission denied"), "{words:?}: {said}");
        }
    }
}

fn an_init_passes_signals_on_and_reaps() {
    for mapped in [true, false] {
        let rig = rig(
            mapped,
            OptionsConfig {
                init: true,
                ..OptionsConfig::default()
            },
        );
        let mut client = rig.started();
        rig.wait_for_line("ready");
        assert_eq!(ask(&mut client, &["cat", "/proc/1/comm"]), "init\n");
        ask(&mut client, &["orphan"]);
        wait_for("the orphan to be reaped", || {
            ask(&mut client, &["zombies"]) == "0"
        });
        let state = client.stop().expect("stop");
        assert_eq!(state.containers[0].last_exit.expect("an exit").code, 42);
    }
    let mut rig = Rig::one(&["exit", "7"], |c| c.options.init = true);
    rig.spec.id_map = Some(MAP);
    let mut client = rig.started();
    wait_for("the end", || {
        let exit = client.state().expect("state").containers[0].last_exit;
        exit.is_some_and(|exit| exit.code == 7)
    });
    let rig = Rig::one(&[], |c| {
        c.argv = vec!["/nope".to_owned()];
        c.options.init = true;
    });
    let error = rig.prepared().start().expect_err("no such program");
    assert!(
        error.fatal() && error.sentence().contains("/nope"),
        "{error:?}"
    );
}

fn a_device_is_given_with_its_permissions() {
    for mapped in [true, false] {
        let rig = rig(
            mapped,
            OptionsConfig {
                devices: vec![
                    DeviceConfig {
                        source: "/dev/zero".to_owned(),
                        target: "/dev/mine/zero".to_owned(),
                        permissions: "rw".to_owned(),
                    },
                    DeviceConfig {
                        source: "/dev/fuse".to_owned(),
                        target: "/dev/fuse".to_owned(),
                        permissions: "r".to_owned(),
                    },
                ],
                ..OptionsConfig::default()
            },
        );
        let mut client = rig.started();
        assert_eq!(ask(&mut client, &["owner", "/dev/mine/zero"]), "0 0 666");
        ask(&mut client, &["open", "/dev/mine/zero", "rw"]);
        ask(&mut client, &["open", "/dev/fuse", "r"]);
        assert_ne!(probe(&mut client, &["open", "/dev/fuse", "rw"]).0, 0);
    }
    let rig = rig(
        true,
        OptionsConfig {
            devices: vec![DeviceConfig {
                source: "/dev/no-such-device".to_owned(),
                target: "/dev/x".to_owned(),
                permissions: "rwm".to_owned(),
            }],
            ..OptionsConfig::default()
        },
    );
    let error = rig.spawn().expect_err("no such device");
    assert!(
        error.fatal() && error.sentence().contains("no-such-device"),
        "{error:?}"
    );
}

/// A file in `/etc/cdi`, which goes with this.
struct CdiFile {
    path: std::path::PathBuf,
    made_dir: bool,
}

impl CdiFile {
    fn new(text: &str) -> Self {
        let dir = Path::new("/etc/cdi");
        let made_dir = !dir.exists();
        fs::create_dir_all(dir).expect("a directory");
        let path = dir.join(format!("layby-test-{}.yaml", std::process::id()));
        fs::write(&path, text).expect("a file");
        Self { path, made_dir }
    }
}

impl Drop for CdiFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if self.made_dir {
            let _ = fs::remove_dir("/etc/cdi");
        }
    }
}

fn a_device_by_cdi_brings_what_its_file_says() {
    let library = tempfile::NamedTempFile::new().expect("a file");
    fs::write(library.path(), "a library").expect("written");
    let kind = format!("layby.test/gpu{}", std::process::id());
    let _file = CdiFile::new(&format!(
        "cdiVersion: 0.6.0\nkind: {kind}\ncontainerEdits:\n  env: [DRIVER=1]\ndevices:\n  - name: one\n    \
         containerEdits:\n      deviceNodes:\n        - {{path: /dev/gpu0, hostPath: /dev/null}}\n      mounts:\n        \
         - {{hostPath: {}, containerPath: /usr/lib/gpu.so, options: [ro, bind]}}\n      additionalGids: [4711]\n",
        library.path().display()
    ));
    for mapped in [true, false] {
        let rig = rig(
            mapped,
            OptionsConfig {
                cdi_devices: vec![format!("{kind}=one")],
                ..OptionsConfig::default()
            },
        );
        let mut client = rig.started();
        ask(&mut client, &["write", "/dev/gpu0", "calculate"]);
        assert_eq!(ask(&mut client, &["cat", "/dev/gpu0"]), "");
        assert_eq!(ask(&mut client, &["cat", "/usr/lib/gpu.so"]), "a library");
        assert!(
            ask(&mut client, &["env"])
                .lines()
                .any(|line| line == "DRIVER=1")
        );
        let status = ask(&mut client, &["cat", "/proc/self/status"]);
        assert!(status.contains("Groups:\t4711"), "{status}");
    }
}

fn a_terminals_output_is_logged() {
    for mapped in [true, false] {
        let mut rig = Rig::one(&["terminal"], |c| c.options.tty = true);
        rig.spec.id_map = mapped.then_some(MAP);
        let mut client = rig.started();
        wait_for("the end", || {
            client.state().expect("state").containers[0]
                .last_exit
                .is_some()
        });
        let log = rig.log("web");
        assert!(
            matches!(&log[..], [line] if line.starts_with("true ") && line.ends_with(" true")),
            "{log:?}"
        );
    }
    // One that runs on, and is started again.
    let rig = rig(
        true,
        OptionsConfig {
            tty: true,
            ..OptionsConfig::default()
        },
    );
    let mut client = rig.started();
    rig.wait_for_line("ready");
    client.stop().expect("stop");
    client.start().expect("start");
    wait_for("both lines", || rig.log("web") == ["ready", "ready"]);
}

fn the_machines_namespaces_are_shared_where_asked() {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    let mut rig = rig(false, OptionsConfig::default());
    (rig.spec.host_pid, rig.spec.host_ipc) = (true, true);
    let mut client = rig.started();
    let pid = client.state().expect("state").containers[0]
        .pid
        .expect("a pid");
    for kind in ["pid", "ipc"] {
        let found = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(found, own(kind), "{kind}");
    }
    let mine = std::process::id().to_string();
    assert!(
        ask(&mut client, &["list", "/proc"])
            .lines()
            .any(|line| line == mine)
    );
    assert_eq!(client.stop().expect("stop").containers[0].pid, None);
    drop(rig);
    let mut rig = self::rig(true, OptionsConfig::default());
    rig.spec.host_pid = true;
    assert!(rig.spawn().expect_err("no user namespace").fatal());
}

/// Whether the next container of this name stands created.
fn waits(rig: &Rig, name: &str) -> bool {
    let pids =
        fs::read_to_string(rig.cgroup_file("pids", name, "cgroup.procs")).unwrap_or_default();
    pids.lines().any(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.contains("INIT"))
    })
}

fn containers_share_their_processes_where_asked() {
    for mapped in [true, false] {
        for share in [true, false] {
            let mut rig = Rig::of(vec![
                container("web", &["polite"]),
                container("side", &["polite"]),
            ]);
            rig.spec.id_map = mapped.then_some(MAP);
            rig.spec.share_pid = share;
            let mut client = rig.started();
            // Created in advance, too.
            for _ in 0..2 {
                let state = client.state().expect("state");
                let namespaces = state.containers.iter().map(|container| {
                    let pid = container.pid.expect("a pid");
                    let link = |kind: &str| {
                        fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a link")
                    };
                    (link("pid"), link("mnt"), link("user"))
                });
                let namespaces: Vec<_> = namespaces.collect();
                assert_eq!(namespaces[0].0 == namespaces[1].0, share);
                assert_ne!(namespaces[0].1, namespaces[1].1);
                assert!(
                    mapped
                        != (namespaces[0].2
                            == fs::read_link("/proc/self/ns/user").expect("a link"))
                );
                let result = client
                    .exec("side", &["/probe", "list", "/proc"], 60_000)
                    .expect("exec");
                let seen = result
                    .output
                    .lines()
                    .filter(|line| line.parse::<u32>().is_ok())
                    .count();
                assert!(seen == if share { 3 } else { 2 }, "{result:?}");
                wait_for("both to be ready", || {
                    rig.log("web").last().is_some_and(|line| line == "ready")
                        && rig.log("side").last().is_some_and(|line| line == "ready")
                });
                let state = client.stop().expect("stop");
                assert!(state.containers.iter().all(|c| c.pid.is_none()));
                for name in ["web", "side"] {
                    wait_for("an init that waits", || waits(&rig, name));
                }
                client.start().expect("start");
            }
        }
    }
}

fn nonsense_is_refused_by_name() {
    let changes: [(Change, &str); 7] = [
        (|c| c.options.cap_add = words(&["FLY"]), "FLY"),
        (|c| c.options.oom_score_adj = Some(2000), "2000"),
        (|c| c.options.cpuset = Some("all".to_owned()), "all"),
        (|c| c.options.cpuset = Some("4095".to_owned()), "4095"),
        (|c| c.options.group_add = words(&["strangers"]), "strangers"),
        (
            |c| {
                c.options
                    .ulimits
                    .insert("wings".to_owned(), UlimitConfig::default());
            },
            "wings",
        ),
        (
            |c| c.options.cdi_devices = words(&["vendor.test/none=0"]),
            "vendor.test/none=0",
        ),
    ];
    for (change, told) in changes {
        let mut config = container("web", &["polite"]);
        change(&mut config);
        let rig = Rig::of(vec![config]);
        let error = match rig.spawn() {
            Err(error) => error,
            Ok(()) => rig.client().start().expect_err("it is refused"),
        };
        assert!(
            error.fatal() && error.sentence().contains(told),
            "{told}: {error:?}"
        );
    }
}
