//! What fits into the machine: what services keep to themselves, against what there is.
//!
//! A service keeps, for each of its replicas, the memory that it asks for, else that of its power; and the CPU that it asks
//! for. What a power gives of CPU is a most, and shared. Who sleeps may wake, and counts; who is disabled does not. A run of a
//! job keeps the same for each attempt that may go on at a time, from when it begins until it is over; one that waits keeps
//! nothing. Each of them needs an address of its network as well, unless it has none of its own.

mod addresses;

use std::fmt;

pub use addresses::short_of_addresses;

use crate::job::RunId;
use crate::names::ServiceId;
use crate::power;
use crate::spec::{ContainerSpec, Resources, ServiceSpec};

/// So many of those that take the most are named.
const NAMED: usize = 3;

/// What there is to give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Its memory, or what the node's containers may use of it, in bytes.
    pub memory_bytes: u64,
    /// Its CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// How many replicas can be in the same networks of an app.
    pub addresses: u32,
}

/// Who keeps something to itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A service.
    Service(ServiceId),
    /// A run of a job or a service; `None`: one that is to be made.
    Run(ServiceId, Option<RunId>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => id.fmt(f),
            Self::Run(id, Some(run)) => write!(f, "run {run} of {id}"),
            Self::Run(id, None) => write!(f, "a run of {id}"),
        }
    }
}

/// What a service or a run keeps to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub holder: Holder,
    /// How many replicas it may have.
    pub replicas: u32,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// CPU of each, in thousandths of a core.
    pub cpu_milli: u64,
    /// The networks of its app that they are in, by the name of their range; `None`: in none of them, so that they need no
    /// address.
    pub network: Option<String>,
    /// So many replicas of before stand beside them there until they are ready.
    pub beside: u32,
}

impl Claim {
    /// What a service keeps to itself with so many replicas.
    pub fn of(service: ServiceId, spec: &ServiceSpec, replicas: u32) -> Self {
        Self::by(Holder::Service(service), spec, replicas)
    }

    /// What a run keeps to itself.
    pub fn of_run(of: ServiceId, run: Option<RunId>, spec: &ServiceSpec) -> Self {
        let job = spec.job.as_ref();
        let attempts = job.map_or(1, |job| job.parallelism.min(job.completions).max(1));
        Self::by(Holder::Run(of, run), spec, attempts)
    }

    fn by(holder: Holder, spec: &ServiceSpec, replicas: u32) -> Self {
        // Those that run before the others run alone, one after another.
        let sum = |of: &dyn Fn(usize, &ContainerSpec) -> Option<u64>| {
            let each = spec.containers.iter().enumerate();
            let together = each
                .filter_map(|(n, container)| of(n, container))
                .fold(0, u64::saturating_add);
            let before = spec.init.iter().filter_map(|c| of(usize::MAX, c)).max();
            together.max(before.unwrap_or(0))
        };
        let (Holder::Service(id) | Holder::Run(id, _)) = &holder;
        Self {
            network: (spec.sandbox.network.is_own()).then(|| spec.networks.key(&id.app)),
            beside: 0,
            holder,
            replicas,
            memory_bytes: sum(&|n, container| {
                let limit = container.resources.memory_limit_bytes;
                // A power is that of the first container.
                let by_power = limit.filter(|_| n == 0 && spec.power.is_some());
                let asked = container.resources.memory_request_bytes;
                at_most(asked.or(by_power), limit)
            }),
            cpu_milli: sum(&|_, container| {
                let Resources {
                    cpu_request_milli,
                    cpu_limit_milli,
                    ..
                } = container.resources;
                at_most(cpu_request_milli, cpu_limit_milli)
            }),
        }
    }
}

/// Nobody keeps more than it may use.
fn at_most(asked: Option<u64>, limit: Option<u64>) -> Option<u64> {
    Some(asked?.min(limit.unwrap_or(u64::MAX)))
}

/// One of the two things that are given away.
#[derive(Clone, Copy)]
struct Thing {
    what: &'static str,
    each: fn(&Claim) -> u64,
    there: fn(&Machine) -> u64,
    figure: fn(u64) -> String,
}

const THINGS: [Thing; 2] = [
    Thing {
        what: "memory",
        each: |claim| claim.memory_bytes,
        there: |machine| machine.memory_bytes,
        figure: power::memory,
    },
    Thing {
        what: "CPU",
        each: |claim| claim.cpu_milli,
        there: |machine| machine.cpu_milli,
        figure: power::cpu,
    },
];

impl Thing {
    fn of(self, claim: &Claim) -> u64 {
        (self.each)(claim).saturating_mul(u64::from(claim.replicas))
    }

    fn sum<'a>(self, claims: impl Iterator<Item = &'a Claim>) -> u64 {
        claims
            .map(|claim| self.of(claim))
            .fold(0, u64::saturating_add)
    }

    /// `shop/web 4 GB`, or `shop/web 3 x 2 GB`.
    fn told(self, claim: &Claim) -> String {
        let each = (self.figure)((self.each)(claim));
        match claim.replicas {
            1 => format!("{} {each}", claim.holder),
            n => format!("{} {n} x {each}", claim.holder),
        }
    }
}

/// Why what is asked for does not fit into the machine, with the sum; `None`: it fits.
///
/// `claims` are those of all services that are enabled as they are now, and of all runs that have begun; `asked` what is to
/// be instead of those of the same holders, or beside them. What takes no more than before is never refused, however full the machine is.
pub fn shortage(machine: &Machine, claims: &[Claim], asked: &[Claim]) -> Option<String> {
    let is_asked = |claim: &&Claim| asked.iter().any(|new| new.holder == claim.holder);
    let short = |thing: Thing| {
        let there = (thing.there)(machine);
        let others: Vec<&Claim> = claims.iter().filter(|claim| !is_asked(claim)).collect();
        let before = thing.sum(claims.iter());
        let kept = thing.sum(others.iter().copied());
        let new = thing.sum(asked.iter());
        let sum = kept.saturating_add(new);
        (sum > there && sum > before).then(|| told(thing, there, kept, new, &others, asked))
    };
    let all: Vec<String> = (THINGS.into_iter().filter_map(short))
        .chain(short_of_addresses(machine, claims, asked))
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// The most replicas up to `wanted`, and no fewer than `least`, with which a service fits into the machine; and why not more.
///
/// `service` is what it keeps to itself with any number of them, `claims` as for [`shortage`].
pub fn most(
    machine: &Machine,
    claims: &[Claim],
    service: &Claim,
    least: u32,
    wanted: u32,
) -> (u32, Option<String>) {
    let short = |replicas: u32| {
        let asked = Claim {
            replicas,
            ..service.clone()
        };
        shortage(machine, claims, &[asked])
    };
    let Some(why) = short(wanted) else {
        return (wanted, None);
    };
    // What fits with more fits with fewer.
    let (mut fits, mut is_too_many) = (least, wanted.max(least));
    while is_too_many - fits > 1 {
        let middle = fits + (is_too_many - fits) / 2;
        match short(middle) {
            None => fits = middle,
            Some(_) => is_too_many = middle,
        }
    }
    (fits, Some(why))
}

fn told(
    thing: Thing,
    there: u64,
    kept: u64,
    new: u64,
    others: &[&Claim],
    asked: &[Claim],
) -> String {
    let Thing { what, figure, .. } = thing;
    let asking: Vec<&Claim> = asked.iter().filter(|claim| thing.of(claim) > 0).collect();
    let mut text = format!(
        "there is too little {what} for {}: with the {} of the others that is {}, and the machine has {}",
        largest(thing, &asking),
        figure(kept),
        figure(kept.saturating_add(new)),
        figure(there),
    );
    let others: Vec<&Claim> = (others.iter().copied())
        .filter(|claim| thing.of(claim) > 0)
        .collect();
    if !others.is_empty() {
        text.push_str(&format!(" (most of it: {})", largest(thing, &others)));
    }
    text
}

/// Those that take the most, the largest first.
fn largest(thing: Thing, claims: &[&Claim]) -> String {
    let mut sorted = claims.to_vec();
    sorted.sort_by_key(|claim| (std::cmp::Reverse(thing.of(claim)), &claim.holder));
    let mut texts: Vec<String> = (sorted.iter().take(NAMED))
        .map(|claim| thing.told(claim))
        .collect();
    let more = sorted.len().saturating_sub(NAMED);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join(", ")
}

/// A warning for each container that may use more than there is of it: that limit limits nothing.
pub fn idle_limits(machine: &Machine, service: &ServiceId, spec: &ServiceSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    for container in spec.all_containers() {
        let limits = [
            (THINGS[0], container.resources.memory_limit_bytes),
            (THINGS[1], container.resources.cpu_limit_milli),
        ];
        for (thing, limit) in limits {
            let there = (thing.there)(machine);
            if let Some(limit) = limit.filter(|limit| *limit > there) {
                warnings.push(format!(
                    "{service}: its container {} may use {} of {}, and the machine has {}: that limits nothing",
                    container.name,
                    (thing.figure)(limit),
                    thing.what,
                    (thing.figure)(there)
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;
    use crate::names::ServiceName;

    const GIB: u64 = 1 << 30;

    const MACHINE: Machine = Machine {
        memory_bytes: 8 * GIB,
        cpu_milli: 2_000,
        addresses: 2_000,
    };

    fn id(name: &str) -> ServiceId {
        name.parse().expect("an id")
    }

    fn claim(name: &str, replicas: u32, memory_bytes: u64, cpu_milli: u64) -> Claim {
        Claim {
            network: Some(id(name).app.to_string()),
            beside: 0,
            holder: Holder::Service(id(name)),
            replicas,
            memory_bytes,
            cpu_milli,
        }
    }

    fn spec(power: Option<&str>, resources: &[Resources]) -> ServiceSpec {
        let container = |resources: &Resources| ContainerSpec {
            resources: *resources,
            ..ContainerSpec::new("main", "image")
        };
        ServiceSpec {
            containers: resources.iter().map(container).collect(),
            power: power.map(str::to_owned),
            ..ServiceSpec::new(ServiceName::new("web").expect("a label"))
        }
    }

    #[test]
    fn a_replica_keeps_what_it_asks_for_else_the_memory_of_its_power() {
        let limit = Resources {
            memory_limit_bytes: Some(GIB),
            cpu_limit_milli: Some(500),
            ..Resources::default()
        };
        let asks = Resources {
            memory_request_bytes: Some(GIB / 4),
            cpu_request_milli: Some(100),
            ..limit
        };
        let more = Resources {
            memory_request_bytes: Some(2 * GIB),
            cpu_request_milli: Some(700),
            ..limit
        };
        for (power, resources, memory, cpu) in [
            (None, vec![Resources::default()], 0, 0),
            (None, vec![limit], 0, 0),
            (Some("small"), vec![limit], GIB, 0),
            (Some("small"), vec![limit, limit], GIB, 0),
            (Some("small"), vec![asks], GIB / 4, 100),
            (None, vec![asks, asks, limit], GIB / 2, 200),
            (Some("small"), vec![more], GIB, 500),
        ] {
            let is = Claim::of(id("shop/web"), &spec(power, &resources), 3);
            assert_eq!(
                is,
                claim("shop/web", 3, memory, cpu),
                "{power:?} {resources:?}"
            );
        }
    }

    #[test]
    fn what_fits_to_the_last_byte_fits() {
        let others = [claim("shop/db", 1, 5 * GIB, 1_000)];
        let fits = |memory, cpu| shortage(&MACHINE, &others, &[claim("shop/web", 3, memory, cpu)]);
        assert_eq!(fits(GIB, 333), None);
        assert!(fits(GIB + 1, 333).is_some());
        assert!(fits(GIB, 334).is_some());
        assert_eq!(shortage(&MACHINE, &[], &[]), None);
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_sum_and_who_takes_the_most() {
        let others = [
            claim("a/a", 1, GIB / 2, 0),
            claim("b/b", 2, GIB, 0),
            claim("c/c", 1, 4 * GIB, 0),
            claim("d/d", 1, GIB / 4, 1_500),
            claim("shop/web", 1, GIB, 0),
        ];
        let asked = [claim("shop/web", 3, GIB, 250), claim("shop/idle", 1, 0, 0)];
        assert_eq!(
            shortage(&MACHINE, &others, &asked).as_deref(),
            Some(
                "there is too little memory for shop/web 3 x 1 GB: with the 6.8 GB of the others that is 9.8 GB, and the \
                 machine has 8 GB (most of it: c/c 4 GB, b/b 2 x 1 GB, a/a 512 MB, 1 more); there is too little CPU for \
                 shop/web 3 x 0.25: with the 1.5 of the others that is 2.25, and the machine has 2 (most of it: d/d 1.5)"
            )
        );
        let alone = shortage(&MACHINE, &[], &[claim("shop/web", 1, 9 * GIB, 0)]);
        let text = "there is too little memory for shop/web 9 GB: with the 0 MB of the others that is 9 GB, and the machine has 8 GB";
        assert_eq!(alone.as_deref(), Some(text));
    }

    #[test]
    fn a_run_keeps_what_its_attempts_may_take_at_a_time_beside_its_service() {
        let resources = Resources {
            memory_request_bytes: Some(GIB),
            ..Resources::default()
        };
        let job = |completions, parallelism| {
            let spec = spec(None, &[resources]);
            let job = JobSpec {
                completions,
                parallelism,
                ..JobSpec::default()
            };
            ServiceSpec {
                job: Some(job),
                ..spec
            }
        };
        let claim_of = |run, spec: &ServiceSpec| Claim::of_run(id("shop/web"), run, spec);
        for (completions, parallelism, attempts) in [(1, 1, 1), (6, 4, 4), (2, 4, 2), (1, 0, 1)] {
            let claim = claim_of(Some(RunId(1)), &job(completions, parallelism));
            assert_eq!((claim.replicas, claim.memory_bytes), (attempts, GIB));
        }
        let one_off = claim_of(None, &spec(None, &[resources]));
        assert_eq!(one_off.replicas, 1);
        let begun = [
            claim("shop/web", 2, 2 * GIB, 0),
            claim_of(Some(RunId(1)), &job(3, 3)),
        ];
        let more = claim_of(None, &job(1, 1));
        assert_eq!(
            shortage(&MACHINE, &begun, std::slice::from_ref(&more)),
            None
        );
        let text = "there is too little memory for a run of shop/web 2 x 1 GB: with the 7 GB of the others that is 9 GB, \
             and the machine has 8 GB (most of it: shop/web 2 x 2 GB, run 1 of shop/web 3 x 1 GB)";
        let two = claim_of(None, &job(2, 2));
        assert_eq!(shortage(&MACHINE, &begun, &[two]).as_deref(), Some(text));
    }

    #[test]
    fn on_a_machine_that_is_too_full_already_nothing_is_refused_that_takes_no_more() {
        let others = [
            claim("shop/web", 3, 3 * GIB, 0),
            claim("shop/db", 1, GIB, 0),
        ];
        for (asked, fits) in [
            (claim("shop/web", 3, 3 * GIB, 0), true),
            (claim("shop/web", 2, 3 * GIB, 0), true),
            (claim("shop/new", 1, 0, 0), true),
            (claim("shop/new", 1, 1, 0), false),
            (claim("shop/db", 2, GIB, 0), false),
        ] {
            let short = shortage(&MACHINE, &others, std::slice::from_ref(&asked));
            assert_eq!(short.is_none(), fits, "{asked:?}: {short:?}");
        }
    }

    #[test]
    fn as_many_are_given_as_fit_and_none_is_taken_away() {
        let others = [
            claim("shop/db", 1, 5 * GIB, 0),
            claim("shop/web", 1, GIB, 0),
        ];
        let web = claim("shop/web", 1, GIB, 0);
        for (least, wanted, given) in [(1, 2, 2), (1, 3, 3), (1, 4, 3), (1, 1_000, 3), (4, 9, 4)] {
            let (is, why) = most(&MACHINE, &others, &web, least, wanted);
            assert_eq!(
                (is, why.is_none()),
                (given, given == wanted),
                "{least} {wanted}"
            );
        }
    }

    #[test]
    fn sums_that_no_number_holds_are_too_much_and_not_little() {
        let huge = claim("shop/web", u32::MAX, u64::MAX, u64::MAX);
        assert!(shortage(&MACHINE, &[], std::slice::from_ref(&huge)).is_some());
    }

    #[test]
    fn a_limit_above_what_there_is_is_a_warning() {
        let wide = Resources {
            memory_limit_bytes: Some(16 * GIB),
            cpu_limit_milli: Some(4_000),
            ..Resources::default()
        };
        let said = idle_limits(&MACHINE, &id("shop/web"), &spec(Some("huge"), &[wide]));
        let should = [
            "shop/web: its container main may use 16 GB of memory, and the machine has 8 GB: that limits nothing",
            "shop/web: its container main may use 4 of CPU, and the machine has 2: that limits nothing",
        ];
        assert_eq!(said, should);
        let none = idle_limits(
            &MACHINE,
            &id("shop/web"),
            &spec(None, &[Resources::default()]),
        );
        assert_eq!(none, [] as [String; 0]);
    }
}
