//! The keys of a Compose service that are known but not honoured: each is accepted, warned of or refused.

use crate::fields::Fields;
use crate::report::Report;

/// Keys that touch data, secrets, the reach of the network or of the process: ignoring one would
/// make something else of the service than what was asked for.
const REFUSED: [(&str, &str); 6] = [
    ("credential_spec", "the service would miss its credentials"),
    ("device_cgroup_rules", "the service would miss the device"),
    (
        "external_links",
        "a service of another app is reached in a network that both name as \"external\"",
    ),
    ("models", "the service would miss the model"),
    ("provider", "nothing would provide it"),
    ("use_api_socket", "there is no Docker socket"),
];

/// Keys that change nothing here: notes, and whose log a command in the foreground would show.
const ACCEPTED: [&str; 4] = ["annotations", "attach", "label_file", "labels"];

/// Keys that have no meaning here.
const IGNORED: [(&str, &str); 2] = [
    (
        "logging",
        "the node keeps what is written to standard output itself (`layby logs`)",
    ),
    (
        "runtime",
        "the node runs containers itself; GPUs are asked for with \"gpus\", or with \"devices\" in the reservations of \"deploy\"",
    ),
];

/// Keys that are known, and not honoured in this version.
const UNSUPPORTED: [&str; 16] = [
    "blkio_config",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "domainname",
    "isolation",
    "mac_address",
    "mem_swappiness",
    "memswap_limit",
    "oom_kill_disable",
    "pre_start",
    "pull_refresh_after",
    "storage_opt",
    "volume_driver",
];

/// Takes off what is not honoured, and says what comes of it.
pub(crate) fn read(service: &mut Fields, report: &mut Report) {
    service.refuse(&REFUSED, report);
    service.accept(&ACCEPTED);
    service.accept_extensions();
    if let Some(entry) = service.entry("oom_kill_disable")
        && entry.value.scalar() != Some("false")
    {
        service.put_back(entry);
    }
    service.ignored(&IGNORED, report);
    service.unsupported(&UNSUPPORTED, report);
}
