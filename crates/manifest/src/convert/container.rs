//! The container of a service (`v1.Container`).

use layby_model::spec::{ContainerSpec, PullPolicy};

use crate::convert::quantity::literal;
use crate::convert::tree::{Map, maps, texts};
use crate::convert::volume::{self, Volumes};
use crate::convert::{App, Gathered, env, hooks, image, probe, resources, security, service};
use crate::draft::Draft;
use crate::report::Report;

/// Writes it. What it mounts goes to `volumes`, and what of files that needs to `all`.
pub(super) fn write(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    volumes: &mut Volumes,
    all: &mut Gathered,
    report: &mut Report,
) -> Map {
    // The ports are those of whose network it is: whoever joined that has none of them.
    let is_first =
        (draft.spec.containers.first()).is_some_and(|first| first.name == container.name);
    let ports = service::ports(&draft.spec).into_iter().filter(|_| is_first);
    let ports = ports.map(|port| {
        Map::new()
            .text("name", &port.name)
            .plain("containerPort", port.target)
            .some_text("protocol", port.protocol())
    });
    let options = &container.options;
    let probes = probe::write(app, draft, container, report);
    let (program, arguments) = command_line(container);
    Map::new()
        .text("name", &container.name)
        .text("image", image::name(app, draft, container, report))
        .some_text("imagePullPolicy", pull(container.pull))
        .put("command", words(program))
        .put("args", words(arguments))
        .some_text("workingDir", container.working_dir.as_ref())
        .flag("tty", options.tty)
        .flag("stdin", options.tty)
        .put("env", env::write(app, draft, container, report))
        .put("ports", maps(ports))
        .put("resources", resources::write(app, draft, container, report))
        .put(
            "securityContext",
            security::container(app, draft, container, report),
        )
        .put("lifecycle", hooks::lifecycle(app, draft, container, report))
        .put("startupProbe", probes.startup)
        .put("readinessProbe", probes.readiness)
        .put("livenessProbe", probes.liveness)
        .put(
            "volumeMounts",
            volume::mounts(app, draft, container, volumes, all, report),
        )
}

/// What replaces the image's ENTRYPOINT and its CMD. With an empty entrypoint the command is the whole line: in a pod, too, where
/// it takes the place of the ENTRYPOINT.
fn command_line(container: &ContainerSpec) -> (Option<&Vec<String>>, Option<&Vec<String>>) {
    match (&container.entrypoint, &container.command) {
        (Some(entrypoint), Some(command)) if entrypoint.is_empty() && !command.is_empty() => {
            (Some(command), None)
        }
        (entrypoint, command) => (entrypoint.as_ref(), command.as_ref()),
    }
}

/// Where nothing is said, a cluster pulls what it does not have, and `latest` each time.
fn pull(policy: PullPolicy) -> Option<&'static str> {
    match policy {
        PullPolicy::Missing => None,
        PullPolicy::Always => Some("Always"),
        PullPolicy::Never => Some("Never"),
    }
}

/// A command line whose words nobody fills in.
fn words(words: Option<&Vec<String>>) -> crate::tree::Node {
    texts(words.into_iter().flatten().map(|word| literal(word)))
}
