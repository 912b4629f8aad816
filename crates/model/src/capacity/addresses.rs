//! How many replicas the networks of an app have addresses for. Each of its sets of networks has a range of its own, so that what
//! other apps have does not matter.

use std::collections::BTreeSet;

use super::{Claim, Holder, Machine, NAMED};

/// Why the networks that `asked` are in have too few addresses for all who are to be there, with the sum; `None`: they have
/// enough. `claims` and `asked` as for [`shortage`](super::shortage); what stands beside others of `asked` while those are
/// started ([`Claim::beside`]) needs addresses, too.
pub fn short_of_addresses(machine: &Machine, claims: &[Claim], asked: &[Claim]) -> Option<String> {
    let networks = asked.iter().filter_map(|claim| claim.network.as_deref());
    let networks: BTreeSet<&str> = networks.collect();
    let short = |network: &str| {
        let in_it = |claim: &&Claim| claim.network.as_deref() == Some(network);
        let is_asked = |holder: &Holder| asked.iter().any(|new| new.holder == *holder);
        let before = sum(claims.iter().filter(in_it));
        let kept = sum(claims
            .iter()
            .filter(in_it)
            .filter(|claim| !is_asked(&claim.holder)));
        let new: Vec<&Claim> = asked.iter().filter(in_it).collect();
        let all = kept.saturating_add(sum(new.iter().copied()));
        let there = u64::from(machine.addresses);
        (all > there && all > before).then(|| told(network, there, kept, all, &new))
    };
    let texts: Vec<String> = networks.into_iter().filter_map(short).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn sum<'a>(claims: impl Iterator<Item = &'a Claim>) -> u64 {
    claims.map(of).sum()
}

fn of(claim: &Claim) -> u64 {
    u64::from(claim.replicas) + u64::from(claim.beside)
}

fn told(network: &str, there: u64, kept: u64, all: u64, new: &[&Claim]) -> String {
    let mut largest = new.to_vec();
    largest.sort_by_key(|claim| (std::cmp::Reverse(of(claim)), &claim.holder));
    let mut names: Vec<String> = largest
        .iter()
        .take(NAMED)
        .map(|claim| name(claim))
        .collect();
    if largest.len() > NAMED {
        names.push(format!("{} more", largest.len() - NAMED));
    }
    let others = match kept {
        0 => String::new(),
        _ => format!(": with the {kept} of the others that is {all}"),
    };
    format!(
        "the network {network} has addresses for {there} replicas, too few for {}{others}",
        names.join(", ")
    )
}

/// `3 replicas of shop/web`, or `3 replicas of shop/web and the 3 before them`.
fn name(claim: &Claim) -> String {
    let Claim {
        holder,
        replicas,
        beside,
        ..
    } = claim;
    let noun = match replicas {
        1 => "replica",
        _ => "replicas",
    };
    match beside {
        0 => format!("{replicas} {noun} of {holder}"),
        _ => format!("{replicas} {noun} of {holder} and the {beside} before them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceId;
    use crate::options::NetworkMode;
    use crate::spec::ServiceSpec;

    const MACHINE: Machine = Machine {
        memory_bytes: 0,
        cpu_milli: 0,
        addresses: 253,
    };

    fn claim(id: &str, network: &str, replicas: u32, beside: u32) -> Claim {
        let id: ServiceId = id.parse().expect("an id");
        Claim {
            holder: Holder::Service(id),
            replicas,
            memory_bytes: 0,
            cpu_milli: 0,
            network: Some(network.to_owned()),
            beside,
        }
    }

    #[test]
    fn those_of_one_network_are_summed_and_of_no_other() {
        let others = [
            claim("shop/db", "shop/back", 200, 0),
            claim("shop/api", "shop", 3, 0),
            claim("two/web", "two", 200, 0),
        ];
        let short = |replicas, beside| {
            let asked = [claim("shop/web", "shop", replicas, beside)];
            short_of_addresses(&MACHINE, &others, &asked)
        };
        assert_eq!(short(250, 0), None);
        assert_eq!(
            short(900, 0).as_deref(),
            Some(
                "the network shop has addresses for 253 replicas, too few for 900 replicas of shop/web: with the 3 of the \
                 others that is 903"
            )
        );
        assert_eq!(short(125, 125), None);
        assert!(short(126, 125).is_some_and(|text| text.contains("and the 125 before them")));
    }

    #[test]
    fn who_has_no_network_of_its_own_needs_no_address() {
        let mut there = claim("shop/agent", "shop", 250, 0);
        let mut asked = [claim("shop/web", "shop", 200, 0)];
        let short = |there: &Claim, asked: &[Claim]| {
            short_of_addresses(&MACHINE, std::slice::from_ref(there), asked)
        };
        assert!(short(&there, &asked).is_some());
        there.network = None;
        assert_eq!(short(&there, &asked), None);
        asked[0] = Claim {
            network: None,
            replicas: 900,
            ..asked[0].clone()
        };
        assert_eq!(short(&there, &asked), None);
        let id: ServiceId = "shop/agent".parse().expect("an id");
        let mut spec = ServiceSpec::new(id.service.clone());
        for mode in [NetworkMode::Own, NetworkMode::None, NetworkMode::Host] {
            spec.sandbox.network = mode;
            let claim = Claim::of(id.clone(), &spec, 1);
            let expected = (mode == NetworkMode::Own).then(|| "shop".to_owned());
            assert_eq!(claim.network, expected, "{mode:?}");
        }
    }

    #[test]
    fn what_takes_no_more_than_before_is_not_refused() {
        let there = [claim("shop/web", "shop", 300, 0)];
        for (replicas, fits) in [(299, true), (300, true), (301, false)] {
            let asked = [claim("shop/web", "shop", replicas, 0)];
            let short = short_of_addresses(&MACHINE, &there, &asked);
            assert_eq!(short.is_none(), fits, "{replicas}");
        }
    }
}
