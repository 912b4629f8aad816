//! Networks: which services reach each other, and by which names.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::names::ServiceName;
use layby_model::network::{MAX_NAMES_LEN, Networks, SHARED};
use layby_model::options::NetworkMode;

use crate::compose::depends::Need;
use crate::compose::volumes::external;
use crate::compose::volumes_from;
use crate::compose::watch::{Watch, WatchRule};
use crate::draft::{Draft, Placed, not_a_label};
use crate::fields::{Fields, parsed};
use crate::report::Report;
use crate::tree::{Entry, Place, Value, cut};

/// The network that a service is in where nothing is said.
const DEFAULT: &str = "default";
/// So many different sets of networks an app may have: each has a bridge of its own, of which a node has a bounded number.
pub(crate) const MAX_SETS: usize = 40;

/// A network as the top of the file declares it.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    internal: bool,
    /// The name of the node's network that it stands for (`external`).
    external: Option<String>,
}

/// The networks that a service is in, and what else it is called there.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    names: BTreeMap<String, Place>,
    /// Each with the network where it is called so.
    aliases: Vec<(String, Placed<String>)>,
    pub(crate) mode: Mode,
}

/// Whose network a service is in (`network_mode`).
#[derive(Debug, Default)]
pub(crate) enum Mode {
    /// Those that it names.
    #[default]
    Own,
    /// None.
    None,
    /// The machine's.
    Host,
    /// That of another service of the file.
    Service(Placed<String>),
}

impl Mode {
    /// What its replicas have: those of one in the network of another are that one's.
    pub(crate) fn of_sandbox(&self) -> NetworkMode {
        match self {
            Self::Own | Self::Service(_) => NetworkMode::Own,
            Self::None => NetworkMode::None,
            Self::Host => NetworkMode::Host,
        }
    }
}

/// Takes `networks` off the top of a Compose file.
pub(crate) fn declared(top: &mut Fields, report: &mut Report) -> BTreeMap<String, Declared> {
    let mut declared = BTreeMap::new();
    let Some(mut map) = top.map("networks", report) else {
        return declared;
    };
    map.accept_extensions();
    for entry in map.rest() {
        let what = format!("the network {:?}", cut(&entry.key));
        if !Networks::is_name(&entry.key) {
            let message = format!(
                "{what} must be called otherwise: letters, digits, '_', '.' and '-', beginning with a letter or digit"
            );
            report.error(&entry.place, message);
        }
        let fields = Fields::open(entry.value, what, report);
        let network = fields.map(|fields| network(&entry.key, fields, report));
        declared.insert(entry.key, network.unwrap_or_default());
    }
    declared
}

/// Reads a network.
fn network(key: &str, mut network: Fields, report: &mut Report) -> Declared {
    let internal = network.flag("internal", report).unwrap_or(false);
    let what = network.what.clone();
    let driver_place = network.place_of("driver");
    let driver = network.parsed("driver", report, |text| match text {
        "" | "bridge" | "default" | "overlay" => Ok(text.to_owned()),
        _ => Err("bridge (no other driver is supported)".to_owned()),
    });
    if let (Some("overlay"), Some(place)) = (driver.as_deref(), driver_place) {
        let message = format!(
            "{} is ignored: an overlay joins machines, and on one it is a bridge as any other",
            network.name("driver")
        );
        report.warn(&place, message);
    }
    let name = network.placed("name", report);
    let external = external(&mut network, report);
    let external = external.map(|older| {
        let name = older.name.or(name.map(|name| name.value));
        name.unwrap_or_else(|| key.to_owned())
    });
    if let Some(name) = &external
        && !Networks::is_name(name)
    {
        let message = format!(
            "{what} stands for {:?}, which no network is called",
            cut(name)
        );
        report.error(&network.place, message);
    }
    // Who else may join changes nothing for its services.
    network.accept(&["attachable", "labels"]);
    network.accept_extensions();
    accept_if(&mut network, "enable_ipv4", "true");
    accept_if(&mut network, "enable_ipv6", "false");
    network.unsupported(
        &["driver_opts", "enable_ipv4", "enable_ipv6", "ipam"],
        report,
    );
    network.finish(report);
    Declared { internal, external }
}

/// Takes a key off whose value is what holds anyway.
fn accept_if(fields: &mut Fields, key: &'static str, value: &str) {
    if let Some(entry) = fields.entry(key)
        && entry.value.scalar() != Some(value)
    {
        fields.put_back(entry);
    }
}

/// Takes `networks` and `network_mode` off a service.
pub(crate) fn joined(service: &mut Fields, report: &mut Report) -> Joined {
    let mut joined = Joined {
        mode: mode(service, report),
        ..Joined::default()
    };
    let name = service.name("networks");
    let Some(node) = service.take("networks") else {
        return joined;
    };
    if !matches!(joined.mode, Mode::Own) {
        let message = format!(
            "{name} and {} exclude each other: leave one of them out",
            service.name("network_mode")
        );
        report.error(&node.place, message);
        return joined;
    }
    match node.value {
        Value::List(items) => {
            let item_name = format!("an item of {name}");
            for item in items {
                let key = parsed(&item, &item_name, report, |text| Ok(text.to_owned()));
                joined.names.extend(key.map(|key| (key, item.place)));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let key = entry.key.clone();
                let place = entry.place.clone();
                let aliases = membership(entry, &name, report).into_iter();
                let aliases = aliases.map(|alias| (key.clone(), alias));
                joined.aliases.extend(aliases);
                joined.names.insert(key, place);
            }
        }
        Value::Null => {}
        Value::Scalar { .. } => {
            let message = format!("{name} must be a list or a map, not {}", node.shown());
            report.error(&node.place, message);
        }
    }
    joined
}

/// Takes `network_mode` off a service.
fn mode(service: &mut Fields, report: &mut Report) -> Mode {
    let place = service.place_of("network_mode");
    let word = service.parsed("network_mode", report, |text| match text {
        "" | "bridge" | "default" | "none" | "host" => Ok(text.to_owned()),
        _ if text.starts_with("service:") => Ok(text.to_owned()),
        _ if text.starts_with("container:") => {
            Err("service:NAME, of this file (containers of others are not joined)".to_owned())
        }
        _ => Err(
            "none, host, service:NAME, or left out (a network is named in \"networks\")".to_owned(),
        ),
    });
    match (word.as_deref(), place) {
        (Some("none"), _) => Mode::None,
        (Some("host"), _) => Mode::Host,
        (Some(word), Some(place)) => match word.strip_prefix("service:") {
            Some(name) => Mode::Service(Placed {
                value: name.to_owned(),
                place,
            }),
            None => Mode::Own,
        },
        (_, None) | (None, _) => Mode::Own,
    }
}

/// How a service is in one network: hands out its aliases.
fn membership(entry: Entry, name: &str, report: &mut Report) -> Vec<Placed<String>> {
    let what = format!("{:?} of {name}", cut(&entry.key));
    let Some(mut fields) = Fields::open(entry.value, what, report) else {
        return Vec::new();
    };
    let aliases = fields.text_or_texts("aliases", report).unwrap_or_default();
    for key in [
        "ipv4_address",
        "ipv6_address",
        "link_local_ips",
        "mac_address",
    ] {
        if let Some(entry) = fields.entry(key) {
            let message = format!(
                "{} is ignored: who is to reach the service asks for it by its name",
                fields.name(key)
            );
            report.warn(&entry.place, message);
        }
    }
    fields.unsupported(
        &["driver_opts", "gw_priority", "interface_name", "priority"],
        report,
    );
    fields.accept_extensions();
    fields.finish(report);
    aliases
}

/// A name of another service that one asks for (`links`).
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) service: String,
    alias: Option<String>,
    pub(crate) place: Place,
}

/// Takes `links` off a service: `SERVICE[:ALIAS]`.
pub(crate) fn links(service: &mut Fields, report: &mut Report) -> Vec<Link> {
    service
        .text_or_texts("links", report)
        .unwrap_or_default()
        .into_iter()
        .map(|item| {
            let (service, alias) = match item.value.split_once(':') {
                Some((service, alias)) => (service, Some(alias)),
                None => (item.value.as_str(), None),
            };
            Link {
                service: service.to_owned(),
                alias: alias.filter(|alias| *alias != service).map(str::to_owned),
                place: item.place.clone(),
            }
        })
        .collect()
}

/// A service with what it says of networks and of others.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) draft: Draft,
    /// What the file calls it.
    pub(crate) key: String,
    pub(crate) joined: Joined,
    pub(crate) links: Vec<Link>,
    /// `depends_on`, and those that it links to.
    pub(crate) needs: Vec<Need>,
    /// It says itself what is done when it ends.
    pub(crate) restart_said: bool,
    /// `container_name`, by which Docker's containers find each other, too.
    pub(crate) container_name: Option<Placed<String>>,
    /// The services whose volumes it wants.
    pub(crate) volumes_from: Vec<volumes_from::From>,
    /// What is done when files of the developer change.
    pub(crate) watch: Vec<WatchRule>,
}

impl Member {
    /// What is done when files of the developer change, if anything is. Takes it away.
    pub(crate) fn watch(&mut self) -> Option<Watch> {
        let rules = std::mem::take(&mut self.watch);
        let service = self.draft.spec.name.clone();
        (!rules.is_empty()).then_some(Watch { service, rules })
    }
}

/// Puts the services into their networks, and gives them their further names.
pub(crate) fn join(
    declared: &BTreeMap<String, Declared>,
    mut members: Vec<Member>,
    report: &mut Report,
) -> Vec<Draft> {
    let everywhere = everywhere(declared, &members);
    let several = of_several(&everywhere, &members);
    apart(declared, &mut members, report);
    for member in &mut members {
        for (network, alias) in std::mem::take(&mut member.joined.aliases) {
            match everywhere.contains(&network) {
                true if several.contains(&alias.value)
                    && alias.value != member.draft.spec.name.as_str() =>
                {
                    add_own(&mut member.draft, network, &alias, report);
                    let message = format!(
                        "the name {:?} leads to each of the services that have it; at the gateway it is not this one's",
                        cut(&alias.value)
                    );
                    report.warn(&alias.place, message);
                }
                true if ServiceName::new(&alias.value).is_err() => {
                    add_own(&mut member.draft, network, &alias, report);
                }
                true => add_alias(&mut member.draft, &alias.value, &alias.place, report),
                false => {
                    let network = known_as(declared, &network);
                    add_name(&mut member.draft, network, &alias, report);
                }
            }
        }
    }
    let links: Vec<Link> = members
        .iter_mut()
        .flat_map(|member| std::mem::take(&mut member.links))
        .collect();
    let index: BTreeMap<String, usize> = members
        .iter()
        .enumerate()
        .map(|(index, member)| (member.key.clone(), index))
        .collect();
    for link in links {
        let Some(index) = index.get(&link.service) else {
            let message = format!(
                "\"links\" names {:?}, which is no service of this file that is run",
                cut(&link.service)
            );
            report.error(&link.place, message);
            continue;
        };
        if let Some(alias) = &link.alias {
            add_alias(&mut members[*index].draft, alias, &link.place, report);
            let message = format!(
                "the link's name {:?} leads to {:?} for every service of the app, not only for this one",
                cut(alias),
                cut(&link.service)
            );
            report.warn(&link.place, message);
        }
    }
    container_names(&mut members, report);
    members.into_iter().map(|member| member.draft).collect()
}

/// What a network of the file is called in the model.
fn known_as(declared: &BTreeMap<String, Declared>, name: &str) -> String {
    let external = declared.get(name).and_then(|one| one.external.as_ref());
    external.map_or_else(|| name.to_owned(), |external| format!("{SHARED}{external}"))
}

/// The networks of the app that all of its services are in: whoever has a name there has it for the whole app.
fn everywhere(declared: &BTreeMap<String, Declared>, members: &[Member]) -> BTreeSet<String> {
    let mut sets = members.iter().map(|member| {
        let names: BTreeSet<String> = member.joined.names.keys().cloned().collect();
        match names.is_empty() && matches!(member.joined.mode, Mode::Own) {
            true => BTreeSet::from([DEFAULT.to_owned()]),
            false => names,
        }
    });
    let first = sets.next().unwrap_or_default();
    let mut common = sets.fold(first, |common, set| &common & &set);
    common.retain(|name| declared.get(name).is_none_or(|one| one.external.is_none()));
    common
}

/// The labels that several services have, as an alias for the whole app or as their own name: each leads to all of them.
fn of_several(everywhere: &BTreeSet<String>, members: &[Member]) -> BTreeSet<String> {
    let mut holders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in members {
        let aliases = member.joined.aliases.iter();
        let aliases = aliases.filter(|(network, _)| everywhere.contains(network));
        let aliases = aliases.map(|(_, alias)| alias.value.as_str());
        let labels = aliases.filter(|alias| ServiceName::new(alias).is_ok());
        for label in labels.chain([member.draft.spec.name.as_str()]) {
            holders.entry(label).or_default().insert(&member.key);
        }
    }
    holders.retain(|_, keys| keys.len() > 1);
    holders.into_keys().map(str::to_owned).collect()
}

/// Gives a service a name that those in one network find, and nobody else.
fn add_name(draft: &mut Draft, network: String, alias: &Placed<String>, report: &mut Report) {
    let Some(name) = inner_name(&alias.value) else {
        return report.error(&alias.place, not_a_label("further", &alias.value));
    };
    if network.starts_with(SHARED) && name.contains('.') {
        report.warn(&alias.place, own_app_alone(&name));
    }
    let names = draft.spec.network_names.entry(network).or_default();
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Gives a service a name that the services of its app find, and no other app: those find [`Draft::spec`]'s `names` where they
/// share a network with it. `network` is one of the app's own that all its services are in.
fn add_own(draft: &mut Draft, network: String, alias: &Placed<String>, report: &mut Report) {
    let is_shared = draft.spec.networks.shared().next().is_some();
    match (is_shared, inner_name(&alias.value)) {
        // Where any network is shared they are kept apart, so that this one is known by its name.
        (true, _) => add_name(draft, network, alias, report),
        (false, Some(name)) => add_inner(draft, name),
        (false, None) => report.error(&alias.place, not_a_label("further", &alias.value)),
    }
}

/// What is told of a name with a dot in a network that apps share.
fn own_app_alone(name: &str) -> String {
    format!(
        "the name {:?} is found by this app's own services alone: other apps find a service by names without a dot and by SERVICE.APP",
        cut(name)
    )
}

/// Gives services the names of their containers, where these can be host names and are nobody else's.
fn container_names(members: &mut [Member], report: &mut Report) {
    let mut taken: BTreeSet<String> = members
        .iter()
        .map(|member| &member.draft.spec)
        .flat_map(|spec| {
            let labels = spec.aliases.iter().chain([&spec.name]);
            labels.map(ToString::to_string).chain(spec.names.clone())
        })
        .collect();
    for member in members {
        let Some(given) = member.container_name.take() else {
            continue;
        };
        let spec = &mut member.draft.spec;
        let name = inner_name(&given.value);
        let is_own = |name: &String| {
            let labels = spec.aliases.iter().chain([&spec.name]);
            labels.map(ServiceName::as_str).any(|label| label == name) || spec.names.contains(name)
        };
        if name.as_ref().is_some_and(is_own) {
            continue;
        }
        let free = name.filter(|name| taken.insert(name.clone()));
        if let Some(name) = &free {
            // Other apps that it shares a network with find it so, too.
            let shared: Vec<String> = spec.networks.shared().map(str::to_owned).collect();
            if !shared.is_empty() && name.contains('.') {
                report.warn(&given.place, own_app_alone(name));
            }
            for network in shared {
                let names = spec.network_names.entry(network).or_default();
                names.push(name.clone());
            }
        }
        match free.map(|name| (ServiceName::new(&name), name)) {
            Some((Ok(label), _)) => {
                spec.aliases.push(label);
                member.draft.aliases_at.push(given.place);
            }
            Some((Err(_), name)) => spec.names.push(name),
            None => {
                let message = format!(
                    "\"container_name\" in service {:?} is ignored: a replica has a name of its own, and {:?} is no host name that is free",
                    spec.name.as_str(),
                    cut(&given.value)
                );
                report.warn(&given.place, message);
            }
        }
    }
}

fn add_alias(draft: &mut Draft, alias: &str, place: &Place, report: &mut Report) {
    match ServiceName::new(alias) {
        Ok(alias) if alias == draft.spec.name || draft.spec.aliases.contains(&alias) => {}
        Ok(alias) => {
            draft.spec.aliases.push(alias);
            draft.aliases_at.push(place.clone());
        }
        Err(_) => match inner_name(alias) {
            Some(name) => add_inner(draft, name),
            None => report.error(place, not_a_label("further", alias)),
        },
    }
}

fn add_inner(draft: &mut Draft, name: String) {
    if !draft.spec.names.contains(&name) {
        draft.spec.names.push(name);
    }
}

/// A name by which services of the app find each other although it is no label: Docker's name server knows such, too.
pub(crate) fn inner_name(text: &str) -> Option<String> {
    const MAX_LABEL: usize = 63;
    const MAX_NAME: usize = 200;
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label =
        |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_inner);
    let fits = text.len() <= MAX_NAME && text.split('.').all(is_label);
    (fits && text.bytes().any(|b| b.is_ascii_alphanumeric())).then(|| text.to_ascii_lowercase())
}

/// Puts the services into their networks. Where all are in the same ones, nothing is to be kept apart.
fn apart(declared: &BTreeMap<String, Declared>, members: &mut [Member], report: &mut Report) {
    let mut sets: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    let own = |member: &&mut Member| matches!(member.joined.mode, Mode::Own);
    for member in members.iter_mut().filter(own) {
        for (name, place) in &member.joined.names {
            if name != DEFAULT && !declared.contains_key(name) {
                let message = format!(
                    "the network {:?} is not declared: name it under \"networks\" at the top of the Compose file",
                    cut(name)
                );
                report.error(place, message);
            }
        }
        let place = member.joined.names.values().next();
        let place = place.unwrap_or(&member.draft.place).clone();
        let mut names: BTreeSet<String> = member.joined.names.keys().cloned().collect();
        if names.is_empty() {
            names.insert(DEFAULT.to_owned());
        }
        let is_internal = |name: &String| declared.get(name).is_some_and(|one| one.internal);
        let internal = names.iter().all(is_internal);
        let names: BTreeSet<String> = names.iter().map(|name| known_as(declared, name)).collect();
        let length: usize = names.iter().map(|name| name.len() + 1).sum();
        if length > MAX_NAMES_LEN {
            let message = format!(
                "the names of the networks of service {:?} are longer than {MAX_NAMES_LEN} characters together",
                member.draft.spec.name.as_str()
            );
            report.error(&place, message);
        }
        sets.insert(names.clone());
        if sets.len() > MAX_SETS {
            let message = format!(
                "the services are in more than {MAX_SETS} different sets of networks, each of which takes a bridge"
            );
            report.error(&place, message);
            return;
        }
        let networks = Networks { internal, names };
        // Named or not it is one network: that others get further ones is no change of this service.
        member.draft.spec.networks = match networks.is_usual() {
            true => Networks::default(),
            false => networks,
        };
    }
    let is_one = sets.len() == 1
        && members.iter().all(|member| {
            let networks = &member.draft.spec.networks;
            !networks.internal && networks.shared().next().is_none()
        });
    if is_one {
        for member in members {
            member.draft.spec.networks = Networks::default();
        }
    }
}
