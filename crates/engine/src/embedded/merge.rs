//! What a container runs: the image's settings with the service's on top.

use std::path::PathBuf;

use layby_image::ImageConfig;
use layby_model::hook::Hook;
use layby_model::options::{ContainerOptions, Device, Ulimit};
use layby_model::plan::{BACKOFF_MAX_MS, BACKOFF_MS};
use layby_model::secret::ValueSource;
use layby_model::spec::{ContainerSpec, ProbeAction, RestartPolicy, ServiceSpec};
use layby_runtime::{
    After, AgainConfig, ContainerConfig, DeviceConfig, HookConfig, MountConfig, OptionsConfig,
    Question, StartupConfig, UlimitConfig,
};

use crate::slots::Slots;

/// The processes and threads that a container may have whose service sets no limit: far more than an app needs, and
/// few enough that a fork bomb takes one container down and not the machine, whose `kernel.pid_max` is 32768 at least.
const PIDS: u32 = 4096;

/// Merges as Docker and Kubernetes do.
///
/// An entrypoint given by the service replaces the image's and drops its CMD; a command given by the service
/// replaces the image's CMD alone (Kubernetes: "Define a Command and Arguments for a Container"). Variables of the
/// service replace those of the image by name.
pub(super) fn merge(
    spec: &ContainerSpec,
    image: &ImageConfig,
    lower: Vec<PathBuf>,
    mounts: Vec<MountConfig>,
    slots: &mut Slots,
) -> ContainerConfig {
    let own = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let signal = own(&spec.stop_signal).or_else(|| own(&image.stop_signal));
    ContainerConfig {
        name: spec.name.clone(),
        lower,
        argv: argv(spec, image),
        env: env(spec, image),
        secret_env: secret_env(spec, slots),
        cwd: own(&spec.working_dir).unwrap_or_else(|| image.working_dir.clone()),
        user: own(&spec.user).unwrap_or_else(|| image.user.clone()),
        memory_bytes: spec.resources.memory_limit_bytes,
        cpu_milli: spec.resources.cpu_limit_milli,
        pids: Some(spec.resources.pids_limit.unwrap_or(PIDS)),
        stop_signal: signal.unwrap_or_else(|| "SIGTERM".to_owned()),
        stop_grace_ms: spec.stop_grace_ms,
        mounts,
        options: options(&spec.options),
        post_start: (spec.post_start.iter().map(hook))
            .chain(startup(spec).map(HookConfig::Until))
            .collect(),
        pre_stop: spec.pre_stop.iter().map(hook).collect(),
        sidecar: spec.sidecar,
        again: None,
    }
}

/// What is done when a container ends while others of its replica go on; `None`: they end with it.
pub(super) fn again(service: &ServiceSpec, container: &ContainerSpec) -> Option<AgainConfig> {
    let (after, most) = match service.restart_of(container) {
        RestartPolicy::Always => (After::AnyEnd, None),
        RestartPolicy::OnFailure { max_retries } => (After::Failure, max_retries),
        RestartPolicy::Never => (After::NoEnd, None),
    };
    service.ends_apart().then_some(AgainConfig {
        after,
        pause_ms: BACKOFF_MS,
        max_pause_ms: BACKOFF_MAX_MS,
        most,
    })
}

/// What a sidecar is asked before the next container is started (Kubernetes KEP-753). Of what is asked by TLS or gRPC only
/// whether somebody listens: the node asks the rest before the replica is ready.
pub(super) fn startup(spec: &ContainerSpec) -> Option<StartupConfig> {
    let probe = spec.startup.as_ref().filter(|_| spec.sidecar.is_some())?;
    let question = match &probe.action {
        ProbeAction::Exec { argv } => Question::Exec { argv: argv.clone() },
        ProbeAction::Http {
            port,
            path,
            host,
            headers,
            tls: false,
        } => {
            let host = host.iter().map(|host| ("Host".to_owned(), host.clone()));
            Question::Http {
                port: *port,
                path: path.clone(),
                headers: host.chain(headers.clone()).collect(),
            }
        }
        ProbeAction::Http { port, .. }
        | ProbeAction::Grpc { port, .. }
        | ProbeAction::Tcp { port } => Question::Tcp { port: *port },
    };
    let tries = u64::from(probe.failure_threshold.max(1));
    Some(StartupConfig {
        question,
        timeout_ms: probe.timeout_ms,
        most_ms: probe
            .period_ms
            .saturating_mul(tries)
            .saturating_add(probe.initial_delay_ms),
    })
}

fn hook(hook: &Hook) -> HookConfig {
    match hook {
        Hook::Exec {
            command,
            user,
            env,
            working_dir,
            privileged,
        } => HookConfig::Exec {
            argv: command.clone(),
            env: env.clone().into_iter().collect(),
            cwd: working_dir.clone(),
            user: user.clone(),
            privileged: *privileged,
        },
        Hook::Http {
            port,
            path,
            host,
            headers,
        } => HookConfig::Http {
            host: *host,
            port: *port,
            path: path.clone(),
            headers: headers.clone(),
        },
        Hook::Sleep { ms } => HookConfig::Sleep { ms: *ms },
    }
}

fn options(options: &ContainerOptions) -> OptionsConfig {
    let ulimit = |(name, limit): (&String, &Ulimit)| {
        let Ulimit { soft, hard } = *limit;
        (name.clone(), UlimitConfig { soft, hard })
    };
    let device = |device: &Device| DeviceConfig {
        source: device.source.clone(),
        target: device.target.clone(),
        permissions: device.permissions.clone(),
    };
    OptionsConfig {
        cap_add: options.cap_add.clone(),
        cap_drop: options.cap_drop.clone(),
        privileged: options.privileged,
        read_only: options.read_only,
        new_privileges: options.no_new_privileges == Some(false),
        seccomp_unconfined: options.seccomp.as_deref() == Some("unconfined"),
        ulimits: options.ulimits.iter().map(ulimit).collect(),
        shm_size_bytes: options.shm_size_bytes,
        init: options.init,
        hold: options.hold,
        devices: options.devices.iter().map(device).collect(),
        cdi_devices: options.cdi_devices.clone(),
        group_add: options.group_add.clone(),
        tty: options.tty,
        oom_score_adj: options.oom_score_adj,
        cpuset: options.cpuset.clone(),
        cpu_shares: options.cpu_shares,
    }
}

fn argv(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    let (entrypoint, cmd) = match (&spec.entrypoint, &spec.command) {
        (Some(entrypoint), command) => (entrypoint, command.as_ref()),
        (None, Some(command)) => (&image.entrypoint, Some(command)),
        (None, None) => (&image.entrypoint, Some(&image.cmd)),
    };
    let cmd = cmd.into_iter().flatten();
    entrypoint.iter().chain(cmd).cloned().collect()
}

fn env(spec: &ContainerSpec, image: &ImageConfig) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match env.iter_mut().find(|(n, _)| n == name) {
        Some((_, known)) => value.clone_into(known),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    let comes_later =
        |name: &String| spec.secret_env.contains_key(name) || spec.composed_env.contains_key(name);
    for (name, value) in image.env.iter().filter(|(name, _)| !comes_later(name)) {
        set(name, value);
    }
    for (name, value) in &spec.env {
        set(name, value);
    }
    env
}

/// The variables whose values go past the spec.
fn secret_env(spec: &ContainerSpec, slots: &mut Slots) -> Vec<(String, usize)> {
    let composed = spec.composed_env.iter();
    let mut env: Vec<(String, usize)> = composed
        .map(|(name, parts)| (name.clone(), slots.add(parts)))
        .collect();
    for (name, secret) in &spec.secret_env {
        let number = slots.add(&[ValueSource::Secret(secret.clone())]);
        env.push((name.clone(), number));
    }
    env
}

#[cfg(test)]
mod tests {
    use layby_model::spec::Probe;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn spec(entrypoint: Option<&str>, command: Option<&str>) -> ContainerSpec {
        ContainerSpec {
            entrypoint: entrypoint.map(words),
            command: command.map(words),
            ..ContainerSpec::new("web", "web")
        }
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: words("/entry -e"),
            cmd: words("serve all"),
            env: vec![
                ("PATH".to_owned(), "/image".to_owned()),
                ("LEVEL".to_owned(), "low".to_owned()),
            ],
            working_dir: "/srv".to_owned(),
            user: "app".to_owned(),
            stop_signal: Some("SIGINT".to_owned()),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn the_command_follows_dockers_and_kubernetes_table() {
        for (entrypoint, command, expected) in [
            (None, None, "/entry -e serve all"),
            (None, Some("one"), "/entry -e one"),
            (None, Some(""), "/entry -e"),
            (Some("/own"), None, "/own"),
            (Some("/own"), Some("one"), "/own one"),
        ] {
            let argv = argv(&spec(entrypoint, command), &image());
            assert_eq!(argv, words(expected), "{entrypoint:?} {command:?}");
        }
    }

    #[test]
    fn the_startup_probe_of_a_sidecar_is_waited_for_after_its_hooks() {
        let mut spec = spec(None, None);
        spec.post_start = vec![Hook::Sleep { ms: 1 }];
        spec.startup = Some(Probe {
            action: ProbeAction::Grpc {
                port: 9,
                service: String::new(),
            },
            initial_delay_ms: 500,
            period_ms: 1_000,
            timeout_ms: 300,
            success_threshold: 1,
            failure_threshold: 3,
            stop_grace_ms: None,
        });
        let after = |spec: &ContainerSpec| {
            let slots = &mut Slots::default();
            merge(spec, &image(), Vec::new(), Vec::new(), slots).post_start
        };
        assert_eq!(after(&spec), [HookConfig::Sleep { ms: 1 }]);
        spec.sidecar = Some(0);
        let asked = HookConfig::Until(StartupConfig {
            question: Question::Tcp { port: 9 },
            timeout_ms: 300,
            most_ms: 3_500,
        });
        assert_eq!(after(&spec), [HookConfig::Sleep { ms: 1 }, asked]);
    }

    #[test]
    fn the_services_variables_replace_the_images_by_name() {
        let mut spec = spec(None, None);
        spec.env.insert("LEVEL".to_owned(), "high".to_owned());
        spec.env.insert("NEW".to_owned(), String::new());
        let merged = merge(
            &spec,
            &image(),
            Vec::new(),
            Vec::new(),
            &mut Slots::default(),
        );
        let shown: Vec<String> = merged.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(shown, ["PATH=/image", "LEVEL=high", "NEW="]);
    }

    #[test]
    fn what_the_service_leaves_open_the_image_decides() {
        let merged = merge(
            &spec(None, None),
            &image(),
            Vec::new(),
            Vec::new(),
            &mut Slots::default(),
        );
        assert_eq!(merged.cwd, "/srv");
        assert_eq!(merged.user, "app");
        assert_eq!(merged.stop_signal, "SIGINT");
        assert_eq!(merged.pids, Some(PIDS));
        let mut own = spec(None, None);
        own.user = Some("0".to_owned());
        own.working_dir = Some("/".to_owned());
        own.stop_signal = Some("SIGQUIT".to_owned());
        own.resources.pids_limit = Some(9);
        let merged = merge(
            &own,
            &image(),
            Vec::new(),
            Vec::new(),
            &mut Slots::default(),
        );
        assert_eq!(merged.pids, Some(9));
        assert_eq!(
            (&*merged.cwd, &*merged.user, &*merged.stop_signal),
            ("/", "0", "SIGQUIT")
        );
    }
}
