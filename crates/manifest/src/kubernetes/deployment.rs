//! Deployments (`apps/v1`).

use std::collections::BTreeMap;

use layby_model::names::ServiceName;
use layby_model::spec::{BuildSpec, MAX_RETRIES, SleepPolicy, Strategy};

use crate::draft::{self, Placed, service_name};
use crate::fields::{Fields, number, port};
use crate::kubernetes::bundle::Bundles;
use crate::kubernetes::env::Known;
use crate::kubernetes::metadata::{self, Metadata};
use crate::kubernetes::pod::{self, Pod, Restarts};
use crate::power::{self, Limited};
use crate::report::Report;
use crate::scale::{self, Scaling};
use crate::tree::{Place, cut};
use crate::units::sleep_after_ms;

/// A Deployment, before the Services that lead to it are joined to it.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) name: ServiceName,
    /// Where its name stands.
    pub(crate) place: Place,
    /// The labels of its pods, by which Services find them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) pod: Pod,
    pub(crate) replicas: u32,
    /// As it was said.
    pub(crate) strategy: Option<Strategy>,
    pub(crate) progress_deadline_ms: Option<u64>,
    pub(crate) settings: Settings,
}

/// What the annotations say.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) sleep: SleepPolicy,
    /// Something is said of that.
    pub(crate) sleep_said: bool,
    pub(crate) scale: Option<Scaling>,
    /// The port in the replica that HTTP by host name goes to.
    pub(crate) port: Option<u16>,
    /// A pushed tag makes a new revision.
    pub(crate) deploy_on_push: bool,
    /// So many more attempts a failed rollout gets.
    pub(crate) retries: Option<u32>,
    /// The name of its power.
    pub(crate) power: Option<String>,
    build: Option<BuildSpec>,
}

/// Reads a Deployment, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    bundles: &Bundles,
    report: &mut Report,
) -> (Option<Deployment>, Option<Placed<String>>) {
    object.what = "a Deployment".to_owned();
    let whole = object.place.clone();
    let Metadata {
        name,
        namespace,
        annotations,
        ..
    } = metadata::read(&mut object, report);
    let place = name
        .as_ref()
        .map_or(whole.clone(), |name| name.place.clone());
    let what = match &name {
        Some(name) => format!("Deployment {:?}", cut(&name.value)),
        None => {
            report.error(&whole, "a Deployment has no \"name\" in its \"metadata\"");
            "a Deployment".to_owned()
        }
    };
    object.what.clone_from(&what);
    object.accept(&["status"]);
    let Some(mut spec) = object.map("spec", report) else {
        report.error(&whole, format!("{what} has no \"spec\""));
        return (None, namespace);
    };
    object.finish(report);
    spec.what.clone_from(&what);

    let replicas = spec
        .parsed("replicas", report, draft::replicas)
        .unwrap_or(1);
    let strategy = strategy(&mut spec, report);
    let deadline_seconds = spec.number("progressDeadlineSeconds", 1..=86_400, report);
    let selector = selector(&mut spec, report);
    let template = template(&mut spec, &what, bundles, Restarts::Always, report);
    spec.accept(&["revisionHistoryLimit"]);
    spec.unsupported(&["minReadySeconds"], report);
    if let Some(entry) = spec.entry("paused")
        && entry.value.scalar() != Some("false")
    {
        report.warn(
            &entry.place,
            format!("{} is ignored: it is rolled out", spec.name("paused")),
        );
    }
    let spec_place = spec.place.clone();
    spec.finish(report);
    let Some(mut template) = template else {
        report.error(&spec_place, format!("{what} has no \"template\""));
        return (None, namespace);
    };
    for (key, value) in &selector {
        if template.labels.get(key) != Some(&value.value) {
            let message = format!(
                "the selector of {what} asks for {}={}, which the labels of its template do not say",
                cut(key),
                cut(&value.value)
            );
            report.error(&value.place, message);
        }
    }
    if selector.is_empty() {
        report.error(
            &spec_place,
            format!("{what} has no \"matchLabels\" in its \"selector\""),
        );
    }
    let limited = template.pod.limited.take();
    let settings = settings(annotations, template.annotations, &what, limited, report);
    if let Some(first) = template.pod.containers.first_mut() {
        first.build.clone_from(&settings.build);
    }
    let name = name.and_then(|name| service_name(&name.value, &name.place, report));
    let deployment = name.map(|name| Deployment {
        name,
        place,
        labels: template.labels,
        pod: template.pod,
        replicas,
        strategy,
        progress_deadline_ms: deadline_seconds.map(|seconds| seconds * 1000),
        settings,
    });
    (deployment, namespace)
}

fn strategy(spec: &mut Fields, report: &mut Report) -> Option<Strategy> {
    let mut fields = spec.map("strategy", report)?;
    let strategy = fields.parsed("type", report, |text| match text {
        "Recreate" => Ok(Strategy::StopFirst),
        "RollingUpdate" => Ok(Strategy::StartFirst),
        _ => Err("Recreate or RollingUpdate".to_owned()),
    });
    // How many at once: the new ones are all ready before the old ones go.
    fields.accept(&["rollingUpdate"]);
    fields.finish(report);
    strategy
}

fn selector(spec: &mut Fields, report: &mut Report) -> BTreeMap<String, Placed<String>> {
    let Some(mut fields) = spec.map("selector", report) else {
        return BTreeMap::new();
    };
    let labels = metadata::text_map(&mut fields, "matchLabels", report);
    fields.unsupported(&["matchExpressions"], report);
    fields.finish(report);
    labels
}

/// A pod's template.
pub(crate) struct Template {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, Placed<String>>,
    pub(crate) pod: Pod,
}

/// Reads the template of a Deployment or a Job.
pub(crate) fn template(
    spec: &mut Fields,
    owner: &str,
    bundles: &Bundles,
    restarts: Restarts,
    report: &mut Report,
) -> Option<Template> {
    let mut fields = spec.map("template", report)?;
    fields.what = format!("the template of {owner}");
    let metadata = metadata::read(&mut fields, report);
    let place = fields.place.clone();
    let pod = match fields.map("spec", report) {
        Some(pod) => {
            let labels = &metadata.labels;
            pod::read(pod, owner, Known { bundles, labels }, restarts, report)
        }
        None => {
            report.error(&place, format!("{} has no \"spec\"", fields.what));
            Pod::default()
        }
    };
    fields.finish(report);
    Some(Template {
        labels: metadata.labels,
        annotations: metadata.annotations,
        pod,
    })
}

/// Reads Layby's annotations; those of the Deployment go over those of its template.
fn settings(
    own: BTreeMap<String, Placed<String>>,
    template: BTreeMap<String, Placed<String>>,
    what: &str,
    limited: Option<Limited>,
    report: &mut Report,
) -> Settings {
    let mut annotations = template;
    annotations.extend(own);
    let name = "the annotation \"layby.dev/power\"";
    let mut settings = Settings {
        power: power::read(annotations.remove("power"), name, what, limited, report),
        sleep_said: annotations.contains_key("doze-after")
            || annotations.contains_key("sleep-after"),
        scale: scale::annotated(&mut annotations, what, report),
        ..Settings::default()
    };
    let mut read =
        |key: &str, report: &mut Report, read: &mut dyn FnMut(&str) -> Result<(), String>| {
            let Some(annotation) = annotations.remove(key) else {
                return;
            };
            if let Err(expected) = read(&annotation.value) {
                let message = format!(
                    "the annotation \"layby.dev/{key}\" of {what} must be {expected}, not {:?}",
                    cut(&annotation.value)
                );
                report.error(&annotation.place, message);
            }
        };
    read("doze-after", report, &mut |text| {
        settings.sleep.doze_after_ms = sleep_after_ms(text)?;
        Ok(())
    });
    read("sleep-after", report, &mut |text| {
        settings.sleep.sleep_after_ms = sleep_after_ms(text)?;
        Ok(())
    });
    read("port", report, &mut |text| {
        settings.port = Some(port(text)?);
        Ok(())
    });
    read("deploy-on-push", report, &mut |text| {
        settings.deploy_on_push = match text {
            "true" => true,
            "false" => false,
            _ => return Err("\"true\" or \"false\"".to_owned()),
        };
        Ok(())
    });
    read("retries", report, &mut |text| {
        let retries = number(text, &(0..=u64::from(MAX_RETRIES)))?;
        settings.retries = u32::try_from(retries).ok();
        Ok(())
    });
    read("build", report, &mut |text| {
        if text.is_empty() || text.contains("://") {
            return Err("the folder to build the image in".to_owned());
        }
        settings.build = Some(BuildSpec {
            always: false,
            ..BuildSpec::new(text)
        });
        Ok(())
    });
    metadata::warn_unknown(&annotations, what, report);
    settings
}
