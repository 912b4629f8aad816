//! No key of the Compose Specification is passed over in silence: each changes what is deployed, or is told with its
//! line. The few that change nothing on any platform's containers are named here, each with its reason.

use layby_manifest::{Files, ReadOptions, read};

/// Where keys stand: a manifest with `@` in the place of one.
struct Place {
    name: &'static str,
    manifest: &'static str,
    keys: &'static [(&'static str, &'static str)],
    /// Those that are known to change nothing.
    inert: &'static [&'static str],
}

/// All keys, from the schema of the Compose Specification (schema/compose-spec.json), each with a value that is not
/// what holds anyway.
const PLACES: &[Place] = &[
    Place {
        name: "top",
        manifest: "services: {web: {image: x}}\n@\n",
        keys: &[
            ("include", "[other.yaml]"),
            ("models", "{m: {model: x}}"),
            ("name", "other"),
        ],
        // What is declared changes something once a service names it.
        inert: &["configs", "networks", "secrets", "version", "volumes"],
    },
    Place {
        name: "service",
        manifest: "services:\n  web:\n    build: .\n    @\n",
        keys: &[
            ("blkio_config", "{weight: 300}"),
            ("cap_add", "[NET_ADMIN]"),
            ("cap_drop", "[ALL]"),
            ("cgroup", "host"),
            ("cgroup_parent", "x"),
            ("command", "run"),
            ("configs", "[c]"),
            ("container_name", "x"),
            ("cpu_count", "1"),
            ("cpu_percent", "1"),
            ("cpu_quota", "1"),
            ("cpu_rt_period", "1"),
            ("cpu_rt_runtime", "1"),
            ("cpu_shares", "1"),
            ("cpus", "0.5"),
            ("cpuset", "0"),
            ("credential_spec", "{file: x}"),
            ("depends_on", "[db]"),
            ("deploy", "{replicas: 2}"),
            ("develop", "{watch: [{path: ., action: rebuild}]}"),
            ("device_cgroup_rules", "['c 1:3 mr']"),
            ("devices", "[/dev/null]"),
            ("dns", "192.0.2.1"),
            ("dns_opt", "[rotate]"),
            ("dns_search", "example.org"),
            ("domainname", "example.org"),
            ("entrypoint", "run"),
            ("env_file", "a.env"),
            ("environment", "{A: b}"),
            ("expose", "['80']"),
            ("extends", "{service: db}"),
            ("external_links", "[x]"),
            ("extra_hosts", "['a=192.0.2.1']"),
            ("gpus", "all"),
            ("group_add", "[audio]"),
            ("healthcheck", "{test: true}"),
            ("hostname", "x"),
            ("image", "y"),
            ("init", "true"),
            ("ipc", "host"),
            ("isolation", "x"),
            ("links", "['web:www']"),
            ("logging", "{driver: none}"),
            ("mac_address", "'02:42:ac:11:65:43'"),
            ("mem_limit", "64m"),
            ("mem_reservation", "64m"),
            ("mem_swappiness", "1"),
            ("memswap_limit", "64m"),
            ("models", "[m]"),
            ("network_mode", "host"),
            ("networks", "{default: {aliases: [www]}}"),
            ("oom_kill_disable", "true"),
            ("oom_score_adj", "1"),
            ("pid", "host"),
            ("pids_limit", "9"),
            ("platform", "linux/arm64"),
            ("ports", "['80']"),
            ("post_start", "[{command: x}]"),
            ("pre_stop", "[{command: x}]"),
            ("privileged", "true"),
            ("profiles", "[debug]"),
            ("provider", "{type: x}"),
            ("pull_policy", "never"),
            ("pull_refresh_after", "1h"),
            ("read_only", "true"),
            ("restart", "'no'"),
            ("runtime", "x"),
            ("scale", "2"),
            ("secrets", "[s]"),
            ("security_opt", "['no-new-privileges:false']"),
            ("shm_size", "1g"),
            ("stdin_open", "true"),
            ("stop_grace_period", "1s"),
            ("stop_signal", "SIGINT"),
            ("storage_opt", "{size: 1g}"),
            ("sysctls", "{net.core.somaxconn: 1}"),
            ("tmpfs", "/run"),
            ("tty", "true"),
            ("ulimits", "{nofile: 9}"),
            ("use_api_socket", "true"),
            ("user", "'1'"),
            ("userns_mode", "host"),
            ("uts", "host"),
            ("volumes", "[/data]"),
            ("volumes_from", "[other]"),
            ("working_dir", "/x"),
            ("x-layby", "{port: 80}"),
        ],
        // Notes for people and tools, what a command in the foreground would show, and what a quota is counted in.
        inert: &[
            "annotations",
            "attach",
            "cpu_period",
            "label_file",
            "labels",
        ],
    },
    Place {
        name: "build",
        manifest: "services:\n  web:\n    image: x\n    build:\n      @\nsecrets: {s: {file: ./s}}\n",
        keys: &[
            ("additional_contexts", "{a: ./a}"),
            ("args", "{A: b}"),
            ("context", "./other"),
            ("dockerfile", "x"),
            ("dockerfile_inline", "FROM scratch"),
            ("entitlements", "[network.host]"),
            ("extra_hosts", "['a=192.0.2.1']"),
            ("isolation", "x"),
            ("labels", "{a: b}"),
            ("network", "none"),
            ("no_cache", "true"),
            ("platforms", "[linux/arm64]"),
            ("privileged", "true"),
            ("provenance", "true"),
            ("pull", "true"),
            ("sbom", "true"),
            ("secrets", "[s]"),
            ("shm_size", "1g"),
            ("ssh", "[default]"),
            ("tags", "[y]"),
            ("target", "x"),
            ("ulimits", "{nofile: 9}"),
        ],
        // The image is the same; the cache is the node's own.
        inert: &["cache_from", "cache_to"],
    },
    Place {
        name: "deploy",
        manifest: "services:\n  web:\n    image: x\n    deploy:\n      @\n",
        keys: &[
            ("endpoint_mode", "dnsrr"),
            ("mode", "global"),
            ("placement", "{constraints: [x]}"),
            ("replicas", "2"),
            ("resources", "{limits: {cpus: 1}}"),
            ("restart_policy", "{condition: none}"),
            ("rollback_config", "{parallelism: 1}"),
            ("update_config", "{order: stop-first}"),
        ],
        inert: &["labels"],
    },
    Place {
        name: "restart_policy",
        manifest: "services:\n  web:\n    image: x\n    deploy:\n      restart_policy:\n        @\n",
        keys: &[("condition", "none"), ("max_attempts", "1")],
        // The pauses grow by themselves.
        inert: &["delay", "window"],
    },
    Place {
        name: "update_config",
        manifest: "services:\n  web:\n    image: x\n    deploy:\n      update_config:\n        @\n",
        keys: &[
            ("delay", "1s"),
            ("failure_action", "pause"),
            ("max_failure_ratio", "1"),
            ("monitor", "1s"),
            ("order", "stop-first"),
            ("parallelism", "1"),
        ],
        inert: &[],
    },
    Place {
        name: "resources.limits",
        manifest: "services:\n  web:\n    image: x\n    deploy: {resources: {limits: {\n @ } } }\n",
        keys: &[("cpus", "1"), ("memory", "64m"), ("pids", "9")],
        inert: &[],
    },
    Place {
        name: "resources.reservations",
        manifest: "services:\n  web:\n    image: x\n    deploy: {resources: {reservations: {\n @ } } }\n",
        keys: &[
            ("cpus", "1"),
            ("devices", "[{capabilities: [gpu]}]"),
            ("generic_resources", "[]"),
            ("memory", "64m"),
        ],
        inert: &[],
    },
    Place {
        name: "healthcheck",
        manifest: "services:\n  web:\n    image: x\n    healthcheck:\n      test: run\n      @\n",
        keys: &[
            ("disable", "true"),
            ("interval", "1s"),
            ("retries", "9"),
            ("timeout", "1s"),
        ],
        // Until the first success failures do not count, and nothing is waited for between two tries.
        inert: &["start_interval", "start_period"],
    },
    Place {
        name: "a port",
        manifest: "services:\n  web:\n    image: x\n    ports:\n    - target: 80\n      @\n",
        keys: &[
            ("app_protocol", "http"),
            ("host_ip", "127.0.0.1"),
            ("protocol", "udp"),
            ("published", "'8080'"),
        ],
        // There is one way to publish a port.
        inert: &["mode", "name"],
    },
    Place {
        name: "a volume of a service",
        manifest: "services:\n  web:\n    image: x\n    volumes:\n    - type: volume\n      source: v\n      target: /v\n      @\nvolumes: {v: {}}\n",
        keys: &[
            ("bind", "{propagation: shared}"),
            ("image", "{subpath: x}"),
            ("read_only", "true"),
            ("volume", "{nocopy: true}"),
        ],
        // A hint for file systems between machines; what concerns a mount of another type.
        inert: &["consistency", "tmpfs"],
    },
    Place {
        name: "a volume",
        manifest: "services: {web: {image: x, volumes: ['v:/v']}}\nvolumes:\n  v:\n    @\n",
        keys: &[
            ("driver", "other"),
            ("driver_opts", "{type: tmpfs}"),
            ("external", "true"),
            ("labels", "{a: b}"),
            ("name", "other"),
        ],
        inert: &[],
    },
    Place {
        name: "a network",
        manifest: "services: {web: {image: x}}\nnetworks:\n  default:\n    @\n",
        keys: &[
            ("driver", "overlay"),
            ("driver_opts", "{a: b}"),
            ("enable_ipv4", "false"),
            ("enable_ipv6", "true"),
            ("external", "true"),
            ("internal", "true"),
            ("ipam", "{driver: x}"),
        ],
        // What it is called, and that others may join by hand.
        inert: &["attachable", "labels", "name"],
    },
    Place {
        name: "a network of a service",
        manifest: "services:\n  web:\n    image: x\n    networks:\n      default:\n        @\n",
        keys: &[
            ("aliases", "[www]"),
            ("driver_opts", "{a: b}"),
            ("gw_priority", "1"),
            ("interface_name", "eth1"),
            ("ipv4_address", "192.0.2.1"),
            ("ipv6_address", "'2001:db8::1'"),
            ("link_local_ips", "[192.0.2.1]"),
            ("mac_address", "'02:42:ac:11:65:43'"),
            ("priority", "1"),
        ],
        inert: &[],
    },
    Place {
        name: "a rule of develop",
        manifest: "services:\n  web:\n    image: x\n    develop:\n      watch:\n      - path: .\n        action: sync+exec\n        target: /x\n        exec: {command: make}\n        @\n",
        keys: &[
            ("ignore", "[a]"),
            ("include", "[a]"),
            ("initial_sync", "true"),
        ],
        inert: &[],
    },
    Place {
        name: "the command of a rule of develop",
        manifest: "services:\n  web:\n    image: x\n    develop:\n      watch:\n      - path: .\n        action: sync+exec\n        target: /x\n        exec:\n          command: make\n          @\n",
        keys: &[
            ("environment", "{A: b}"),
            ("privileged", "true"),
            ("user", "root"),
            ("working_dir", "/x"),
        ],
        inert: &[],
    },
];

/// What comes of a manifest: what is deployed, and what is told.
fn outcome(place: &Place, line: &str) -> (String, String) {
    let manifest = place.manifest.replace('@', line);
    let files = Files([("compose.yaml".to_owned(), manifest.into_bytes())].into());
    let options = ReadOptions {
        folder: "demo".to_owned(),
        folder_path: Some("/srv/demo".to_owned()),
        named_files: Some([("a.env".to_owned(), b"A=1".to_vec())].into()),
        ..ReadOptions::default()
    };
    match read(&files, &options) {
        Ok(manifest) => {
            let told: Vec<_> = manifest.warnings.iter().map(ToString::to_string).collect();
            let said = format!("{:?} {:?}", manifest.app, manifest.watches);
            (said, told.join("\n"))
        }
        Err(faults) => ("nothing".to_owned(), faults.to_string()),
    }
}

#[test]
fn every_key_is_honoured_or_told() {
    let mut silent = Vec::new();
    for place in PLACES {
        let (plain, _) = outcome(place, "");
        for (key, value) in place.keys {
            let (with, told) = outcome(place, &format!("{key}: {value}"));
            if with == plain && told.is_empty() {
                silent.push(format!("{}: {key}", place.name));
            }
        }
    }
    assert!(silent.is_empty(), "passed over in silence: {silent:#?}");
}

#[test]
fn every_key_is_known() {
    let mut unknown = Vec::new();
    for place in PLACES {
        let inert = place.inert.iter().map(|key| (key, &"{}"));
        for (key, value) in place
            .keys
            .iter()
            .map(|(key, value)| (key, value))
            .chain(inert)
        {
            let (_, told) = outcome(place, &format!("{key}: {value}"));
            if told.contains("unknown key") || told.contains("bad YAML") {
                unknown.push(format!("{}: {key}: {told}", place.name));
            }
        }
    }
    assert!(unknown.is_empty(), "not known: {unknown:#?}");
}
