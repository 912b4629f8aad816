//! What a question is answered with: decided by the question and the directory alone.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Directory;
use crate::names::app_of;
use crate::subnet::is_internal;

/// How long an answer may be kept, in seconds. The addresses of a name change when a service that has it is deployed, taken
/// down, enabled or disabled.
const TTL_S: u32 = 5;
/// The longest answer over UDP to one who does not say what it takes (RFC 1035, section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// The longest that is taken over UDP here (RFC 9715, section 3).
const OWN_UDP: u16 = 1232;

/// How the names of Kubernetes' Services end, whose namespace is the app. (`default` is the app whatever it is called: it is
/// what a manifest without a namespace is in there.)
const KUBERNETES: [&str; 2] = [".svc.cluster.local", ".svc"];

/// What is done with a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is answered with this.
    Answer(Vec<u8>),
    /// Somebody else knows. The longest answer that may be sent back over UDP, in bytes.
    Forward {
        /// The number of the bridge that it came from.
        bridge: u8,
        /// In bytes.
        longest: usize,
        /// It is for a name that stands for another one: that is asked for.
        alias: Option<Alias>,
    },
    /// It is no question, or of nobody here.
    Ignore,
}

/// A question for a name that stands for another one (RFC 1034, section 3.6.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// The same question for that one.
    pub(crate) question: Vec<u8>,
    host: Name,
}

impl Alias {
    /// Of a question for a name that stands for `host`; `None`: that is no name.
    fn of(message: &Message, host: &str) -> Option<Self> {
        let host = Name::from_ascii(format!("{host}.")).ok()?;
        let asked = message.queries.first()?;
        let mut question = Message::new(
            message.metadata.id,
            MessageType::Query,
            message.metadata.op_code,
        );
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(host.clone(), asked.query_type()));
        let question = question.to_vec().ok()?;
        Some(Self { question, host })
    }

    /// The answer to `asked` that what came to [`Alias::question`] makes, in at most `longest` bytes where that counts.
    pub(crate) fn answer(
        &self,
        asked: &[u8],
        found: &[u8],
        longest: Option<usize>,
    ) -> Option<Vec<u8>> {
        let (asked, found) = (
            Message::from_vec(asked).ok()?,
            Message::from_vec(found).ok()?,
        );
        let query = asked.queries.first()?;
        let records = std::iter::once(stands_for(query, &self.host));
        let records = records.chain(found.answers.iter().cloned());
        let whole = answer(&asked, found.metadata.response_code, records.collect());
        // A part of the addresses is not to be taken for all of them.
        let fits = longest.is_none_or(|longest| whole.len() <= longest);
        if fits && !found.metadata.truncation {
            return Some(whole);
        }
        let mut cut = Message::from_vec(&answer(&asked, ResponseCode::NoError, Vec::new())).ok()?;
        cut.metadata.truncation = true;
        cut.to_vec().ok()
    }
}

/// What is known of a name.
enum Known {
    /// It is the app's own name for this one.
    Alias(String),
    /// It is the app's own, with these addresses.
    Own(Vec<Ipv4Addr>),
    /// An address of the node's, with this name.
    Address(String),
    /// It is nobody's, or another app's: that is not for the world to answer.
    Nothing,
    /// It is not of this node.
    Elsewhere,
}

/// Decides on a question that came from the address `from`.
pub(crate) fn plan(directory: &Directory, from: Ipv4Addr, question: &[u8]) -> Plan {
    let Some(bridge) = directory.node.bridge_of(from) else {
        return Plan::Ignore;
    };
    let Ok(message) = Message::from_vec(question) else {
        return Plan::Ignore;
    };
    if message.metadata.message_type != MessageType::Query {
        return Plan::Ignore; // two that answer each other would never end
    }
    let say = |code: ResponseCode| Plan::Answer(answer(&message, code, Vec::new()));
    if message.metadata.op_code != OpCode::Query {
        return say(ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else {
        return say(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN
        || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return say(ResponseCode::Refused);
    }
    let kind = query.query_type();
    let records = match look_up(directory, bridge, query.name(), kind) {
        Known::Own(addresses) => {
            let addresses = turned(addresses, message.metadata.id);
            own_records(query.name(), kind, addresses)
        }
        Known::Address(name) => match Name::from_ascii(format!("{name}.")) {
            Ok(name) => vec![record(query, RData::PTR(PTR(name)))],
            Err(_) => return say(ResponseCode::NXDomain),
        },
        Known::Nothing => return say(ResponseCode::NXDomain),
        Known::Alias(host) => {
            let Some(alias) = Alias::of(&message, &host) else {
                return say(ResponseCode::NXDomain);
            };
            // It may be a name of the node's own, which nobody else is asked for.
            match look_up(directory, bridge, &alias.host, kind) {
                Known::Own(addresses) => {
                    let stands = std::iter::once(stands_for(query, &alias.host));
                    let addresses = turned(addresses, message.metadata.id);
                    let addresses = own_records(&alias.host, kind, addresses);
                    stands.chain(addresses).collect()
                }
                Known::Elsewhere if !is_internal(bridge) => {
                    return Plan::Forward {
                        bridge,
                        longest: usize::from(takes(&message)),
                        alias: Some(alias),
                    };
                }
                // One that stands for a third is followed no further: it could lead back here.
                Known::Elsewhere | Known::Nothing | Known::Alias(_) | Known::Address(_) => {
                    return say(ResponseCode::NXDomain);
                }
            }
        }
        // Who reaches nothing outside asks nobody there either: a name can carry what is not to leave.
        Known::Elsewhere if is_internal(bridge) => return say(ResponseCode::NXDomain),
        Known::Elsewhere => {
            let longest = usize::from(takes(&message));
            return Plan::Forward {
                bridge,
                longest,
                alias: None,
            };
        }
    };
    Plan::Answer(answer(&message, ResponseCode::NoError, records))
}

/// The answer that the machine's resolvers could not be asked; `None`: to what is no question.
pub(crate) fn failure(question: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).ok()?;
    Some(answer(&message, ResponseCode::ServFail, Vec::new()))
}

fn look_up(directory: &Directory, bridge: u8, name: &Name, kind: RecordType) -> Known {
    let name = name.to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let gateway = directory.node.app(bridge).gateway();
    let app = directory.apps.get(&bridge);
    let own = app.and_then(|app| directory.names.get(app));
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let Some(address) = reversed(labels).filter(|address| directory.node.contains(*address))
        else {
            return Known::Elsewhere;
        };
        if address == gateway {
            return Known::Address("host.layby.internal".to_owned());
        }
        let names = own.into_iter().flatten();
        // Of its names the longest: `web.shop` says more than `web`.
        let named = names.filter(|(_, addresses)| addresses.contains(&address));
        return match named.max_by_key(|(name, _)| name.len()) {
            Some((name, _)) => Known::Address(name.clone()),
            None => Known::Nothing,
        };
    }
    match name {
        // From an internal network the machine is not reached.
        "host.layby.internal" | "host.docker.internal" | "gateway.docker.internal"
            if !is_internal(bridge) =>
        {
            return Known::Own(vec![gateway]);
        }
        _ if is_below(name, "layby.internal") || is_below(name, "docker.internal") => {
            return Known::Nothing;
        }
        _ => {}
    }
    let aliases = app.and_then(|app| directory.aliases.get(app));
    let own = |name: &str| {
        let alias = || Some(Known::Alias(aliases?.get(name)?.clone()));
        let addresses = own.and_then(|names| names.get(name));
        addresses.cloned().map(Known::Own).or_else(alias)
    };
    if let Some(known) = own(name) {
        return known;
    }
    // No cluster but the app itself: a name of another namespace is nobody's.
    let in_app = |name: &str| {
        let (service, namespace) = name.rsplit_once('.')?;
        let is_own = namespace == "default" || app.is_some_and(|app| app_of(app) == namespace);
        is_own.then(|| own(service)).flatten()
    };
    if let Some(of_service) = KUBERNETES.iter().find_map(|end| name.strip_suffix(end)) {
        return in_app(of_service).unwrap_or(Known::Nothing);
    }
    if let Some(known) = in_app(name) {
        return known;
    }
    // What an app calls its services otherwise is for it alone: that takes no name of the world's from the rest.
    let is_below_app = |key: &str| {
        name.rsplit_once('.')
            .is_none_or(|(_, end)| end == app_of(key))
    };
    let mut others = directory.names.iter();
    let of_others = others.any(|(key, names)| is_below_app(key) && names.contains_key(name));
    // No resolver of the world has an address for a name without a dot; one that makes one up must not stand in for
    // a service that is not deployed yet.
    let alone =
        !name.is_empty() && !name.contains('.') && matches!(kind, RecordType::A | RecordType::AAAA);
    match of_others || alone {
        true => Known::Nothing,
        false => Known::Elsewhere,
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    let rest = name.strip_suffix(domain);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The address that `4.3.2.1` stands for below `in-addr.arpa` (RFC 1035, section 3.5).
fn reversed(labels: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = labels.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), TTL_S, data)
}

/// Who asked for a name gets the name that it stands for.
fn stands_for(query: &Query, host: &Name) -> Record {
    record(query, RData::CNAME(CNAME(host.clone())))
}

/// These in another order for another question: most who ask take the first, and choose the `id` at random.
fn turned(mut addresses: Vec<Ipv4Addr>, id: u16) -> Vec<Ipv4Addr> {
    let count = addresses.len().max(1);
    addresses.rotate_left(usize::from(id) % count);
    addresses
}

/// What is answered of an own name's `addresses` to who asks for records of `kind`.
fn own_records(name: &Name, kind: RecordType, addresses: Vec<Ipv4Addr>) -> Vec<Record> {
    let asked = matches!(kind, RecordType::A | RecordType::ANY);
    let addresses = addresses.into_iter().filter(|_| asked);
    addresses
        .map(|address| Record::from_rdata(name.clone(), TTL_S, RData::A(A(address))))
        .collect()
}

/// How long an answer over UDP may be for the one who sent `message`.
fn takes(message: &Message) -> u16 {
    let says = message.edns.as_ref().map(Edns::max_payload);
    says.unwrap_or(PLAIN_UDP).max(PLAIN_UDP)
}

fn answer(message: &Message, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
    let mut answer = Message::response(message.metadata.id, message.metadata.op_code);
    answer.metadata.response_code = code;
    answer.metadata.recursion_desired = message.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = !records.is_empty();
    answer.add_queries(message.queries.iter().take(1).cloned());
    answer.add_answers(records);
    if message.edns.is_some() {
        // RFC 6891, section 6.1.1: who says what it takes is told so too.
        let mut edns = Edns::new();
        edns.set_max_payload(OWN_UDP);
        answer.set_edns(edns);
    }
    // It holds what was read from a message, and names that were: it can be written.
    answer.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    const WEB: Ipv4Addr = Ipv4Addr::new(10, 1, 240, 5);
    const DB: Ipv4Addr = Ipv4Addr::new(10, 1, 240, 6);
    const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 240, 7);
    /// A replica of the app `shop`, one of `blog`, and a build.
    const SHOP: Ipv4Addr = Ipv4Addr::new(10, 1, 3, 2);
    const BLOG: Ipv4Addr = Ipv4Addr::new(10, 1, 4, 2);
    const BUILD: Ipv4Addr = Ipv4Addr::new(10, 1, 5, 2);

    fn directory() -> Directory {
        let names = |pairs: &[(&str, Ipv4Addr)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, ip)| ((*name).to_owned(), vec![*ip]))
                .collect()
        };
        let shop = names(&[
            ("web", WEB),
            ("web.shop", WEB),
            ("none", WEB),
            ("db-0.db", POD),
        ]);
        let blog = names(&[
            ("web", DB),
            ("web.blog", DB),
            ("db", DB),
            ("db.blog", DB),
            ("www.example.org", DB),
        ]);
        let names = BTreeMap::from([("shop".to_owned(), shop), ("blog".to_owned(), blog)]);
        Directory {
            node: "10.1.0.0/16".parse().expect("a range"),
            apps: BTreeMap::from([(3, "shop".to_owned()), (4, "blog".to_owned())]),
            names: Arc::new(names),
            aliases: Arc::new(BTreeMap::from([(
                "shop".to_owned(),
                BTreeMap::from(
                    [
                        ("cloud", "db.example.org"),
                        ("short", "web"),
                        ("long", "Web.shop.svc.cluster.local"),
                        ("cluster", "db-0.db.default.svc.cluster.local"),
                        ("machine", "host.layby.internal"),
                        ("others", "db.blog"),
                        ("nobodys", "nosuch"),
                        ("round", "round.shop"),
                        ("third", "cloud"),
                    ]
                    .map(|(name, host)| (name.to_owned(), host.to_owned())),
                ),
            )])),
        }
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(name).expect("a name");
        message.add_query(Query::query(name, kind));
        message.to_vec().expect("a message")
    }

    /// The code and the data of the answer; `None`: it is forwarded.
    fn ask(from: Ipv4Addr, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        match plan(&directory(), from, &question(name, kind)) {
            Plan::Forward { longest, alias, .. } => {
                assert_eq!((longest, alias), (512, None));
                None
            }
            Plan::Answer(bytes) => {
                let answer = Message::from_vec(&bytes).expect("a message");
                assert_eq!(answer.metadata.id, 7);
                let data = answer.answers.iter().map(|r| r.data.to_string());
                Some((answer.metadata.response_code, data.collect()))
            }
            Plan::Ignore => panic!("{name} was ignored"),
        }
    }

    fn known(data: &str) -> Option<(ResponseCode, Vec<String>)> {
        Some((ResponseCode::NoError, vec![data.to_owned()]))
    }

    const NO_DATA: Option<(ResponseCode, Vec<String>)> = Some((ResponseCode::NoError, Vec::new()));
    const NO_NAME: Option<(ResponseCode, Vec<String>)> = Some((ResponseCode::NXDomain, Vec::new()));

    #[test]
    fn an_app_sees_its_own_names_and_those_of_no_other() {
        assert_eq!(ask(SHOP, "web.", RecordType::A), known("10.1.240.5"));
        assert_eq!(ask(SHOP, "WEB.Shop.", RecordType::A), known("10.1.240.5"));
        assert_eq!(ask(BLOG, "web.", RecordType::A), known("10.1.240.6"));
        assert_eq!(ask(SHOP, "web.blog.", RecordType::A), NO_NAME);
        assert_eq!(ask(SHOP, "db.", RecordType::A), NO_NAME);
        assert_eq!(ask(BUILD, "web.", RecordType::A), NO_NAME);
        assert_eq!(ask(BUILD, "web.shop.", RecordType::A), NO_NAME);
    }

    #[test]
    fn a_name_of_the_world_that_one_app_has_for_itself_is_the_worlds_for_the_rest() {
        let ask = |from: Ipv4Addr| ask(from, "www.example.org.", RecordType::A);
        assert_eq!(ask(BLOG), known("10.1.240.6"));
        assert_eq!(ask(SHOP), None);
        assert_eq!(ask(BUILD), None);
    }

    #[test]
    fn an_own_name_exists_whatever_type_is_asked_for() {
        for kind in [
            RecordType::AAAA,
            RecordType::MX,
            RecordType::HTTPS,
            RecordType::TXT,
        ] {
            assert_eq!(ask(SHOP, "web.", kind), NO_DATA, "{kind}");
            assert_eq!(ask(SHOP, "host.layby.internal.", kind), NO_DATA, "{kind}");
        }
    }

    #[test]
    fn names_as_kubernetes_has_them_are_the_apps_own_or_nobodys() {
        let ask = |name: &str| ask(SHOP, name, RecordType::A);
        for name in [
            "web.shop.svc.",
            "Web.shop.svc.cluster.local.",
            "web.default.svc.",
            "web.default.",
        ] {
            assert_eq!(ask(name), known("10.1.240.5"), "{name}");
        }
        for name in [
            "db-0.db.",
            "db-0.db.shop.svc.",
            "db-0.db.default.svc.cluster.local.",
        ] {
            assert_eq!(ask(name), known("10.1.240.7"), "{name}");
        }
        for name in [
            "web.blog.svc.",
            "db.default.svc.cluster.local.",
            "shop.svc.",
            "a.web.shop.svc.",
            "kubernetes.default.svc.",
        ] {
            assert_eq!(ask(name), NO_NAME, "{name}");
        }
    }

    #[test]
    fn a_name_for_a_host_elsewhere_is_answered_with_what_that_has() {
        for name in [
            "cloud.",
            "cloud.shop.svc.cluster.local.",
            "cloud.default.svc.",
        ] {
            let asked = question(name, RecordType::A);
            let Plan::Forward {
                alias: Some(alias), ..
            } = plan(&directory(), SHOP, &asked)
            else {
                panic!("{name} is asked for elsewhere");
            };
            let sent = Message::from_vec(&alias.question).expect("a message");
            assert_eq!(sent.queries[0].name().to_ascii(), "db.example.org.");
            let ip = A(Ipv4Addr::new(192, 0, 2, 7));
            let found = vec![record(&sent.queries[0], RData::A(ip))];
            let found = answer(&sent, ResponseCode::NoError, found);
            let whole = alias.answer(&asked, &found, Some(512)).expect("an answer");
            let whole = Message::from_vec(&whole).expect("a message");
            let data: Vec<String> = whole.answers.iter().map(|r| r.data.to_string()).collect();
            assert_eq!(data, ["db.example.org.", "192.0.2.7"]);
            assert_eq!(whole.answers[0].name.to_ascii(), name);
            let cut = alias.answer(&asked, &found, Some(40)).expect("an answer");
            let cut = Message::from_vec(&cut).expect("a message");
            assert!(cut.metadata.truncation && cut.answers.is_empty());
            // What came in part is a part, though it fits.
            let mut part = Message::from_vec(&found).expect("a message");
            part.metadata.truncation = true;
            let part = part.to_vec().expect("bytes");
            let cut = alias.answer(&asked, &part, Some(512)).expect("an answer");
            let cut = Message::from_vec(&cut).expect("a message");
            assert!(cut.metadata.truncation && cut.answers.is_empty());
        }
        let of_other = plan(&directory(), BLOG, &question("cloud.", RecordType::A));
        assert!(
            matches!(of_other, Plan::Answer(_)),
            "another app has it not"
        );
    }

    #[test]
    fn a_name_that_stands_for_one_of_the_nodes_own_is_asked_of_nobody_else() {
        let both = |host: &str, address: &str| {
            let data = vec![host.to_owned(), address.to_owned()];
            Some((ResponseCode::NoError, data))
        };
        let asked = |name: &str| ask(SHOP, name, RecordType::A);
        assert_eq!(asked("short."), both("web.", "10.1.240.5"));
        let long = "Web.shop.svc.cluster.local.";
        assert_eq!(asked("long.shop.svc."), both(long, "10.1.240.5"));
        let pod = "db-0.db.default.svc.cluster.local.";
        assert_eq!(asked("cluster.default.svc."), both(pod, "10.1.240.7"));
        assert_eq!(asked("machine."), both("host.layby.internal.", "10.1.3.1"));
        assert_eq!(ask(SHOP, "short.", RecordType::AAAA), known("web."));
        for name in ["others.", "nobodys.", "round.", "third."] {
            assert_eq!(asked(name), NO_NAME, "{name}");
        }
        // Who may not ask for what it stands for does not come to it by the alias either.
        assert_eq!(ask(BLOG, "short.", RecordType::A), NO_NAME);
    }

    #[test]
    fn a_name_of_several_leads_one_question_to_the_one_and_the_next_to_the_other() {
        let mut directory = directory();
        let shop = Arc::make_mut(&mut directory.names).get_mut("shop");
        let names = shop.expect("it has names");
        names.insert("web".to_owned(), vec![WEB, POD]);
        let first = |name: &str, id: u16| {
            let mut asked = Message::from_vec(&question(name, RecordType::A)).expect("a message");
            asked.metadata.id = id;
            let asked = asked.to_vec().expect("bytes");
            let Plan::Answer(bytes) = plan(&directory, SHOP, &asked) else {
                panic!("it is answered");
            };
            let answer = Message::from_vec(&bytes).expect("a message");
            let mut found = answer
                .answers
                .iter()
                .filter_map(|record| match &record.data {
                    RData::A(A(address)) => Some(*address),
                    _ => None,
                });
            let first = found.next();
            assert_eq!(found.count(), 1, "the other one comes behind");
            first
        };
        for name in ["web.", "short."] {
            assert_eq!(first(name, 6), Some(WEB), "{name}");
            assert_eq!(first(name, 7), Some(POD), "{name}");
        }
    }

    #[test]
    fn from_an_internal_network_neither_the_machine_nor_a_host_elsewhere_is_found() {
        let mut directory = directory();
        directory.apps.insert(200, "shop".to_owned());
        let inside = Ipv4Addr::new(10, 1, 200, 2);
        let code = |name: &str| {
            let asked = question(name, RecordType::A);
            let Plan::Answer(bytes) = plan(&directory, inside, &asked) else {
                panic!("{name} is asked for elsewhere");
            };
            let answer = Message::from_vec(&bytes).expect("a message");
            answer.metadata.response_code
        };
        for name in ["web.", "short."] {
            assert_eq!(code(name), ResponseCode::NoError, "{name}");
        }
        for name in [
            "host.docker.internal.",
            "host.layby.internal.",
            "machine.",
            "cloud.",
            "example.org.",
        ] {
            assert_eq!(code(name), ResponseCode::NXDomain, "{name}");
        }
    }

    #[test]
    fn the_machine_is_the_gateway_of_the_bridge_that_asks() {
        for name in ["host.layby.internal.", "host.docker.internal."] {
            assert_eq!(ask(SHOP, name, RecordType::A), known("10.1.3.1"));
            assert_eq!(ask(BUILD, name, RecordType::A), known("10.1.5.1"));
        }
        assert_eq!(ask(SHOP, "other.layby.internal.", RecordType::A), NO_NAME);
    }

    #[test]
    fn all_else_is_for_others_to_answer() {
        for name in [
            "example.org.",
            "web.example.org.",
            "notdocker.internal.",
            "www.shop.",
        ] {
            assert_eq!(ask(SHOP, name, RecordType::A), None, "{name}");
        }
        assert_eq!(ask(SHOP, "shop.", RecordType::NS), None);
        assert_eq!(ask(SHOP, "nosuch.", RecordType::A), NO_NAME);
        assert_eq!(
            ask(SHOP, "1.1.168.192.in-addr.arpa.", RecordType::PTR),
            None
        );
    }

    #[test]
    fn an_address_of_the_node_has_its_longest_name_and_is_asked_of_nobody_else() {
        let ask = |name: &str| ask(SHOP, name, RecordType::PTR);
        assert_eq!(ask("5.240.1.10.in-addr.arpa."), known("web.shop."));
        assert_eq!(ask("1.3.1.10.in-addr.arpa."), known("host.layby.internal."));
        assert_eq!(ask("6.240.1.10.in-addr.arpa."), NO_NAME);
    }

    #[test]
    fn who_is_not_on_a_bridge_gets_no_answer() {
        let question = question("web.", RecordType::A);
        for from in [
            [192, 168, 1, 1],
            [10, 1, 240, 5],
            [10, 2, 3, 2],
            [10, 1, 3, 1],
        ] {
            assert_eq!(plan(&directory(), from.into(), &question), Plan::Ignore);
        }
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let ask = |bytes: &[u8]| plan(&directory(), SHOP, bytes);
        assert_eq!(ask(b""), Plan::Ignore);
        assert_eq!(ask(b"nonsense that is no DNS"), Plan::Ignore);
        let mut answer = Message::from_vec(&question("web.", RecordType::A)).expect("a message");
        answer.metadata.message_type = MessageType::Response;
        assert_eq!(ask(&answer.to_vec().expect("a message")), Plan::Ignore);
        let refused = Some((ResponseCode::Refused, Vec::new()));
        assert_eq!(super::tests::ask(SHOP, "web.", RecordType::AXFR), refused);
    }

    #[test]
    fn who_says_what_it_takes_is_told_so_too() {
        let mut message = Message::from_vec(&question("web.", RecordType::A)).expect("a message");
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        let Plan::Answer(bytes) = plan(&directory(), SHOP, &message.to_vec().expect("bytes"))
        else {
            panic!("it is answered");
        };
        let answer = Message::from_vec(&bytes).expect("a message");
        assert_eq!(answer.edns.map(|edns| edns.max_payload()), Some(OWN_UDP));
        assert_eq!(takes(&message), 4096);
    }
}
