//! One service of a Compose file.

use layby_model::job::JobSpec;
use layby_model::names::ServiceName;
use layby_model::route::Protocol;
use layby_model::spec::{ContainerSpec, STOP_GRACE_MS, ServicePort, ServiceSpec};

use crate::capability::{self, Added};
use crate::compose::deploy::Deploy;
use crate::compose::env_file::{self, EnvFiles};
use crate::compose::networks::{self, Member};
use crate::compose::project::Project;
use crate::compose::{
    build, command, depends, deploy, healthcheck, hooks, image, layby, leftover, mounts, options,
    pairs, ports, sandbox, volumes_from, watch,
};
use crate::draft::{Draft, label_of, service_name};
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Entry, Place, cut};
use crate::units::duration_ms;
use crate::{job, mount, power, scale, signal};

/// Reads a service. `None` if it has no usable name, or is left out.
pub(crate) fn read(entry: Entry, project: &Project<'_>, report: &mut Report) -> Option<Member> {
    let what = format!("service {:?}", cut(&entry.key));
    let place = entry.place;
    let (name, inner_name) = called(&entry.key, &place, report);
    let mut service = Fields::open(entry.value, what, report)?;
    if !project.profiles.switch_on(&mut service, &place, report) {
        return None;
    }

    let has_image = service.has("image");
    let image_at = service.place_of("image");
    let image = service.text("image", report).unwrap_or_default();
    if let Some(place) = &image_at {
        report.image(place, &image);
    }
    let build = service
        .take("build")
        .map(|node| build::read(node, &service.what, project, report));
    if build.is_none() && !has_image {
        let message = match image_at {
            Some(_) => format!("{} is empty: is a variable not set?", service.name("image")),
            None => format!("{} has neither \"image\" nor \"build\"", service.what),
        };
        report.error(image_at.as_ref().unwrap_or(&place), message);
    }
    let build_said = build.is_some();
    let pull = image::pull(&mut service, build_said, report);
    let (build, built_for) = build
        .flatten()
        .map_or((None, None), |build| (Some(build.spec), build.platform));
    let platform = match service.has("platform") {
        true => service.parsed("platform", report, image::platform),
        false => {
            service.accept(&["platform"]);
            None
        }
    };
    let entrypoint = command::read(&mut service, "entrypoint", report);
    let command = command::read(&mut service, "command", report);
    let EnvFiles {
        mut env,
        names: named_files,
    } = env_file::read(&mut service, project, report);
    let environment_name = service.name("environment");
    if let Some(node) = service.take("environment") {
        pairs::variables(node, &environment_name, project.variables, &mut env, report);
    }
    let published = ports::published(&mut service, report);
    let exposed = ports::exposed(&mut service, report);
    let healthcheck = healthcheck::read(&mut service, report);
    let Deploy {
        replicas,
        resources,
        limited,
        devices,
        strategy,
        restart,
        job,
    } = deploy::read(&mut service, report);
    let capabilities = service.place_of("cap_add").map(|place| Added {
        place,
        name: service.name("cap_add"),
        way_out: "userns_mode: host",
    });
    let mut options = options::read(&mut service, report);
    options.cdi_devices = unique(options.cdi_devices.into_iter().chain(devices));
    let stop_grace_ms = service.parsed("stop_grace_period", report, duration_ms);
    let layby = layby::read(&mut service, report);
    let power = power::read(
        layby.power,
        "\"power\" in x-layby",
        &service.what,
        limited,
        report,
    );
    let container = ContainerSpec {
        build,
        entrypoint,
        command,
        env,
        working_dir: service.text("working_dir", report),
        user: service.text("user", report),
        resources,
        ports: unique(
            published
                .all
                .iter()
                .filter(|port| !port.value.udp)
                .map(|port| port.value.target)
                .chain(exposed.tcp),
        ),
        readiness: healthcheck.readiness,
        liveness: None,
        startup: None,
        no_healthcheck: healthcheck.disabled,
        stop_signal: service.parsed("stop_signal", report, signal::signal),
        stop_grace_ms: stop_grace_ms.unwrap_or(STOP_GRACE_MS),
        pull,
        platform: platform.or(built_for),
        mounts: mounts::read(&mut service, project, report),
        post_start: hooks::read(&mut service, "post_start", project, report),
        pre_stop: hooks::read(&mut service, "pre_stop", project, report),
        options,
        ..ContainerSpec::new(name.as_ref().map_or("", ServiceName::as_str), &image)
    };
    let joined = networks::joined(&mut service, report);
    let sandbox = sandbox::read(&mut service, joined.mode.of_sandbox(), report);
    if let Some(added) = capabilities {
        let all = std::slice::from_ref(&container);
        capability::warn_in_vain(&container, &added, all, &sandbox, report);
    }
    let links = networks::links(&mut service, report);
    let mut needs = depends::read(&mut service, report);
    let linked = links.iter();
    needs.extend(linked.map(|link| depends::started(&link.service, &link.place, true)));
    let container_name = service.placed("container_name", report);
    let volumes_from = volumes_from::read(&mut service, report);
    let watch = watch::read(&mut service, build_said, project, report);
    leftover::read(&mut service, report);
    service.finish(report);

    let http = unique(
        layby
            .port
            .into_iter()
            .chain(layby.http.iter().copied())
            .chain(published.http),
    );
    let first = container.ports.first().or(http.first()).copied();
    let udp = unique(exposed.udp.into_iter()).into_iter();
    let udp = udp.map(|port| declared(port, Protocol::Udp));
    let http = http.into_iter().map(|port| declared(port, Protocol::Http));
    let (published, published_at) = published
        .all
        .into_iter()
        .map(|port| (port.value, port.place))
        .unzip();
    let mut spec = ServiceSpec {
        containers: vec![container],
        replicas,
        port: layby.port.or(first),
        published,
        sleep: layby.sleep,
        restart: restart.unwrap_or_default(),
        ports: http.chain(udp).collect(),
        deploy_on_push: layby.deploy_on_push,
        retries: layby.retries,
        progress_deadline_ms: layby.progress_deadline_ms,
        power,
        sandbox,
        job: merged(layby.job, job),
        names: inner_name.into_iter().collect(),
        ..ServiceSpec::new(name?)
    };
    scale::settle(layby.scale, layby.sleep_said, &mut spec, report);
    let how = "say \"order: start-first\" in \"deploy.update_config\"";
    if spec.job.is_none() {
        spec.strategy = mount::strategy(strategy, &spec, &place, how, report);
    }
    let mut draft = Draft {
        spec,
        place,
        published_at,
        aliases_at: Vec::new(),
        named_files,
    };
    if draft.spec.job.is_some() {
        job::strip(&mut draft, report);
    }
    Some(Member {
        draft,
        key: entry.key,
        joined,
        links,
        needs,
        restart_said: restart.is_some(),
        container_name,
        volumes_from,
        watch,
    })
}

/// A schedule is Layby's own word, how many are to end well is Compose's.
fn merged(scheduled: Option<JobSpec>, of_mode: Option<JobSpec>) -> Option<JobSpec> {
    match (scheduled, of_mode) {
        (Some(scheduled), Some(of_mode)) => Some(JobSpec {
            completions: of_mode.completions,
            parallelism: of_mode.parallelism,
            suspended: of_mode.suspended,
            ..scheduled
        }),
        (scheduled, of_mode) => scheduled.or(of_mode),
    }
}

/// What a service is called: a DNS label, which its host name is made of. Compose allows more: what is made a label of keeps
/// its name among the app's services.
fn called(key: &str, place: &Place, report: &mut Report) -> (Option<ServiceName>, Option<String>) {
    let made = label_of(key).and_then(|label| ServiceName::new(&label).ok());
    match (ServiceName::new(key), made, networks::inner_name(key)) {
        (Err(_), Some(name), Some(inner_name)) => {
            let message = format!(
                "service {:?} is called {:?} here, since that is no DNS label; the services of the app find it by both names",
                cut(key),
                name.as_str()
            );
            report.warn(place, message);
            (Some(name), Some(inner_name))
        }
        (Ok(_), _, _) | (Err(_), _, _) => (service_name(key, place, report), None),
    }
}

/// A port of the virtual address of which is known what is spoken there, as on the port in the replicas that it leads to.
fn declared(port: u16, protocol: Protocol) -> ServicePort {
    ServicePort {
        port,
        target: port,
        protocol,
    }
}

/// Each once, in order.
fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for item in items {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    all
}
