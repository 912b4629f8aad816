//! The normal form of a Compose file, as `docker compose config` shows it.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use layby_manifest::{ConfigOptions, Diagnostic, Faults};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::apps::{ask, receive};
use super::query::{self, Pairs};
use super::types::Problem;
use crate::deploy::{bad_images, bad_manifest, options};

/// A Compose file in its normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigView {
    /// The file itself, as YAML or JSON.
    pub text: String,
    /// Its services that are switched on.
    pub services: Vec<String>,
    /// Their images.
    pub images: Vec<String>,
    /// Its volumes, as the file calls them.
    pub volumes: Vec<String>,
    /// Its networks, as the file calls them.
    pub networks: Vec<String>,
    /// The profiles that its services name.
    pub profiles: Vec<String>,
    /// Further files without which nothing can be said yet: all else is empty then. They are sent along as for `/v1/manifests`, and it
    /// is asked again until there are none.
    pub more: Vec<String>,
    /// What the file says that is not honoured, each with its file and line.
    pub warnings: Vec<String>,
    /// What keeps it from being deployed, with file and line where it is about one.
    pub errors: Vec<String>,
}

impl ConfigView {
    /// Reads a Compose file: its normal form, and what would come of it.
    ///
    /// # Errors
    /// What keeps a normal form from being made, and all else that is wrong with it.
    pub fn read(
        files: &layby_manifest::Files,
        options: &layby_manifest::ReadOptions,
        how: ConfigOptions,
    ) -> Result<Self, Faults> {
        let config = layby_manifest::config(files, options, how).map_err(|mut faults| {
            // What else is wrong is told in the same round, but not what is said of the same place already.
            let more = layby_manifest::read(files, options)
                .err()
                .unwrap_or_default();
            let place = |one: &Diagnostic| (one.file.clone(), one.line, one.column);
            let said: BTreeSet<_> = more.errors.iter().map(place).collect();
            faults.errors.retain(|one| !said.contains(&place(one)));
            faults.errors.extend(more.errors);
            faults.errors.sort();
            faults.warnings = more.warnings;
            faults
        })?;
        let mut view = Self {
            text: config.text,
            services: config.services,
            images: config.images,
            volumes: config.volumes,
            networks: config.networks,
            profiles: config.profiles,
            more: config.more,
            ..Self::default()
        };
        if view.more.is_empty() {
            // What is in env files, reading alone does not look at: they are not sent along with it.
            view.warnings = lines(config.warnings, Vec::new());
            view.errors = lines(config.errors, Vec::new());
            match layby_manifest::read(files, options) {
                Ok(manifest) => {
                    view.errors = lines(bad_images(&manifest), view.errors);
                    view.warnings = lines(manifest.warnings, view.warnings);
                }
                Err(mut faults) => {
                    // A file whose services are all in profiles is good: nobody has asked to run it.
                    let (left_out, errors) = faults
                        .errors
                        .into_iter()
                        .partition(|one| one.message == layby_manifest::ALL_LEFT_OUT);
                    faults.warnings.extend::<Vec<Diagnostic>>(left_out);
                    view.errors = lines(errors, view.errors);
                    view.warnings = lines(faults.warnings, view.warnings);
                }
            }
        }
        Ok(view)
    }
}

/// These and more, each once.
fn lines(all: Vec<Diagnostic>, more: Vec<String>) -> Vec<String> {
    let mut lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    let new = |line: &String| !all.iter().any(|known| known.to_string() == *line);
    lines.extend(more.into_iter().filter(new));
    lines
}

/// Shows the normal form of a Compose file: one file, filled in, with every value in its long form. Changes nothing.
#[utoipa::path(
    post,
    path = "/v1/manifests/config",
    params(
        ("app" = Option<String>, Query, description = "The app's name"),
        ("folder" = Option<String>, Query, description = "The name of the manifest's folder"),
        ("folder_path" = Option<String>, Query, description = "Its absolute path: relative paths start there"),
        ("file" = Option<Vec<String>>, Query, description = "The files to read, in order; none: look for them"),
        ("env_file" = Option<Vec<String>>, Query, description = "The files of variables, in order, instead of `.env`"),
        ("profile" = Option<Vec<String>>, Query, description = "The profiles that are switched on"),
        ("no_interpolate" = Option<bool>, Query, description = "Leave `${VAR}` and env files as they are"),
        ("json" = Option<bool>, Query, description = "The text as JSON instead of YAML"),
    ),
    request_body(content_type = "application/x-tar", description = "The files, as for `/v1/manifests`"),
    responses(
        (status = 200, body = ConfigView),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "All that is wrong with it, one line each"),
    )
)]
pub(super) async fn config(
    State(plane): Shared,
    pairs: Pairs,
    body: Body,
) -> Result<Json<ConfigView>, Problem> {
    let upload = receive(&plane, body).await?;
    let options = options(&upload, &ask(&pairs)?, false);
    let how = ConfigOptions {
        no_interpolate: query::flag(&pairs, "no_interpolate"),
        json: query::flag(&pairs, "json"),
    };
    let view = ConfigView::read(&upload.files, &options, how).map_err(bad_manifest)?;
    Ok(Json(view))
}

#[cfg(test)]
mod tests {
    use layby_manifest::{Files, ReadOptions};

    use super::*;

    #[test]
    fn a_file_whose_services_are_all_in_profiles_is_shown_without_an_error() {
        let text = b"services: {web: {image: x, profiles: [a]}}\n".to_vec();
        let files = Files([("compose.yaml".to_owned(), text)].into());
        let options = ReadOptions {
            folder: "demo".to_owned(),
            ..ReadOptions::default()
        };
        let view = ConfigView::read(&files, &options, ConfigOptions::default()).unwrap();
        assert_eq!(view.errors, Vec::<String>::new());
        assert_eq!(view.profiles, ["a"]);
        assert!(
            view.warnings
                .contains(&format!("compose.yaml: {}", layby_manifest::ALL_LEFT_OUT))
        );
    }
}
