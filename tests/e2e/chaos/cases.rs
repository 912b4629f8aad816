//! The cases, and how each is played.

use std::fmt;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::left::shim_of;
use super::shop::Shop;

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Case {
    /// The node is killed when it comes to a fail point for so many times.
    At(&'static str, u32),
    /// kill -9 of a shim.
    Shim,
    /// kill -9 of the program in a replica.
    Replica,
    /// The disk is full for a while, and the node dies meanwhile.
    FullDisk,
    /// The wall clock jumps by so many seconds, and back.
    Clock(i64),
    /// Each access of the store takes so many milliseconds longer.
    SlowStore(u32),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(point, time) => f.pad(&format!("kill at {point}:{time}")),
            Self::Shim => f.pad("kill of a shim"),
            Self::Replica => f.pad("kill of a replica"),
            Self::FullDisk => f.pad("full disk"),
            Self::Clock(seconds) => f.pad(&format!("clock jump of {seconds} s")),
            Self::SlowStore(ms) => f.pad(&format!("store slower by {ms} ms")),
        }
    }
}

/// One of each kind, and the points between which the most can be lost.
pub(super) fn share() -> Vec<Case> {
    vec![
        Case::At("after-store", 16),
        Case::At("after-publish", 2),
        Case::At("after-spawn", 1),
        Case::At("before-remove", 1),
        Case::At("after-order", 1),
        Case::At("after-rekey", 1),
        Case::Shim,
        Case::Replica,
        Case::Clock(-3600),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    // Of the store every single access of the script, on either side.
    for time in 1..=40 {
        cases.push(Case::At("after-store", time));
        if time % 3 == 0 {
            cases.push(Case::At("before-store", time));
        }
    }
    for (point, times) in [
        ("after-publish", 8),
        ("after-swap", 6),
        ("after-apply", 8),
        ("after-record", 3),
        ("after-attach", 3),
        ("after-spawn", 3),
        ("after-start", 3),
        ("after-freeze", 1),
        ("after-thaw", 1),
        ("after-stop", 1),
        ("before-remove", 3),
        ("after-remove", 3),
        ("after-run", 1),
        ("after-attempt", 1),
        ("after-order", 1),
        ("after-launch", 1),
        ("after-settle", 1),
        ("after-keep", 1),
        ("after-pin", 3),
        ("after-reveal", 3),
        ("after-next-key", 1),
        ("after-rekey", 1),
    ] {
        cases.extend((1..=times).map(|time| Case::At(point, time)));
    }
    cases.extend([
        Case::Shim,
        Case::Replica,
        Case::FullDisk,
        Case::Clock(3600),
        Case::Clock(-3600),
        Case::SlowStore(150),
    ]);
    cases
}

impl Case {
    /// Plays it; gives what happened.
    pub(super) fn play(&self, shop: &mut Shop) -> String {
        match self {
            Self::At(point, time) => {
                if !shop.begin_anew(vec![("LAYBY_FAIL_AT", format!("{point}:{time}"))]) {
                    return "died while it was to start".to_owned();
                }
                let steps = steps_to(point);
                let step = script(shop, steps);
                assert!(step < steps.len(), "{self}: the node never came to it");
                format!("died while it was to {}", steps[step].0)
            }
            Self::Shim => {
                let replicas = shop.replicas();
                let replica = replicas.first().expect("a replica");
                let pid = shim_of(&shop.node, replica).expect("a shim");
                shop.forgive(); // the only replica goes in the midst of requests
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
                shop.node
                    .wait_for("another replica", |_| !shop.replicas().contains(replica));
                "another replica took its place".to_owned()
            }
            Self::Replica => {
                let pids = shop.node.pids("web");
                let pid = i32::try_from(*pids.first().expect("a process")).expect("a pid");
                shop.forgive();
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
                shop.node.wait_for("another process", |node| {
                    let now = node.pids("web");
                    !now.is_empty() && !now.contains(&i64::from(pid))
                });
                "it was started again".to_owned()
            }
            Self::FullDisk => {
                shop.fill_disk();
                assert!(!shop.deploy(), "a deploy on a full disk");
                assert!(!shop.set_secret(), "a secret on a full disk");
                assert!(!shop.run_job(), "a job on a full disk");
                shop.kill();
                assert!(shop.begin_anew(Vec::new()), "{self}");
                shop.ask();
                shop.free_disk();
                assert!(shop.deploy(), "a deploy once there is room");
                shop.excuse_runs();
                assert_eq!(script(shop, &WORK), WORK.len(), "{self}");
                "it served on, and all went on once there was room".to_owned()
            }
            Self::Clock(seconds) => {
                let file = shop.node.data.path().join("clock");
                fs::write(&file, "0").expect("written");
                let orders = vec![("LAYBY_FAIL_CLOCK", file.display().to_string())];
                assert!(shop.begin_anew(orders), "{self}");
                assert!(shop.deploy());
                fs::write(&file, seconds.to_string()).expect("written");
                assert_eq!(script(shop, &STEPS), STEPS.len(), "{self}");
                assert_eq!(script(shop, &WORK), WORK.len(), "{self}");
                fs::write(&file, "0").expect("written");
                assert!(shop.deploy() && shop.run(&["history", "web"]) && shop.run(&["events"]));
                fs::remove_file(&file).expect("removed");
                "all went on".to_owned()
            }
            Self::SlowStore(ms) => {
                let orders = vec![("LAYBY_FAIL_STORE_MS", ms.to_string())];
                assert!(shop.begin_anew(orders), "{self}");
                assert_eq!(script(shop, &STEPS), STEPS.len(), "{self}");
                assert_eq!(script(shop, &WORK), WORK.len(), "{self}");
                let took_ms = shop.ask();
                assert!(took_ms < u128::from(*ms), "a request took {took_ms} ms");
                format!("all went on, a request took {took_ms} ms")
            }
        }
    }
}

/// A step of the script, and whether it was said to be done.
type Step = (&'static str, fn(&mut Shop) -> bool);

/// Falls asleep in memory and wakes, again and again.
const REST: [Step; 1] = [("doze and be woken", |shop| {
    (0..50).all(|_| shop.run(&["doze", "web"]) && shop.is_woken())
})];

/// What is done to the service while the node is to fail: all kinds of steps are in it.
const STEPS: [Step; 7] = [
    ("deploy", Shop::deploy),
    ("doze", |shop| shop.run(&["doze", "web"])),
    ("sleep", |shop| shop.run(&["sleep", "web"])),
    ("scale up", |shop| shop.scale(2)),
    ("deploy again", Shop::deploy),
    ("scale down", |shop| shop.scale(1)),
    ("change the power", |shop| {
        // Another one each time.
        let next = shop.other_power();
        shop.power(next)
    }),
];

/// The same with its job and its secret, which both have; the last two open what the new key has closed.
const WORK: [Step; 5] = [
    ("set a secret", Shop::set_secret),
    ("run a job", Shop::run_job),
    ("change the key", Shop::rotate_key),
    ("run a job again", Shop::run_job),
    ("deploy", Shop::deploy),
];

/// The script in which a node comes to a fail point.
fn steps_to(point: &str) -> &'static [Step] {
    const OF_WORK: [&str; 10] = [
        "after-run",
        "after-attempt",
        "after-order",
        "after-launch",
        "after-settle",
        "after-keep",
        "after-pin",
        "after-reveal",
        "after-next-key",
        "after-rekey",
    ];
    match (OF_WORK.contains(&point), point) {
        (true, _) => &WORK,
        // A request that comes as it falls asleep keeps it awake: it is tried again and again.
        (false, "after-thaw") => &REST,
        (false, _) => &STEPS,
    }
}

/// Plays a script until the node dies; gives the step that it died in, or their number.
fn script(shop: &mut Shop, steps: &[Step]) -> usize {
    for (n, (what, step)) in steps.iter().enumerate() {
        let done = step(shop);
        // Its end is seen at its other end a moment before it is over.
        if shop.has_died() || !done && shop.dies() {
            return n;
        }
        assert!(
            done,
            "the node lives, and did not {what}:\n{}",
            shop.node.story()
        );
    }
    steps.len()
}
