//! NetworkPolicies (`networking.k8s.io/v1`), as far as they say what networks of an app say.
//!
//! Four kinds are understood. One that lets the pods that it selects be reached by just those is a network. One that lets ports of its
//! pods be reached from anywhere, or nobody, says what the gateway and networks do by themselves. One that lets its pods reach pods and name
//! servers alone makes their networks internal. One that lets
//! pods of Layby's own label reach nothing and be reached by nothing leaves them without a network. Any other is an error: what it forbids would be allowed.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::network::{MAX_NAMES_LEN, Networks, USUAL};
use layby_model::options::NetworkMode;

use crate::compose::networks::MAX_SETS;
use crate::convert::{ALONE, NETWORK};
use crate::draft::{Draft, Placed};
use crate::fields::Fields;
use crate::kubernetes::metadata;
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

type Labels = BTreeMap<String, String>;

/// A NetworkPolicy.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The labels of the pods that it is about.
    selector: Labels,
    means: Means,
}

/// What it says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Means {
    /// They are in a network of this name.
    Network(String),
    /// Ports of theirs are reached from anywhere, or they by nobody: both beside their networks.
    Open,
    /// They reach nothing outside.
    Internal,
    /// They have no network.
    Alone,
}

/// Reads one, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    report: &mut Report,
) -> (Option<Policy>, Option<Placed<String>>) {
    object.what = "a NetworkPolicy".to_owned();
    let (head, namespace) = metadata::head(object, "NetworkPolicy", report);
    let Some(head) = head else {
        return (None, namespace);
    };
    let metadata::Head {
        name,
        what,
        mut spec,
    } = head;
    let selector = spec.take("podSelector");
    let selector = match &selector {
        Some(node) => match_labels(node),
        None => Some(Labels::new()),
    };
    let types = spec.take("policyTypes");
    let (ingress, egress) = (spec.take("ingress"), spec.take("egress"));
    spec.finish(report);
    let policy = selector.and_then(|selector| {
        let types = types.as_ref().map_or(&[][..], items);
        let says = |word: &str| types.iter().any(|node| node.scalar() == Some(word));
        // Without a word it is about what is let in, and about what is let out if that is said.
        let is_in = types.is_empty() || says("Ingress");
        let is_out = egress.is_some() || says("Egress");
        let (ingress, egress) = (ingress.as_ref(), egress.as_ref());
        let means = match (is_in, is_out) {
            (true, false) => let_in(ingress.map_or(&[], items), &selector, &name.value),
            (false, true) => let_out(items(egress?)),
            (true, true) => {
                let rules = [ingress, egress].into_iter().flatten();
                let is_ours = selector.len() == 1 && selector.contains_key(ALONE);
                let is_shut = rules.flat_map(items).next().is_none();
                (is_ours && is_shut).then_some(Means::Alone)
            }
            (false, false) => None,
        };
        Some(Policy {
            selector,
            means: means?,
        })
    });
    if policy.is_none() {
        let message = format!(
            "{what} is not supported: what it forbids would be allowed; leave it out, and all services of the app reach each other; a network is one whose \"from\" has the same labels as its \"podSelector\""
        );
        report.error(&name.place, message);
    }
    (policy, namespace)
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Null | Value::Scalar { .. } | Value::Map(_) => &[],
    }
}

/// The value of a key in a map that has no other ones.
fn only<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(entries) => match &entries[..] {
            [one] if one.key == key => Some(&one.value),
            _ => None,
        },
        Value::Null | Value::Scalar { .. } | Value::List(_) => None,
    }
}

/// A selector by labels alone; `{}` selects all.
fn match_labels(node: &Node) -> Option<Labels> {
    if node.value == Value::Map(Vec::new()) {
        return Some(Labels::new());
    }
    let Value::Map(entries) = &only(node, "matchLabels")?.value else {
        return None;
    };
    let pair = |entry: &crate::tree::Entry| {
        let value = entry.value.scalar()?;
        Some((entry.key.clone(), value.to_owned()))
    };
    entries.iter().map(pair).collect()
}

/// No rule, or one: from pods with the same labels, or to ports from anywhere.
fn let_in(rules: &[Node], selector: &Labels, name: &str) -> Option<Means> {
    let rule = match rules {
        // Whom others let in is let in; all others are kept out here, too.
        [] => return Some(Means::Open),
        [rule] => rule,
        [_, _, ..] => return None,
    };
    if only(rule, "ports").is_some_and(|ports| !items(ports).is_empty()) {
        return Some(Means::Open);
    }
    let [peer] = items(only(rule, "from")?) else {
        return None;
    };
    if match_labels(only(peer, "podSelector")?).as_ref() != Some(selector) {
        return None;
    }
    let of_label = selector
        .keys()
        .next()
        .and_then(|key| key.strip_prefix(NETWORK));
    let of_label = of_label.filter(|name| selector.len() == 1 && Networks::is_name(name));
    Some(Means::Network(of_label.unwrap_or(name).to_owned()))
}

/// Rules that lead to pods of the namespace, or to port 53.
fn let_out(rules: &[Node]) -> Option<Means> {
    let is_inside = |rule: &Node| {
        let to_pods = only(rule, "to").is_some_and(|to| {
            let mut peers = items(to).iter();
            !items(to).is_empty()
                && peers.all(|peer| {
                    let selected = only(peer, "podSelector").and_then(match_labels);
                    selected.is_some_and(|labels| labels.is_empty())
                })
        });
        let ports = rule.get("ports").map_or(&[][..], items);
        let mut numbers = ports
            .iter()
            .map(|port| port.get("port").and_then(Node::scalar));
        to_pods || (!ports.is_empty() && numbers.all(|number| number == Some("53")))
    };
    (!rules.is_empty() && rules.iter().all(is_inside)).then_some(Means::Internal)
}

/// Puts services into the networks that the policies say, by the labels of their pods.
pub(crate) fn join(policies: &[Policy], drafts: &mut [(Draft, Labels)], report: &mut Report) {
    if policies.is_empty() {
        return;
    }
    let mut sets: BTreeSet<Networks> = BTreeSet::new();
    for (draft, labels) in drafts {
        let selects = |policy: &&Policy| {
            let mut wanted = policy.selector.iter();
            wanted.all(|(key, value)| labels.get(key) == Some(value))
        };
        let own: Vec<&Means> = policies
            .iter()
            .filter(selects)
            .map(|policy| &policy.means)
            .collect();
        if own.contains(&&Means::Alone) {
            let is_in = |means: &&Means| name(means).is_some() || *means == &Means::Internal;
            let is_hosts = draft.spec.sandbox.network == NetworkMode::Host;
            if is_hosts || own.iter().any(is_in) {
                let message = format!(
                    "a NetworkPolicy leaves the pods of {:?} without a network, and they are put into one: take the label {ALONE:?} off, or what puts them there",
                    cut(draft.spec.name.as_str())
                );
                report.error(&draft.place, message);
            }
            draft.spec.sandbox.network = NetworkMode::None;
            draft.close();
            continue;
        }
        let mut networks = Networks {
            names: own.iter().filter_map(|means| name(means)).collect(),
            internal: own.contains(&&Means::Internal),
        };
        let any_network = policies.iter().any(|policy| name(&policy.means).is_some());
        let place = draft.place.clone();
        if networks.names.is_empty() && (any_network || own.contains(&&Means::Open)) {
            let message = format!(
                "no NetworkPolicy says who of the app may reach the pods of {:?}: all would in a cluster, and none would here; put them into a network, too",
                cut(draft.spec.name.as_str())
            );
            report.error(&place, message);
            continue;
        }
        if networks.names.is_empty() {
            networks.names.insert(USUAL.to_owned());
        }
        check(&networks, &mut sets, &place, report);
        draft.spec.networks = match networks.is_usual() {
            true => Networks::default(),
            false => networks,
        };
    }
}

fn name(means: &Means) -> Option<String> {
    match means {
        Means::Network(name) => Some(name.clone()),
        Means::Open | Means::Internal | Means::Alone => None,
    }
}

fn check(networks: &Networks, sets: &mut BTreeSet<Networks>, place: &Place, report: &mut Report) {
    let length: usize = networks.names.iter().map(|name| name.len() + 1).sum();
    if length > MAX_NAMES_LEN {
        let message = format!(
            "the names of its networks are longer than {MAX_NAMES_LEN} characters together"
        );
        report.error(place, message);
    }
    sets.insert(networks.clone());
    if sets.len() == MAX_SETS + 1 {
        let message = format!(
            "the services are in more than {MAX_SETS} different sets of networks, each of which takes a bridge"
        );
        report.error(place, message);
    }
}
