//! Arguments of `layby job` and `layby run`.

use clap::{Args, Subcommand};

use super::{Json, Name, key_value_or_variable, not_empty, seconds};

/// `layby run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Its exit code is that of the command; 124 if it took longer than --timeout, 126 or 127 if it cannot be \
executed or is not found.

Examples:
  layby run web -- bin/migrate
  layby run -it web -- sh
  layby run web -- pg_dump shop > shop.sql
  layby run --detach --timeout 1h web -- bin/reindex"
)]
pub(crate) struct Run {
    /// Pass the standard input on.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A variable to set, as KEY=VALUE, or KEY to take it from the environment; may be given several times.
    #[arg(short, long, value_name = "K=V", value_parser = key_value_or_variable)]
    pub(crate) env: Vec<(String, Option<String>)>,
    /// Where it starts; otherwise where the service does.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Whom it runs as (a name or number, with :GROUP if need be); otherwise as the service.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// End it after this, such as 30s, 10m or 1h.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) timeout: Option<u64>,
    /// Do not wait for it: it also goes on when the node ends. `layby job logs` shows what it writes.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Taken as ever: nothing of a run but its log and its record is left in any case.
    #[arg(long, hide = true)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) name: Name,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `layby job`.
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// List the jobs.
    Ls(Json),
    /// Show the runs of a job, or of a service (`layby run`), the newest first.
    Runs {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        json: Json,
    },
    /// Run a job now, show what it writes, and end with its exit code.
    Run {
        #[command(flatten)]
        name: Name,
        /// Do not wait for it.
        #[arg(short, long)]
        detach: bool,
    },
    /// Show what a run wrote.
    Logs(JobLogs),
    /// Let a job wait until it is resumed.
    Suspend(Name),
    /// Let a job that waits go on. What was due meanwhile is not made up.
    Resume(Name),
    /// End a run: it is asked to end, and killed after its grace.
    Stop {
        #[command(flatten)]
        name: Name,
        /// Its number; otherwise the newest that goes on.
        run: Option<u32>,
    },
    /// Remove a job, with its history and logs.
    Rm(Name),
}

/// `layby job logs`.
#[derive(Debug, Args)]
pub(crate) struct JobLogs {
    /// The job (or the service): its name where that is unique, else `app/name`.
    #[arg(value_parser = not_empty)]
    pub(crate) name: String,
    /// The run's number; otherwise the newest.
    pub(crate) run: Option<u32>,
    /// Go on with new lines until the run is over.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only so many of the last lines of each attempt.
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Say when each line was written.
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}
