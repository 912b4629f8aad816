//! The words of jobs and runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ExitView;

/// A job: what runs to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its app.
    pub app: String,
    /// Its name in the app.
    pub job: String,
    /// When it runs, as a cron expression; `null`: once, when it is deployed.
    pub schedule: Option<String>,
    /// The time zone that this is meant in; `null`: the machine's.
    pub time_zone: Option<String>,
    /// What happens when it is due while a run goes on: `allow`, `forbid` or `replace`.
    pub concurrency: String,
    /// So many attempts of a run may fail, and another one is made.
    pub retries: u32,
    /// A run that takes longer is ended, in milliseconds; `null`: none is.
    pub time_limit_ms: Option<u64>,
    /// It does not run until it is resumed.
    pub suspended: bool,
    /// It is being taken down.
    pub removing: bool,
    /// Its first image, as the manifest names it.
    pub image: String,
    /// When it is due next (RFC 3339).
    pub next_run: Option<String>,
    /// How many of its runs go on.
    pub active: u32,
    /// The last of its runs that is kept.
    pub last_run: Option<RunView>,
    /// The last due time that was skipped since the node was started, and why.
    pub skipped: Option<String>,
    /// Who deployed it.
    pub made_by: String,
    /// When (RFC 3339).
    pub made_at: String,
}

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has not begun: others go on that it waits for, or there is no room for it.
    Waiting,
    /// It goes on, or is about to be tried again.
    Running,
    /// It is being ended.
    Stopping,
    /// It did what it was to do.
    Succeeded,
    /// Its attempts failed.
    Failed,
    /// It took too long and was ended.
    TimedOut,
    /// It was ended before its end.
    Stopped,
}

impl RunState {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Stopping => false,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Stopped => true,
        }
    }
}

/// One run of a job, or of a service (`layby run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The app.
    pub app: String,
    /// The job or the service.
    pub job: String,
    /// Its number: 1, 2, 3, ... in the order in which they were made.
    pub run: u32,
    /// Where it is in its life.
    pub state: RunState,
    /// Why it was made: `schedule`, `deploy` or `command`.
    pub cause: String,
    /// By whom.
    pub made_by: String,
    /// The command, where it is not the job's own.
    pub command: Option<Vec<String>>,
    /// The moment of the schedule that it is for (RFC 3339).
    pub due_at: Option<String>,
    /// When it was made (RFC 3339).
    pub made_at: String,
    /// When its first attempt began (RFC 3339).
    pub began_at: Option<String>,
    /// When it was over (RFC 3339).
    pub ended_at: Option<String>,
    /// From its beginning to its end, in milliseconds.
    pub duration_ms: Option<u64>,
    /// How its last attempt that is over ended; `null`: it never ran.
    pub exit: Option<ExitView>,
    /// Why it did not run, or not to its end; of one that waits, for what.
    pub message: Option<String>,
    /// Who ended it.
    pub stopped_by: Option<String>,
    /// Its attempts, the oldest first.
    pub attempts: Vec<AttemptView>,
}

/// One attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Its replica: 12 hexadecimal digits.
    pub replica: String,
    /// When it was made (RFC 3339).
    pub began_at: String,
    /// When its end was seen (RFC 3339).
    pub ended_at: Option<String>,
    /// How it ended; `null`: it goes on, or never ran.
    pub exit: Option<ExitView>,
    /// Why it did not run, or not to its end.
    pub message: Option<String>,
}

/// A command to run beside a service, in a container of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandBody {
    /// The program and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables over those of the service.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it starts; `null`: where the service does.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Whom it runs as; `null`: as the service.
    #[serde(default)]
    pub user: Option<String>,
    /// It is ended after this, in milliseconds; `null`: never.
    #[serde(default)]
    pub time_limit_ms: Option<u64>,
}
