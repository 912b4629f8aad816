//! The keys of the Compose Specification, each with the shape of its value. What is not here is left as it is.

use super::service;
use super::shape::Shape::{
    self, Bytes, Command, Duration, Each, Flag, Kept, Map, Named, Number, Own, Pairs, Path, Paths,
    Text, Words,
};

/// The keys of a service.
pub(super) const SERVICE: &[(&str, Shape)] = &[
    ("annotations", Pairs),
    ("attach", Flag),
    ("blkio_config", Map(BLKIO)),
    ("build", Own(service::build)),
    ("cap_add", Words),
    ("cap_drop", Words),
    ("cgroup", Text),
    ("cgroup_parent", Text),
    ("command", Command),
    ("configs", Each(&Own(service::file))),
    ("container_name", Text),
    ("cpu_count", Number),
    ("cpu_percent", Number),
    ("cpu_period", Text),
    ("cpu_quota", Text),
    ("cpu_rt_period", Text),
    ("cpu_rt_runtime", Text),
    ("cpu_shares", Number),
    ("cpus", Number),
    ("cpuset", Text),
    (
        "credential_spec",
        Map(&[("config", Text), ("file", Path), ("registry", Text)]),
    ),
    ("depends_on", Own(service::depends_on)),
    ("deploy", Map(DEPLOY)),
    ("develop", Map(&[("watch", Each(&Map(WATCH)))])),
    ("device_cgroup_rules", Words),
    ("devices", Each(&Own(service::device))),
    ("dns", Words),
    ("dns_opt", Words),
    ("dns_search", Words),
    ("domainname", Text),
    ("entrypoint", Command),
    ("env_file", Each(&Own(service::env_file))),
    ("environment", Pairs),
    ("expose", Words),
    ("external_links", Words),
    ("extra_hosts", Own(service::extra_hosts)),
    ("gpus", Own(service::gpus)),
    ("group_add", Words),
    ("healthcheck", Map(HEALTHCHECK)),
    ("hostname", Text),
    ("image", Text),
    ("init", Flag),
    ("ipc", Text),
    ("isolation", Text),
    ("label_file", Paths),
    ("labels", Own(service::labels)),
    ("links", Words),
    ("logging", Map(&[("driver", Text), ("options", Pairs)])),
    ("mac_address", Text),
    ("mem_limit", Bytes),
    ("mem_reservation", Bytes),
    ("mem_swappiness", Number),
    ("memswap_limit", Own(service::swap)),
    ("models", Own(service::models)),
    ("network_mode", Text),
    ("networks", Own(service::networks)),
    ("oom_kill_disable", Flag),
    ("oom_score_adj", Number),
    ("pid", Text),
    ("pids_limit", Number),
    ("platform", Text),
    ("ports", Own(service::ports)),
    ("post_start", Each(&Map(HOOK))),
    ("pre_start", Each(&Map(HOOK))),
    ("pre_stop", Each(&Map(HOOK))),
    ("privileged", Flag),
    ("profiles", Words),
    ("provider", Map(&[("options", Kept), ("type", Text)])),
    ("pull_policy", Text),
    ("pull_refresh_after", Text),
    ("read_only", Flag),
    ("restart", Text),
    ("runtime", Text),
    ("scale", Number),
    ("secrets", Each(&Own(service::file))),
    ("security_opt", Words),
    ("shm_size", Bytes),
    ("stdin_open", Flag),
    ("stop_grace_period", Duration),
    ("stop_signal", Text),
    ("storage_opt", Pairs),
    ("sysctls", Pairs),
    ("tmpfs", Words),
    ("tty", Flag),
    ("ulimits", Own(service::ulimits)),
    ("use_api_socket", Flag),
    ("user", Text),
    ("userns_mode", Text),
    ("uts", Text),
    ("volumes", Each(&Own(service::volume))),
    ("volumes_from", Words),
    ("working_dir", Text),
];

/// The keys of `build`.
pub(super) const BUILD: &[(&str, Shape)] = &[
    ("additional_contexts", Own(service::contexts)),
    ("args", Own(service::args)),
    ("cache_from", Words),
    ("cache_to", Words),
    ("context", Own(service::context)),
    ("dockerfile", Text),
    ("dockerfile_inline", Text),
    ("entitlements", Words),
    ("extra_hosts", Own(service::extra_hosts)),
    ("isolation", Text),
    ("labels", Own(service::labels)),
    ("network", Text),
    ("no_cache", Flag),
    ("platforms", Words),
    ("privileged", Flag),
    ("pull", Flag),
    ("secrets", Each(&Own(service::file))),
    ("shm_size", Bytes),
    ("ssh", Own(service::ssh)),
    ("tags", Words),
    ("target", Text),
    ("ulimits", Own(service::ulimits)),
];

const DEPLOY: &[(&str, Shape)] = &[
    ("endpoint_mode", Text),
    ("labels", Own(service::labels)),
    ("mode", Text),
    (
        "placement",
        Map(&[
            ("constraints", Words),
            ("max_replicas_per_node", Number),
            ("preferences", Each(&Map(&[("spread", Text)]))),
        ]),
    ),
    ("replicas", Number),
    (
        "resources",
        Map(&[
            (
                "limits",
                Map(&[("cpus", Text), ("memory", Bytes), ("pids", Number)]),
            ),
            (
                "reservations",
                Map(&[
                    ("cpus", Text),
                    ("devices", Own(service::gpus)),
                    ("memory", Bytes),
                ]),
            ),
        ]),
    ),
    (
        "restart_policy",
        Map(&[
            ("condition", Text),
            ("delay", Duration),
            ("max_attempts", Number),
            ("window", Duration),
        ]),
    ),
    ("rollback_config", Map(UPDATE)),
    ("update_config", Map(UPDATE)),
];

const UPDATE: &[(&str, Shape)] = &[
    ("delay", Duration),
    ("failure_action", Text),
    ("max_failure_ratio", Number),
    ("monitor", Duration),
    ("order", Text),
    ("parallelism", Number),
];

const HEALTHCHECK: &[(&str, Shape)] = &[
    ("disable", Flag),
    ("interval", Duration),
    ("retries", Number),
    ("start_interval", Duration),
    ("start_period", Duration),
    ("test", Own(service::test)),
    ("timeout", Duration),
];

const HOOK: &[(&str, Shape)] = &[
    ("command", Command),
    ("environment", Pairs),
    ("privileged", Flag),
    ("user", Text),
    ("working_dir", Text),
];

const WATCH: &[(&str, Shape)] = &[
    ("action", Text),
    ("exec", Map(HOOK)),
    ("ignore", Words),
    ("include", Words),
    ("initial_sync", Flag),
    ("path", Path),
    ("target", Text),
];

const BLKIO: &[(&str, Shape)] = &[
    ("device_read_bps", Each(&Map(RATE))),
    ("device_read_iops", Each(&Map(RATE))),
    ("device_write_bps", Each(&Map(RATE))),
    ("device_write_iops", Each(&Map(RATE))),
    ("weight", Number),
    (
        "weight_device",
        Each(&Map(&[("path", Text), ("weight", Number)])),
    ),
];

const RATE: &[(&str, Shape)] = &[("path", Text), ("rate", Bytes)];

/// How a service is in a network.
pub(super) const MEMBERSHIP: &[(&str, Shape)] = &[
    ("aliases", Words),
    ("driver_opts", Pairs),
    ("gw_priority", Number),
    ("interface_name", Text),
    ("ipv4_address", Text),
    ("ipv6_address", Text),
    ("link_local_ips", Words),
    ("mac_address", Text),
    ("priority", Number),
];

/// A volume of a service, in its long form.
pub(super) const MOUNT: &[(&str, Shape)] = &[
    (
        "bind",
        Map(&[
            ("create_host_path", Flag),
            ("propagation", Text),
            ("recursive", Text),
            ("selinux", Text),
        ]),
    ),
    ("consistency", Text),
    ("image", Map(&[("subpath", Text)])),
    ("read_only", Flag),
    ("source", Text),
    ("target", Text),
    ("tmpfs", Map(&[("mode", Text), ("size", Bytes)])),
    ("type", Text),
    (
        "volume",
        Map(&[
            ("labels", Own(service::labels)),
            ("nocopy", Flag),
            ("subpath", Text),
        ]),
    ),
];

/// A port, in its long form.
pub(super) const PORT: &[(&str, Shape)] = &[
    ("app_protocol", Text),
    ("host_ip", Text),
    ("mode", Text),
    ("name", Text),
    ("protocol", Text),
    ("published", Text),
    ("target", Number),
];

/// A file of a service.
pub(super) const FILE: &[(&str, Shape)] = &[
    ("gid", Text),
    ("mode", Text),
    ("source", Text),
    ("target", Text),
    ("uid", Text),
];

/// A request for devices.
pub(super) const DEVICES: &[(&str, Shape)] = &[
    ("capabilities", Words),
    ("count", Own(service::count)),
    ("device_ids", Words),
    ("driver", Text),
    ("options", Pairs),
];

/// A condition of `depends_on`.
pub(super) const CONDITION: &[(&str, Shape)] =
    &[("condition", Text), ("required", Flag), ("restart", Flag)];

/// The keys at the top, but for the services.
pub(super) const TOP: &[(&str, Shape)] = &[
    ("configs", Named(&Map(VALUE))),
    (
        "models",
        Named(&Map(&[
            ("context_size", Number),
            ("model", Text),
            ("runtime_flags", Words),
        ])),
    ),
    ("networks", Named(&Map(NETWORK))),
    ("secrets", Named(&Map(VALUE))),
    ("volumes", Named(&Map(VOLUME))),
];

const VALUE: &[(&str, Shape)] = &[
    ("content", Text),
    ("driver", Text),
    ("driver_opts", Pairs),
    ("environment", Text),
    ("external", Own(service::external)),
    ("file", Path),
    ("labels", Own(service::labels)),
    ("name", Text),
    ("template_driver", Text),
];

const NETWORK: &[(&str, Shape)] = &[
    ("attachable", Flag),
    ("driver", Text),
    ("driver_opts", Pairs),
    ("enable_ipv4", Flag),
    ("enable_ipv6", Flag),
    ("external", Own(service::external)),
    ("internal", Flag),
    (
        "ipam",
        Map(&[
            (
                "config",
                Each(&Map(&[
                    ("aux_addresses", Pairs),
                    ("gateway", Text),
                    ("ip_range", Text),
                    ("subnet", Text),
                ])),
            ),
            ("driver", Text),
            ("options", Pairs),
        ]),
    ),
    ("labels", Own(service::labels)),
    ("name", Text),
];

const VOLUME: &[(&str, Shape)] = &[
    ("driver", Text),
    ("driver_opts", Own(service::driver_opts)),
    ("external", Own(service::external)),
    ("labels", Own(service::labels)),
    ("name", Text),
];
