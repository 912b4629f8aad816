//! What an image says about how to run it: the parts that Layby reads of an OCI image config.
//!
//! The config itself is kept as the bytes it came in: Docker's `Healthcheck` and whatever else OCI does not
//! know must survive, and the digest must stay.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::Error;
use crate::layout::Platform;

/// How to run a container of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The command's fixed part; may be empty.
    pub entrypoint: Vec<String>,
    /// The command, or the arguments to `entrypoint`.
    pub cmd: Vec<String>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
    /// Where the command runs; empty means `/`.
    pub working_dir: String,
    /// `""` (root), `uid`, `uid:gid` or names.
    pub user: String,
    /// The TCP ports of EXPOSE, ascending.
    pub exposed_ports: Vec<u16>,
    /// Its UDP ports, ascending.
    pub exposed_udp: Vec<u16>,
    /// Paths declared as volumes, sorted.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end, such as `SIGINT`.
    pub stop_signal: Option<String>,
    /// How it shows its health.
    pub healthcheck: Option<Healthcheck>,
}

/// A HEALTHCHECK (Docker's extension of the OCI config). `None` fields mean Docker's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", program, arguments...]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// From one probe to the next, in milliseconds.
    pub interval_ms: Option<u64>,
    /// How long one probe may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long failures do not count after a start, in milliseconds.
    pub start_period_ms: Option<u64>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// An image config as the builder, the unpacker and [`ImageConfig`] need it.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) created: Option<String>,
    pub(crate) diff_ids: Vec<String>,
    /// `None` where it does not say.
    pub(crate) platform: Option<Platform>,
    pub(crate) config: ImageConfig,
}

#[derive(Deserialize)]
struct RawImage {
    created: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

/// Docker writes `null` for what is absent, hence the options.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<RawHealthcheck>,
}

/// Durations are nanoseconds; 0 stands for the default.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    retries: i64,
}

impl Parsed {
    /// Reads a config's JSON. `what` names it in the error.
    pub(crate) fn from_json(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let raw: RawImage = serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
            what: what.to_owned(),
            reason: error.to_string(),
        })?;
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let platform = said(raw.architecture).map(|architecture| Platform {
            architecture,
            os: said(raw.os).unwrap_or_else(|| "linux".to_owned()),
            variant: said(raw.variant),
        });
        Ok(Self {
            created: raw.created,
            platform,
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
            config: raw.config.unwrap_or_default().into(),
        })
    }
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> Self {
        let env = raw.env.unwrap_or_default().into_iter().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            (name.to_owned(), value.to_owned())
        });
        let exposed = raw.exposed_ports.unwrap_or_default();
        let of = |protocol: &str| -> BTreeSet<u16> {
            let ports = exposed.keys();
            ports.filter_map(|port| port_of(port, protocol)).collect()
        };
        Self {
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: env.collect(),
            working_dir: raw.working_dir.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            exposed_ports: of("tcp").into_iter().collect(),
            exposed_udp: of("udp").into_iter().collect(),
            volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
            labels: raw.labels.unwrap_or_default(),
            stop_signal: raw.stop_signal.filter(|signal| !signal.is_empty()),
            healthcheck: raw.healthcheck.and_then(RawHealthcheck::into_healthcheck),
        }
    }
}

/// `8051/tcp`, or `8051`, which is of TCP, as a port; `None` for other protocols than the one asked for.
fn port_of(text: &str, protocol: &str) -> Option<u16> {
    let (port, of) = text.split_once('/').unwrap_or((text, "tcp"));
    port.parse().ok().filter(|_| of == protocol)
}

impl RawHealthcheck {
    /// `None` where the test is empty, which means "inherit" and has nothing to inherit from here.
    fn into_healthcheck(self) -> Option<Healthcheck> {
        let ms = |ns: i64| u64::try_from(ns / 1_000_000).ok().filter(|ms| *ms > 0);
        Some(Healthcheck {
            test: self.test.filter(|test| !test.is_empty())?,
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            start_period_ms: ms(self.start_period),
            retries: u32::try_from(self.retries).ok().filter(|n| *n > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_as_docker_writes_it_is_read() {
        let json = br#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{
            "Entrypoint":null,"Cmd":["/srv","--x"],"Env":["PATH=/bin","EMPTY=","A=b=c"],"WorkingDir":"/w","User":"7:8",
            "ExposedPorts":{"9/tcp":{},"53/udp":{},"80":{}},"Volumes":{"/data":{}},"Labels":null,"StopSignal":"SIGINT",
            "Healthcheck":{"Test":["CMD","/srv","health"],"Interval":2000000000,"Timeout":500000000,"Retries":4}},
            "rootfs":{"type":"layers","diff_ids":["sha256:x"]},"history":[]}"#;
        let parsed = Parsed::from_json(json, "config").unwrap();
        assert_eq!(parsed.created.as_deref(), Some("2024-01-01T00:00:00Z"));
        assert_eq!(parsed.diff_ids, ["sha256:x"]);
        let config = parsed.config;
        assert_eq!(config.cmd, ["/srv", "--x"]);
        assert_eq!(config.env[1], ("EMPTY".into(), "".into()));
        assert_eq!(config.env[2], ("A".into(), "b=c".into()));
        assert_eq!(config.exposed_ports, [9, 80]);
        assert_eq!(config.exposed_udp, [53]);
        assert_eq!(config.volumes, ["/data"]);
        let healthcheck = config.healthcheck.unwrap();
        assert_eq!(healthcheck.test, ["CMD", "/srv", "health"]);
        assert_eq!(healthcheck.interval_ms, Some(2000));
        assert_eq!(healthcheck.timeout_ms, Some(500));
        assert_eq!(healthcheck.start_period_ms, None);
        assert_eq!(healthcheck.retries, Some(4));
    }

    #[test]
    fn a_config_without_a_config_is_all_defaults() {
        let parsed = Parsed::from_json(br#"{"rootfs":{"diff_ids":null}}"#, "config").unwrap();
        assert_eq!(parsed.config, ImageConfig::default());
        assert!(Parsed::from_json(b"[]", "config").is_err());
    }
}
