//! Values of a service that have a short and a long form: brought into the long one.

use crate::compose::ports;
use crate::tree::{Entry, Node, Place, Value};

use super::keys::{BUILD, CONDITION, DEVICES, FILE, MEMBERSHIP, MOUNT, PORT};
use super::shape::{Shape, pairs_of, path, shaped};
use super::{Surroundings, list, map, plain, sort, text};

/// A map with keys and values that are text.
fn texts(pairs: &[(&str, &str)], place: &Place) -> Node {
    let pairs = pairs.iter();
    let pairs = pairs.map(|(key, value)| ((*key).to_owned(), text(*value, place)));
    map(pairs.collect(), place)
}

/// Adds a key, where it is not there.
pub(super) fn add(node: &mut Node, key: &str, value: Node) {
    if let Value::Map(entries) = &mut node.value
        && entries.iter().all(|entry| entry.key != key)
    {
        entries.push(Entry {
            key: key.to_owned(),
            place: value.place.clone(),
            value,
        });
        sort(entries);
    }
}

/// `build`: a folder, or a map.
pub(super) fn build(node: Node, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    let whole = match node.scalar() {
        Some(context) => texts(&[("context", context)], &place),
        None => node,
    };
    let mut build = shaped(whole, Shape::Map(BUILD), around);
    add(&mut build, "context", context(text(".", &place), around));
    if build.get("dockerfile_inline").is_none() {
        add(&mut build, "dockerfile", text("Dockerfile", &place));
    }
    build
}

/// Arguments of a build: one without a value has the caller's.
pub(super) fn args(node: Node, around: &Surroundings<'_>) -> Node {
    let mut args = pairs_of(node);
    if let (Value::Map(entries), false) = (&mut args.value, around.no_interpolate) {
        for entry in entries
            .iter_mut()
            .filter(|entry| entry.value.value == Value::Null)
        {
            if let Some(value) = around.variables.get(&entry.key) {
                entry.value = text(value, &entry.place);
            }
        }
    }
    args
}

/// A folder that an image is built from, or the address of something.
pub(super) fn context(node: Node, around: &Surroundings<'_>) -> Node {
    let is_elsewhere = |text: &str| text.contains("://") || text.starts_with("git@");
    match node.scalar() {
        Some(folder) if !is_elsewhere(folder) => {
            let folder = if folder.is_empty() { "." } else { folder };
            text(path(folder, around), &node.place)
        }
        _ => node,
    }
}

/// `additional_contexts`: folders and images by their names.
pub(super) fn contexts(node: Node, around: &Surroundings<'_>) -> Node {
    let mut contexts = pairs_of(node);
    if let Value::Map(entries) = &mut contexts.value {
        for entry in entries {
            let value = entry.value.clone();
            let is_service = value
                .scalar()
                .is_some_and(|text| text.starts_with("service:"));
            if !is_service {
                entry.value = context(value, around);
            }
        }
    }
    contexts
}

/// `ssh`: keys of the agent by their names.
pub(super) fn ssh(node: Node, around: &Surroundings<'_>) -> Node {
    match &node.value {
        Value::Map(entries) => {
            let item = |entry: &Entry| match entry.value.scalar() {
                Some(value) => text(format!("{}={value}", entry.key), &entry.place),
                None => text(&entry.key, &entry.place),
            };
            list(entries.iter().map(item).collect(), &node.place)
        }
        Value::Null | Value::Scalar { .. } | Value::List(_) => shaped(node, Shape::Words, around),
    }
}

/// Labels: one without a value has an empty one.
pub(super) fn labels(node: Node, _: &Surroundings<'_>) -> Node {
    let mut labels = pairs_of(node);
    if let Value::Map(entries) = &mut labels.value {
        for entry in entries
            .iter_mut()
            .filter(|entry| entry.value.value == Value::Null)
        {
            entry.value = text("", &entry.place);
        }
    }
    labels
}

/// `depends_on`: names, each with its condition.
pub(super) fn depends_on(node: Node, around: &Surroundings<'_>) -> Node {
    let mut all = named(node, around);
    if let Value::Map(entries) = &mut all.value {
        for entry in entries {
            if entry.value.value == Value::Null {
                entry.value.value = Value::Map(Vec::new());
            }
            let value = std::mem::replace(&mut entry.value, text("", &entry.place));
            entry.value = shaped(value, Shape::Map(CONDITION), around);
            add(
                &mut entry.value,
                "condition",
                text("service_started", &entry.place),
            );
            add(&mut entry.value, "required", plain(true, &entry.place));
        }
    }
    all
}

/// A list of names as a map of them.
pub(super) fn named(mut node: Node, _: &Surroundings<'_>) -> Node {
    match node.value {
        Value::List(ref items) if items.iter().all(|item| item.scalar().is_some()) => {
            let name = |item: &Node| {
                let nothing = Node::new(item.place.clone(), Value::Null);
                (item.scalar().unwrap_or_default().to_owned(), nothing)
            };
            map(items.iter().map(name).collect(), &node.place)
        }
        Value::Map(ref mut entries) => {
            sort(entries);
            node
        }
        Value::Null | Value::Scalar { .. } | Value::List(_) => node,
    }
}

/// `models`: names, each with the variables that it is told in.
pub(super) fn models(node: Node, around: &Surroundings<'_>) -> Node {
    let mut models = named(node, around);
    if let Value::Map(entries) = &mut models.value {
        let empty = entries
            .iter_mut()
            .filter(|entry| entry.value.value == Value::Null);
        empty.for_each(|entry| entry.value.value = Value::Map(Vec::new()));
    }
    models
}

/// `networks`: names, each with how the service is in it.
pub(super) fn networks(node: Node, around: &Surroundings<'_>) -> Node {
    let mut networks = named(node, around);
    if let Value::Map(entries) = &mut networks.value {
        for entry in entries {
            let value = std::mem::replace(&mut entry.value, text("", &entry.place));
            entry.value = shaped(value, Shape::Map(MEMBERSHIP), around);
        }
    }
    networks
}

/// A secret or a config, by its name or as a map.
pub(super) fn file(node: Node, around: &Surroundings<'_>) -> Node {
    match node.scalar() {
        Some(name) => texts(&[("source", name)], &node.place),
        None => shaped(node, Shape::Map(FILE), around),
    }
}

/// A device by its paths; one by the Container Device Interface stays a name.
pub(super) fn device(node: Node, _: &Surroundings<'_>) -> Node {
    let parts: Vec<&str> = node.scalar().unwrap_or_default().split(':').collect();
    let is_rights = |part: &str| !part.starts_with('/');
    let (source, target, rights) = match parts[..] {
        [source, ..] if !source.starts_with('/') => return node,
        [source] => (source, source, "rwm"),
        [source, rights] if is_rights(rights) => (source, source, rights),
        [source, target] => (source, target, "rwm"),
        [source, target, rights] => (source, target, rights),
        _ => return node,
    };
    let pairs = [
        ("source", source),
        ("target", target),
        ("permissions", rights),
    ];
    texts(&pairs, &node.place)
}

/// A file of variables, by its path or as a map.
pub(super) fn env_file(node: Node, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    let whole = match node.scalar() {
        Some(path) => texts(&[("path", path)], &place),
        None => node,
    };
    let keys = &[
        ("format", Shape::Text),
        ("path", Shape::Path),
        ("required", Shape::Flag),
    ];
    let mut file = shaped(whole, Shape::Map(keys), around);
    add(&mut file, "required", plain(true, &place));
    file
}

/// `extra_hosts`: a list of `NAME=ADDRESS`.
pub(super) fn extra_hosts(node: Node, _: &Surroundings<'_>) -> Node {
    let line = |name: &str, address: &str, place: &Place| text(format!("{name}={address}"), place);
    let mut lines = Vec::new();
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let one = [entry.value.clone()];
                let addresses = match &entry.value.value {
                    Value::List(items) => items.as_slice(),
                    Value::Null | Value::Scalar { .. } | Value::Map(_) => &one[..],
                };
                let addresses = addresses.iter().filter_map(Node::scalar);
                lines.extend(addresses.map(|address| line(&entry.key, address, &entry.place)));
            }
        }
        Value::List(items) => {
            for item in items {
                let host = item.scalar().unwrap_or_default();
                let parts = host.split_once('=').or_else(|| host.split_once(':'));
                lines.push(match parts {
                    Some((name, address)) => line(name, address, &item.place),
                    None => item.clone(),
                });
            }
        }
        Value::Null | Value::Scalar { .. } => return node,
    }
    list(lines, &node.place)
}

/// `gpus` and devices by their kind: `all`, or a list of requests.
pub(super) fn gpus(node: Node, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    match node.scalar() {
        Some("all") => list(
            vec![map(vec![("count".to_owned(), plain(-1, &place))], &place)],
            &place,
        ),
        Some(_) => node,
        None => shaped(node, Shape::Each(&Shape::Map(DEVICES)), around),
    }
}

/// How many devices: all of them are -1.
pub(super) fn count(node: Node, around: &Surroundings<'_>) -> Node {
    match node.scalar() {
        Some("all") => plain(-1, &node.place),
        _ => shaped(node, Shape::Number, around),
    }
}

/// A limit with swap: a size, or -1 for none.
pub(super) fn swap(node: Node, around: &Surroundings<'_>) -> Node {
    match node.scalar() {
        Some("-1") => text("-1", &node.place),
        _ => shaped(node, Shape::Bytes, around),
    }
}

/// A health check's command: a line is for the shell.
pub(super) fn test(node: Node, around: &Surroundings<'_>) -> Node {
    match node.scalar() {
        Some(line) => {
            let words = ["CMD-SHELL", line].map(|word| text(word, &node.place));
            list(words.into(), &node.place)
        }
        None => shaped(node, Shape::Words, around),
    }
}

/// Limits of processes: a number for both, or a soft and a hard one.
pub(super) fn ulimits(node: Node, around: &Surroundings<'_>) -> Node {
    fn limit(node: Node, around: &Surroundings<'_>) -> Node {
        let both = &[("hard", Shape::Number), ("soft", Shape::Number)];
        match node.value {
            Value::Map(_) => shaped(node, Shape::Map(both), around),
            Value::Null | Value::Scalar { .. } | Value::List(_) => {
                shaped(node, Shape::Number, around)
            }
        }
    }
    shaped(node, Shape::Named(&Shape::Own(limit)), around)
}

/// `ports`, each in its long form; one of a range is one of its own, where it has a port of the machine of its own.
pub(super) fn ports(node: Node, around: &Surroundings<'_>) -> Node {
    let Value::List(items) = node.value else {
        return node;
    };
    let mut all: Vec<Node> = Vec::new();
    for item in items {
        match item.scalar().map(ports::written) {
            Some(Ok(written)) => {
                for port in written {
                    let mut pairs = vec![
                        ("mode".to_owned(), text("ingress", &item.place)),
                        ("protocol".to_owned(), text(port.protocol, &item.place)),
                        ("target".to_owned(), plain(port.target, &item.place)),
                    ];
                    let published = port.published.filter(|port| !port.is_empty());
                    pairs.extend(
                        published.map(|port| ("published".to_owned(), text(port, &item.place))),
                    );
                    pairs.extend(
                        port.host
                            .map(|host| ("host_ip".to_owned(), text(host, &item.place))),
                    );
                    all.push(map(pairs, &item.place));
                }
            }
            Some(Err(_)) => all.push(item),
            None => {
                let place = item.place.clone();
                let mut port = shaped(item, Shape::Map(PORT), around);
                add(&mut port, "mode", text("ingress", &place));
                add(&mut port, "protocol", text("tcp", &place));
                all.push(port);
            }
        }
    }
    list(all, &node.place)
}

/// A volume, in its long form.
pub(super) fn volume(node: Node, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    let Some(short) = node.scalar() else {
        let mut volume = shaped(node, Shape::Map(MOUNT), around);
        if volume.get("type").and_then(Node::scalar) == Some("bind")
            && let Value::Map(entries) = &mut volume.value
        {
            let source = entries.iter_mut().find(|entry| entry.key == "source");
            if let Some(source) = source
                && let Some(from) = source.value.scalar().map(str::to_owned)
            {
                source.value = text(path(&from, around), &place);
            }
        }
        return volume;
    };
    let parts: Vec<&str> = short.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return node,
    };
    if source == Some("") || target.contains('$') {
        return node;
    }
    let is_bind = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
    let mut pairs = vec![
        (
            "type".to_owned(),
            text(if is_bind { "bind" } else { "volume" }, &place),
        ),
        ("target".to_owned(), text(target, &place)),
    ];
    if let Some(source) = source {
        let source = match is_bind {
            true => path(source, around),
            false => source.to_owned(),
        };
        pairs.push(("source".to_owned(), text(source, &place)));
    }
    let (mut bind, mut volume) = (Vec::new(), Vec::new());
    if is_bind {
        bind.push(("create_host_path".to_owned(), plain(true, &place)));
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => pairs.push(("read_only".to_owned(), plain(true, &place))),
            "rw" => {}
            "nocopy" => volume.push(("nocopy".to_owned(), plain(true, &place))),
            "z" | "Z" => bind.push(("selinux".to_owned(), text(option, &place))),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                bind.push(("propagation".to_owned(), text(option, &place)));
            }
            "cached" | "delegated" | "consistent" => {
                pairs.push(("consistency".to_owned(), text(option, &place)));
            }
            _ => return node,
        }
    }
    for (key, options) in [("bind", bind), ("volume", volume)] {
        if !options.is_empty() {
            pairs.push((key.to_owned(), map(options, &place)));
        }
    }
    map(pairs, &place)
}

/// `external`: true, or the older map with a name, which is kept.
pub(super) fn external(node: Node, around: &Surroundings<'_>) -> Node {
    match node.value {
        Value::Map(_) => node,
        Value::Null | Value::Scalar { .. } | Value::List(_) => shaped(node, Shape::Flag, around),
    }
}

/// Options of a volume's driver: the folder of the machine is a path where it looks like one.
pub(super) fn driver_opts(node: Node, around: &Surroundings<'_>) -> Node {
    let mut options = pairs_of(node);
    if let Value::Map(entries) = &mut options.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == "device") {
            if let Some(device) = entry.value.scalar().filter(|text| text.starts_with('.')) {
                entry.value = text(path(device, around), &entry.place);
            }
        }
    }
    options
}
