//! `deploy.mode`: whether replicas are counted or are one for each machine, and whether they run on or to their end.

use layby_model::job::{JobSpec, MAX_COMPLETIONS, MAX_PARALLELISM, MAX_RETRIES};
use layby_model::spec::RestartPolicy;

use crate::draft::Placed;
use crate::fields::{Expected, Fields};
use crate::report::Report;

/// How often a job is tried again where its restart policy says no number.
const RETRIES: u32 = 6;

/// What is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl Mode {
    /// Takes `mode` off `deploy`. What is one for each machine is one here, whatever number stands beside it.
    pub(crate) fn read(
        deploy: &mut Fields,
        replicas: &mut Option<Placed<u32>>,
        report: &mut Report,
    ) -> Self {
        let place = deploy.place_of("mode");
        let mode = deploy
            .parsed("mode", report, mode)
            .unwrap_or(Self::Replicated);
        let what = match mode {
            Self::Replicated | Self::ReplicatedJob => return mode,
            Self::Global => "global",
            Self::GlobalJob => "global-job",
        };
        let name = deploy.name("mode");
        let message = match replicas.take() {
            Some(said) if said.value != 1 => {
                let said = said.value;
                format!("{name} is {what}, one for each machine: that is 1 here, and not {said}")
            }
            Some(_) | None => {
                format!("{name} is {what}, one for each machine: there is one, so it is 1 here")
            }
        };
        report.warn(&place.unwrap_or_else(|| deploy.place.clone()), message);
        mode
    }

    /// It runs to its end.
    pub(crate) fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob | Self::GlobalJob)
    }

    /// The job that a service of this mode is, if it is one: `replicas` of it are to end well.
    pub(crate) fn job(self, replicas: u32, restart: Option<RestartPolicy>) -> Option<JobSpec> {
        match self {
            Self::Replicated | Self::Global => return None,
            Self::ReplicatedJob | Self::GlobalJob => {}
        }
        let retries = match restart {
            Some(RestartPolicy::Never) => 0,
            Some(RestartPolicy::OnFailure {
                max_retries: Some(retries),
            }) => retries.min(MAX_RETRIES),
            Some(RestartPolicy::OnFailure { max_retries: None } | RestartPolicy::Always) | None => {
                RETRIES
            }
        };
        Some(JobSpec {
            completions: replicas.clamp(1, MAX_COMPLETIONS),
            parallelism: replicas.clamp(1, MAX_PARALLELISM),
            suspended: replicas == 0,
            retries,
            ..JobSpec::default()
        })
    }
}

fn mode(text: &str) -> Result<Mode, Expected> {
    match text {
        "replicated" | "" => Ok(Mode::Replicated),
        "global" => Ok(Mode::Global),
        "replicated-job" => Ok(Mode::ReplicatedJob),
        "global-job" => Ok(Mode::GlobalJob),
        _ => Err("replicated, global, replicated-job or global-job".to_owned()),
    }
}
