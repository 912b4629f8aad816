//! Firewalls of others (Docker's, ufw's, a hand-made one): opened for the node's bridges, and read for what they close.
//!
//! An accept in this node's table cannot overrule a drop in another's. So rules are put at the top of the chains that
//! drop what they do not know. They say no more than iptables can say too: it refuses to work on a chain otherwise.

use std::fmt::Write;

use serde_json::Value;

use crate::Error;
use crate::fence::Fence;
use crate::nft;

/// Chains may jump so deep; the kernel has a limit of its own (NFT_JUMP_STACK_SIZE, 16).
const MAX_DEPTH: u8 = 16;

/// All chains of the machine.
#[derive(Debug, Default)]
struct Ruleset {
    chains: Vec<Chain>,
}

/// A chain with its rules.
#[derive(Debug, Default)]
struct Chain {
    family: String,
    table: String,
    name: String,
    /// Where in the kernel it is called; empty: only by other chains.
    hook: String,
    drops: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Rule {
    handle: u64,
    comment: String,
    expressions: Vec<Value>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Accepted,
    Dropped,
    /// That cannot be told from here.
    Unclear,
    /// Nothing is decided.
    Undecided,
}

/// Whether a rule is about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fits {
    No,
    Perhaps,
    Yes,
}

/// Opens other firewalls for the node's bridges, anew if they were open; returns the chains that had to be.
pub(crate) async fn open(fence: &Fence) -> Result<Vec<String>, Error> {
    let ruleset = Ruleset::read().await;
    let script = format!("{}{}", ruleset.closing(fence), ruleset.opening(fence));
    if !script.is_empty() {
        nft::run("open the machine's firewall", &script).await?;
    }
    let opened = ["forward", "input"].into_iter();
    let opened = opened.flat_map(|hook| ruleset.closed(hook, fence));
    Ok(opened.map(Chain::describe).collect())
}

/// As [`open`], where a chain that is closed lacks any of the node's rules; else nothing is done.
pub(crate) async fn keep_open(fence: &Fence) -> Result<Vec<String>, Error> {
    match Ruleset::read().await.is_open(fence) {
        true => Ok(Vec::new()),
        false => open(fence).await,
    }
}

/// Takes those rules out again, where there are any.
pub(crate) async fn close(fence: &Fence) -> Result<(), Error> {
    let script = Ruleset::read().await.closing(fence);
    if script.is_empty() {
        return Ok(());
    }
    nft::run("take rules out of the machine's firewall", &script).await
}

/// Those of `ports` (TCP, of the machine) that a firewall drops for other machines, each with the chain that does.
/// What cannot be told is left out.
pub(crate) async fn dropped(ports: &[u16]) -> Vec<(u16, String)> {
    match ports.is_empty() {
        true => Vec::new(),
        false => Ruleset::read().await.dropped(ports),
    }
}

/// What chains at each hook are to accept. What the bridges may reach is the node's own table to say: this only lets it
/// have its say.
fn openings(fence: &Fence) -> [(&'static str, Vec<String>); 2] {
    let bridges = &fence.names.bridges;
    let Fence {
        virtual_port,
        dns_port,
        ..
    } = fence;
    let forward = vec![
        format!("iifname \"{bridges}\""),
        format!("oifname \"{bridges}\""),
    ];
    let input = vec![
        format!("iifname \"{bridges}\" tcp dport {virtual_port}"),
        format!("iifname \"{bridges}\" tcp dport {dns_port}"),
        format!("iifname \"{bridges}\" udp dport {dns_port}"),
    ];
    [("forward", forward), ("input", input)]
}

impl Ruleset {
    async fn read() -> Self {
        Self::parse(&nft::list(&["ruleset"]).await)
    }

    fn parse(objects: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut chains: Vec<Chain> = Vec::new();
        for chain in objects.iter().map(|object| &object["chain"]) {
            if chain.is_object() {
                chains.push(Chain {
                    family: text(&chain["family"]),
                    table: text(&chain["table"]),
                    name: text(&chain["name"]),
                    hook: match chain["type"].as_str() {
                        Some("filter") => text(&chain["hook"]),
                        _ => String::new(),
                    },
                    drops: chain["policy"] == "drop",
                    rules: Vec::new(),
                });
            }
        }
        for rule in objects.iter().map(|object| &object["rule"]) {
            let mut of = chains.iter_mut();
            if let Some(chain) = of.find(|chain| {
                rule["family"] == chain.family.as_str()
                    && rule["table"] == chain.table.as_str()
                    && rule["chain"] == chain.name.as_str()
            }) {
                chain.rules.push(Rule {
                    handle: rule["handle"].as_u64().unwrap_or_default(),
                    comment: text(&rule["comment"]),
                    expressions: rule["expr"].as_array().cloned().unwrap_or_default(),
                });
            }
        }
        Self { chains }
    }

    /// The chains of others at `hook` that drop what no rule of theirs accepts.
    fn closed(&self, hook: &'static str, fence: &Fence) -> impl Iterator<Item = &Chain> {
        let own = fence.names.table.clone();
        self.chains.iter().filter(move |chain| {
            chain.hook == hook && chain.is_for_ipv4() && chain.table != own && chain.is_closed()
        })
    }

    /// Whether every closed chain has as many rules of the node's as it is to have.
    fn is_open(&self, fence: &Fence) -> bool {
        openings(fence).iter().all(|(hook, matches)| {
            self.closed(hook, fence).all(|chain| {
                let rules = chain.rules.iter();
                let own = rules.filter(|rule| rule.comment == fence.names.table);
                own.count() == matches.len()
            })
        })
    }

    /// Removes the node's own rules from the chains of others.
    fn closing(&self, fence: &Fence) -> String {
        let mut script = String::new();
        for chain in &self.chains {
            let own = |rule: &&Rule| rule.comment == fence.names.table;
            for rule in chain.rules.iter().filter(own) {
                let (place, handle) = (chain.place(), rule.handle);
                let _ = writeln!(script, "delete rule {place} handle {handle}"); // into a String
            }
        }
        script
    }

    /// Adds the node's own rules to the chains of others that are closed.
    fn opening(&self, fence: &Fence) -> String {
        let mut script = String::new();
        for (hook, matches) in openings(fence) {
            for chain in self.closed(hook, fence) {
                for text in &matches {
                    let (place, comment) = (chain.place(), &fence.names.table);
                    let _ = writeln!(
                        script,
                        "insert rule {place} {text} accept comment \"{comment}\""
                    );
                }
            }
        }
        script
    }

    fn dropped(&self, ports: &[u16]) -> Vec<(u16, String)> {
        let inputs = self.chains.iter();
        let inputs: Vec<&Chain> = inputs
            .filter(|chain| chain.hook == "input" && chain.is_for_ipv4())
            .collect();
        let drops = |chain: &&&Chain, port: u16| match self.fate(chain, port, MAX_DEPTH) {
            Fate::Dropped => true,
            Fate::Undecided => chain.drops,
            Fate::Accepted | Fate::Unclear => false,
        };
        let ports = ports.iter();
        let found = ports.filter_map(|&port| {
            let chain = inputs.iter().find(|chain| drops(chain, port))?;
            Some((port, chain.describe()))
        });
        found.collect()
    }

    /// What becomes in `chain` of a new connection from another machine to `port`.
    fn fate(&self, chain: &Chain, port: u16, depth: u8) -> Fate {
        for rule in &chain.rules {
            let fits = rule.fits(port);
            if fits == Fits::No {
                continue;
            }
            let fate = rule.expressions.iter().find_map(|expression| {
                let verdict = expression.as_object()?.keys().next()?.as_str();
                let target = &expression[verdict]["target"];
                match verdict {
                    "accept" => Some(Fate::Accepted),
                    "drop" | "reject" => Some(Fate::Dropped),
                    "return" => Some(Fate::Undecided),
                    "jump" | "goto" => {
                        let mut chains = self.chains.iter();
                        let next = chains.find(|next| {
                            next.table == chain.table
                                && next.family == chain.family
                                && *target == next.name.as_str()
                        })?;
                        let fate = match depth {
                            0 => Fate::Unclear,
                            depth => self.fate(next, port, depth - 1),
                        };
                        // Back from a jump, the rules after it are asked.
                        (verdict == "goto" || fate != Fate::Undecided).then_some(fate)
                    }
                    _ => None,
                }
            });
            match (fits, fate) {
                (Fits::Yes, Some(fate)) => return fate,
                (Fits::Perhaps, Some(Fate::Accepted | Fate::Unclear)) => return Fate::Unclear,
                (Fits::Perhaps, Some(Fate::Dropped | Fate::Undecided)) | (_, None) => {}
                (Fits::No, Some(_)) => {}
            }
        }
        Fate::Undecided
    }
}

impl Chain {
    fn is_for_ipv4(&self) -> bool {
        matches!(self.family.as_str(), "ip" | "inet")
    }

    /// It drops by default, or by a last rule for all that is left.
    fn is_closed(&self) -> bool {
        let last = self.rules.last();
        let ends_closed = last.is_some_and(|rule| {
            let verdict = |expression: &Value| {
                expression.get("drop").is_some() || expression.get("reject").is_some()
            };
            let silent = |expression: &Value| {
                expression.get("counter").is_some() || expression.get("log").is_some()
            };
            rule.expressions.iter().all(|e| verdict(e) || silent(e))
                && rule.expressions.iter().any(verdict)
        });
        self.drops || ends_closed
    }

    /// Where it is, as nft commands take it.
    fn place(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    fn describe(&self) -> String {
        format!(
            "chain {} of table {} {}",
            self.name, self.family, self.table
        )
    }
}

impl Rule {
    /// Whether the rule is about a new TCP connection from another machine to `port`.
    fn fits(&self, port: u16) -> Fits {
        let names_port = self.expressions.iter().any(is_about_a_port);
        let all = self.expressions.iter();
        let each = all.map(|expression| {
            let Some((kind, value)) = expression.as_object().and_then(|e| e.iter().next()) else {
                return Fits::Perhaps;
            };
            match kind.as_str() {
                "match" => fits(value, port),
                "accept" | "drop" | "reject" | "return" | "jump" | "goto" | "counter" | "log" => {
                    Fits::Yes
                }
                // What iptables matches by a module of its own is not told. Its connection tracking is mostly asked
                // for connections that stand; where a port is named too, it may as well be for new ones.
                "xt" => match value["name"].as_str() {
                    Some("comment") => Fits::Yes,
                    Some("conntrack" | "state") if !names_port => Fits::No,
                    _ => Fits::Perhaps,
                },
                _ => Fits::Perhaps,
            }
        });
        each.min().unwrap_or(Fits::Yes)
    }
}

fn is_about_a_port(expression: &Value) -> bool {
    expression["match"]["left"]["payload"]["field"] == "dport"
}

fn fits(found: &Value, port: u16) -> Fits {
    let (left, right) = (&found["left"], &found["right"]);
    let negated = found["op"] == "!=";
    let known = |equal: bool| match equal != negated {
        true => Fits::Yes,
        false => Fits::No,
    };
    let payload = &left["payload"];
    if let Some(protocol) = payload["protocol"].as_str() {
        return match (protocol, payload["field"].as_str()) {
            ("tcp" | "th", Some("dport")) => known(includes(right, &port.into())),
            ("ip", Some("protocol")) => known(includes(right, &"tcp".into())),
            ("udp" | "icmp" | "icmpv6" | "ip6" | "sctp", _) => Fits::No,
            _ => Fits::Perhaps,
        };
    }
    match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
        (Some("l4proto"), _) => known(includes(right, &"tcp".into())),
        (Some("iifname" | "iif"), _) if right == "lo" => known(false),
        (_, Some("state")) => known(includes(right, &"new".into())),
        _ => Fits::Perhaps,
    }
}

/// Whether `value` is `of` it: a value, a range, a list or a set of such.
fn includes(of: &Value, value: &Value) -> bool {
    if of == value {
        return true;
    }
    if let (Some(range), Some(value)) = (of["range"].as_array(), value.as_u64()) {
        let bound = |at: usize| range.get(at).and_then(Value::as_u64);
        return bound(0) <= Some(value) && Some(value) <= bound(1);
    }
    let members = of.as_array().or_else(|| of["set"].as_array());
    let mut members = members.into_iter().flatten();
    members.any(|member| includes(member, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Names;

    /// A listing as nft 1.0.6 prints it, of `chains` and `rules`.
    fn ruleset(objects: &[&str]) -> Ruleset {
        let listed = format!("{{\"nftables\": [{}]}}", objects.join(","));
        Ruleset::parse(&nft::objects(&listed))
    }

    const INPUT: &str = r#"{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter",
        "hook": "input", "prio": 0, "policy": "drop"}}"#;

    fn rule(chain: &str, comment: &str, expressions: &str) -> String {
        format!(
            r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "{chain}", "handle": 7, "comment": "{comment}",
                "expr": [{expressions}]}}}}"#
        )
    }

    const ESTABLISHED: &str =
        r#"{"xt": {"type": "match", "name": "conntrack"}}, {"counter": {}}, {"accept": null}"#;
    const LOOPBACK: &str = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}"#;

    fn dport(port: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}}, "right": {port}}}}}"#
        )
    }

    fn fence() -> Fence {
        Fence {
            names: Names::new("a").expect("a name"),
            node: "10.1.0.0/16".parse().expect("a range"),
            virtual_port: 7000,
            dns_port: 7053,
        }
    }

    #[test]
    fn a_port_that_no_rule_accepts_is_dropped_and_the_chain_is_named() {
        let web = format!("{}, {{\"accept\": null}}", dport("8100"));
        let found = ruleset(&[
            INPUT,
            &rule("INPUT", "", ESTABLISHED),
            &rule("INPUT", "", LOOPBACK),
            &rule("INPUT", "", &web),
        ]);
        let place = "chain INPUT of table ip filter".to_owned();
        assert_eq!(found.dropped(&[8100, 8200]), [(8200, place)]);
    }

    #[test]
    fn sets_ranges_and_jumps_are_followed() {
        let user = INPUT.replace("INPUT", "user").replace(
            r#""type": "filter",
        "hook": "input", "prio": 0, "policy": "drop""#,
            r#""x": 0"#,
        );
        let some = format!(
            "{}, {{\"accept\": null}}",
            dport(r#"{"set": [80, {"range": [8000, 8009]}]}"#)
        );
        let found = ruleset(&[
            INPUT,
            &user,
            &rule(
                "INPUT",
                "",
                r#"{"counter": {}}, {"jump": {"target": "user"}}"#,
            ),
            &rule("user", "", &some),
        ]);
        let ports: Vec<u16> = found
            .dropped(&[80, 8004, 8010])
            .iter()
            .map(|d| d.0)
            .collect();
        assert_eq!(ports, [8010]);
    }

    #[test]
    fn what_cannot_be_told_is_not_told() {
        let some = r#"{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}"#;
        let found = ruleset(&[INPUT, &rule("INPUT", "", some)]);
        assert_eq!(found.dropped(&[8100]), []);
        assert_eq!(ruleset(&[]).dropped(&[8100]), []);
    }

    #[test]
    fn a_closed_chain_is_opened_and_only_the_nodes_own_rules_are_taken_out() {
        let end = r#"{"reject": {"type": "icmp"}}"#;
        let open = INPUT.replace("\"drop\"", "\"accept\"");
        assert_eq!(ruleset(&[&open]).opening(&fence()), "");
        for found in [
            ruleset(&[INPUT]),
            ruleset(&[&open, &rule("INPUT", "", end)]),
        ] {
            let script = found.opening(&fence());
            assert_eq!(script.lines().count(), 3, "{script}");
            let first = "insert rule ip filter INPUT iifname \"lyba-*\" tcp dport 7000 accept comment \"layby_a\"";
            assert_eq!(script.lines().next(), Some(first));
        }
        let found = ruleset(&[
            INPUT,
            &rule("INPUT", "layby_a", LOOPBACK),
            &rule("INPUT", "layby_ab", LOOPBACK),
        ]);
        let script = found.closing(&fence());
        assert_eq!(script, "delete rule ip filter INPUT handle 7\n");
    }
}
