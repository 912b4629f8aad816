//! The image of a service: a cluster pulls it, wherever it was built.

use layby_model::spec::ContainerSpec;

use crate::convert::App;
use crate::convert::said::shown;
use crate::convert::tree::Map;
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::cut;

/// What a container's image is called. One that is built has to be pushed first.
pub(super) fn name(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> String {
    if container.build.is_none() {
        return container.image.clone();
    }
    let place = app.said.of(draft, "build").map(|node| node.place.clone());
    let place = place.unwrap_or_else(|| draft.place.clone());
    if container.image.is_empty() {
        // As Compose calls it.
        let name = format!("{}-{}", app.name, container.name);
        let message = format!(
            "the image of {} is built and has no name: it is {name:?} here; say \"image: REGISTRY/NAME:TAG\", and push it there",
            shown(draft)
        );
        report.warn(&place, message);
        return name;
    }
    let image = cut(&container.image);
    let message = match has_registry(&container.image) {
        true => format!(
            "the image {image:?} of {} is built: push it before (`layby image push {image}`)",
            shown(draft)
        ),
        false => format!(
            "the image {image:?} of {} is built: push it to where the cluster pulls from (`layby image push {image} REGISTRY/{image}`), and name that as \"image\"",
            shown(draft)
        ),
    };
    report.warn(&place, message);
    container.image.clone()
}

/// Whether an image is named with the registry that it is in (OCI references as Docker reads them).
fn has_registry(image: &str) -> bool {
    image
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// Where Layby builds the image, if it is built and not there.
pub(super) fn annotation(app: &App<'_>, draft: &Draft, annotations: Map) -> Map {
    let build = draft.spec.containers.first();
    let build = build.and_then(|container| container.build.as_ref());
    let context = build.map(|build| build.context.as_str());
    // Elsewhere it is a folder of this machine, or no folder at all.
    let context = context.filter(|context| !context.contains("://") && !context.starts_with('/'));
    let context = context.map(|context| match app.how.back.as_str() {
        "" => context.to_owned(),
        back => format!("{back}{}", context.trim_start_matches("./")),
    });
    annotations.some_text("layby.dev/build", context)
}
