//! `layby job` and `layby run`: jobs, their runs, and one-off commands.

use anyhow::Result;
use jiff::Timestamp;
use layby_control::api::types::{CommandBody, JobView, LogView, RunState, RunView};

use crate::cli::{Job, JobLogs, Run};
use crate::client::Client;
use crate::commands::exec;
use crate::commands::named;
use crate::commands::services;
use crate::exit::{Code, Exit, Passed};
use crate::nearest;
use crate::out::{say, tell};
use crate::show::{self, print, table};

/// The exit code of what took too long, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Does what `layby job` says.
///
/// # Errors
/// What the node refused; or the exit code of a run that was waited for.
pub(crate) async fn job(client: &Client, command: Job) -> Result<()> {
    match command {
        Job::Ls(form) => ls(client, form.json).await,
        Job::Runs { name, json } => runs(client, &name.name, json.json).await,
        Job::Run { name, detach } => run_now(client, &name.name, detach).await,
        Job::Logs(options) => logs(client, &options).await,
        Job::Suspend(name) => turn(client, &name.name, "suspend").await,
        Job::Resume(name) => turn(client, &name.name, "resume").await,
        Job::Stop { name, run } => stop(client, &name.name, run).await,
        Job::Rm(name) => remove(client, &name.name).await,
    }
}

/// Runs a command beside a service, in a container of its own.
///
/// # Errors
/// It could not be begun; or its exit code.
pub(crate) async fn run(client: &Client, options: &Run) -> Result<()> {
    exec::check(options.interactive, options.tty, &options.command)?;
    let path = services::find(client, &options.name.name).await?;
    if options.detach {
        let body = CommandBody {
            command: options.command.clone(),
            env: exec::set(&options.env)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            working_dir: options.workdir.clone(),
            user: options.user.clone(),
            time_limit_ms: options.timeout.map(|seconds| seconds * 1_000),
        };
        let run: RunView = client.post_json(&format!("{path}/runs"), &body).await?;
        say!("{}/{}  run {} began", run.app, run.job, run.run);
        return Ok(());
    }
    let mut query = exec::words(&options.command, &options.env);
    query.extend(options.workdir.clone().map(|dir| ("workdir", dir)));
    query.extend(options.user.clone().map(|user| ("user", user)));
    let limit_ms = options.timeout.map(|seconds| seconds * 1_000);
    query.extend(limit_ms.map(|ms| ("time_limit_ms", ms.to_string())));
    let path = format!("{path}/run");
    exec::converse(client, &path, query, options.interactive, options.tty).await
}

/// All jobs.
///
/// # Errors
/// No node answers.
pub(crate) async fn all(client: &Client) -> Result<Vec<JobView>> {
    client.get("/v1/jobs", &[]).await
}

/// Whether a job is called so: by its own name, or with its app's.
pub(crate) fn is_called(job: &JobView, name: &str) -> bool {
    job.job == name || name.split_once('/') == Some((&job.app, &job.job))
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let jobs = all(client).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&jobs)?);
    } else if jobs.is_empty() {
        say!(
            "No jobs yet: a Compose service becomes one by `x-layby: {{schedule: ...}}`; Kubernetes has Job and CronJob."
        );
    } else {
        list(&jobs);
    }
    Ok(())
}

/// Prints jobs as a table.
pub(crate) fn list(jobs: &[JobView]) {
    let mut table = table(&[
        "APP", "JOB", "SCHEDULE", "RUNS NOW", "LAST RUN", "NEXT RUN", "IMAGE",
    ]);
    for job in jobs {
        let none = || "-".to_owned();
        let next = match (job.suspended, &job.next_run) {
            (true, _) => "suspended".to_owned(),
            (false, next) => next.clone().unwrap_or_else(none),
        };
        table.add_row(vec![
            job.app.clone(),
            job.job.clone(),
            job.schedule.clone().unwrap_or_else(none),
            job.active.to_string(),
            job.last_run.as_ref().map_or_else(none, outcome),
            next,
            job.image.clone(),
        ]);
    }
    print(&table);
}

/// `3 succeeded`, `4 failed (exit code 2)`.
fn outcome(run: &RunView) -> String {
    let state = show::text(&run.state);
    match run.exit.filter(|exit| exit.code != 0) {
        Some(exit) if run.state == RunState::Failed => {
            format!("{} {state} (exit code {})", run.run, exit.code)
        }
        Some(_) | None => format!("{} {state}", run.run),
    }
}

/// Prints one job whole.
pub(crate) fn detail(job: &JobView) {
    say!("{}/{}", job.app, job.job);
    say!("  image     {}", job.image);
    match (&job.schedule, &job.time_zone) {
        (Some(cron), Some(zone)) => say!(
            "  schedule  {cron} ({zone}), runs overlap: {}",
            job.concurrency
        ),
        (Some(cron), None) => say!("  schedule  {cron}, runs overlap: {}", job.concurrency),
        (None, _) => say!("  schedule  none: it runs once, when it is deployed"),
    }
    match (job.suspended, &job.next_run) {
        (true, _) => say!(
            "  next run  none: suspended, until `layby job resume {}`",
            job.job
        ),
        (false, Some(next)) => say!("  next run  {next}"),
        (false, None) => {}
    }
    say!("  runs now  {}", job.active);
    if let Some(run) = &job.last_run {
        say!("  last run  {}", outcome(run));
        if let Some(message) = &run.message {
            say!("            {message}");
        }
    }
    if let Some(skipped) = &job.skipped {
        say!("  skipped   {skipped}");
    }
    say!("`layby job runs {}` shows its history", job.job);
}

async fn runs(client: &Client, name: &str, json: bool) -> Result<()> {
    let path = find_runs(client, name).await?;
    let runs: Vec<RunView> = client.get(&format!("{path}/runs"), &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&runs)?);
        return Ok(());
    }
    if runs.is_empty() {
        say!("No runs of {name} yet.");
        return Ok(());
    }
    let mut table = table(&[
        "RUN", "STATE", "CAUSE", "BY", "BEGAN", "TOOK", "EXIT", "COMMAND",
    ]);
    for run in &runs {
        let none = || "-".to_owned();
        let exit = run.exit.map(|exit| match exit.oom {
            true => format!("{} (out of memory)", exit.code),
            false => exit.code.to_string(),
        });
        let command = run.command.as_ref().map(|words| words.join(" "));
        table.add_row(vec![
            run.run.to_string(),
            show::text(&run.state),
            run.cause.clone(),
            run.made_by.clone(),
            run.began_at.as_deref().map_or_else(none, short),
            run.duration_ms.map_or_else(none, took),
            exit.unwrap_or_else(none),
            command.unwrap_or_else(none),
        ]);
    }
    print(&table);
    for run in runs.iter().filter(|run| run.message.is_some()) {
        say!(
            "run {}: {}",
            run.run,
            run.message.as_deref().unwrap_or_default()
        );
    }
    Ok(())
}

/// A moment without parts of seconds.
fn short(moment: &str) -> String {
    let at = moment.parse::<Timestamp>();
    at.map_or_else(|_| moment.to_owned(), |at| format!("{at:.0}"))
}

/// `0.3s`, `12.0s`, `5m30s`.
fn took(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

async fn run_now(client: &Client, name: &str, detach: bool) -> Result<()> {
    let path = find(client, name).await?;
    let run: RunView = client.post(&format!("{path}/runs"), &[]).await?;
    let (app, job, number) = (&run.app, &run.job, run.run);
    if detach {
        say!("{app}/{job}  run {number} began");
        return Ok(());
    }
    let path = format!("{path}/runs/{number}");
    let over = follow(client, &path).await;
    let over = over.map_err(|error| goes_on(&error, &format!("{app}/{job}"), number))?;
    let code = over.exit.and_then(|exit| u8::try_from(exit.code).ok());
    let code = match over.state {
        RunState::Succeeded => return Ok(()),
        RunState::TimedOut => TIMED_OUT,
        RunState::Waiting
        | RunState::Running
        | RunState::Stopping
        | RunState::Failed
        | RunState::Stopped => code.filter(|code| *code != 0).unwrap_or(1),
    };
    let why = over
        .message
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    tell!(
        "layby: run {number} of {app}/{job} {}{why}",
        show::text(&over.state)
    );
    Err(Passed(code).into())
}

/// Prints what a run writes until it is over, and gives how it then stands.
async fn follow(client: &Client, path: &str) -> Result<RunView> {
    let query = [("follow", "true".to_owned())];
    let mut lines = client.get_lines(&format!("{path}/logs"), &query).await?;
    while let Some(line) = lines.next::<LogView>().await? {
        match line.stream.as_str() {
            "stderr" => tell!("{}", line.text),
            _ => say!("{}", line.text),
        }
    }
    client.get(path, &[]).await
}

/// What is said where a run could not be followed to its end, as when the node goes in the midst of it.
fn goes_on(error: &anyhow::Error, name: &str, run: u32) -> anyhow::Error {
    let code = error
        .downcast_ref()
        .map_or(Code::Failed, |exit: &Exit| exit.code);
    let message = format!(
        "{error:#}; run {run} of {name} goes on all the same: `layby job logs {name} {run} --follow` tells how, once a node runs"
    );
    Exit::new(code, message).into()
}

/// Prints what a run wrote.
///
/// # Errors
/// No node answers, or there is no such job or run.
pub(crate) async fn logs(client: &Client, options: &JobLogs) -> Result<()> {
    let path = find_runs(client, &options.name).await?;
    let number = match options.run {
        Some(number) => number,
        None => {
            let runs: Vec<RunView> = client.get(&format!("{path}/runs"), &[]).await?;
            let newest = runs.first().map(|run| run.run);
            let text = format!("{} has no runs, and so no log", options.name);
            newest.ok_or_else(|| Exit::new(Code::NotFound, text))?
        }
    };
    let mut query = vec![("follow", options.follow.to_string())];
    query.extend(options.tail.map(|tail| ("tail", tail.to_string())));
    let mut lines = client
        .get_lines(&format!("{path}/runs/{number}/logs"), &query)
        .await?;
    while let Some(line) = lines.next::<LogView>().await? {
        if options.json.json {
            say!("{}", serde_json::to_string(&line)?);
        } else if options.timestamps {
            let at = i64::try_from(line.at_ms).unwrap_or(i64::MAX);
            let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
            say!("{at:.3} {}", line.text);
        } else {
            say!("{}", line.text);
        }
    }
    Ok(())
}

async fn turn(client: &Client, name: &str, verb: &str) -> Result<()> {
    let path = find(client, name).await?;
    let job: JobView = client.post(&format!("{path}/{verb}"), &[]).await?;
    let text = match (job.suspended, &job.next_run) {
        (true, _) => "suspended".to_owned(),
        (false, Some(next)) => format!("next run at {next}"),
        (false, None) => "not suspended".to_owned(),
    };
    say!("{}/{}  {text}", job.app, job.job);
    Ok(())
}

async fn stop(client: &Client, name: &str, run: Option<u32>) -> Result<()> {
    let path = find_runs(client, name).await?;
    let number = match run {
        Some(number) => number,
        None => {
            let runs: Vec<RunView> = client.get(&format!("{path}/runs"), &[]).await?;
            let goes_on = runs.iter().find(|run| !run.state.is_over());
            let text = format!("no run of {name} goes on");
            goes_on
                .map(|run| run.run)
                .ok_or_else(|| Exit::new(Code::NotFound, text))?
        }
    };
    let run: RunView = client.delete(&format!("{path}/runs/{number}"), &[]).await?;
    say!("{}/{}  run {} is being stopped", run.app, run.job, run.run);
    Ok(())
}

async fn remove(client: &Client, name: &str) -> Result<()> {
    let path = find(client, name).await?;
    client.forget(&path, &[]).await?;
    say!("{}  removed", path.trim_start_matches("/v1/jobs/"));
    Ok(())
}

/// The API path of the job called `name`: `job` where that is unique, else `app/job`.
///
/// # Errors
/// The name fits none (which there are is said) or several (which is said).
async fn find(client: &Client, name: &str) -> Result<String> {
    let jobs = all(client).await?;
    let names = jobs.iter().map(|job| format!("{}/{}", job.app, job.job));
    meant(name, "job", &names.collect::<Vec<_>>())
}

/// The same for what has runs: a job, or a service.
async fn find_runs(client: &Client, name: &str) -> Result<String> {
    let jobs = all(client).await?;
    let services = named::views(client).await?;
    let jobs = jobs.iter().map(|job| format!("{}/{}", job.app, job.job));
    let services = services.iter().map(named::full);
    meant(
        name,
        "job or service",
        &jobs.chain(services).collect::<Vec<_>>(),
    )
}

fn meant(name: &str, kind: &str, all: &[String]) -> Result<String> {
    let fits =
        |full: &&String| *full == name || full.split_once('/').is_some_and(|(_, one)| one == name);
    let found: Vec<&String> = all.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(format!("/v1/jobs/{one}")),
        [] => {
            let instead = nearest::instead(name, all);
            let text = format!("no {kind} is called {name}: {instead}");
            Err(Exit::new(Code::NotFound, text).into())
        }
        several => {
            let several: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            let text = format!(
                "several are called {name}, say which: {}",
                several.join(", ")
            );
            Err(Exit::new(Code::Failed, text).into())
        }
    }
}
