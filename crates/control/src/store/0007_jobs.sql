-- Jobs: what runs to its end. Times are in milliseconds since 1970-01-01T00:00:00Z.
CREATE TABLE jobs (
    app TEXT NOT NULL,
    job TEXT NOT NULL,
    -- What it runs, and the settings of the job (JSON, model::engine::RunSpec).
    spec TEXT NOT NULL,
    -- It does not run until it is resumed.
    suspended INTEGER NOT NULL,
    -- It is on its way out: when its last replica is gone, so is this row.
    removing INTEGER NOT NULL DEFAULT 0,
    -- It was deployed to run once, and has not yet.
    pending INTEGER NOT NULL,
    -- Due times of its schedule up to this moment were seen to.
    seen_ms INTEGER NOT NULL,
    made_by TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (app, job)
) STRICT;

-- The number of the last run of a job, or of a service (`layby run`).
CREATE TABLE job_numbers (
    app TEXT NOT NULL,
    job TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (app, job)
) STRICT;

CREATE TABLE job_runs (
    app TEXT NOT NULL,
    job TEXT NOT NULL,
    run INTEGER NOT NULL,
    -- It is of the service of that name, not of a job.
    of_service INTEGER NOT NULL,
    -- What it runs; NULL once it is over.
    spec TEXT,
    -- `schedule`, `deploy` or `command`.
    cause TEXT NOT NULL,
    made_by TEXT NOT NULL,
    -- The moment of the schedule that it is for.
    due_ms INTEGER,
    -- The command, where it is not the job's own (JSON).
    command TEXT,
    -- Somebody is to be at its other end.
    held INTEGER NOT NULL,
    -- The generation that its replicas are ordered with.
    generation INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    -- Why it is to end early (model::job::Stop), and who said so.
    stopping TEXT,
    stopped_by TEXT,
    ended_ms INTEGER,
    -- What came of it (model::job::Outcome).
    outcome TEXT,
    PRIMARY KEY (app, job, run)
) STRICT;

CREATE TABLE job_attempts (
    -- The id of its replica.
    replica TEXT NOT NULL PRIMARY KEY,
    app TEXT NOT NULL,
    job TEXT NOT NULL,
    run INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    -- The exit code; NULL: it has none.
    code INTEGER,
    oom INTEGER NOT NULL DEFAULT 0,
    -- No further one can end in another way.
    hopeless INTEGER NOT NULL DEFAULT 0,
    -- Why it did not run, or not to its end.
    message TEXT,
    FOREIGN KEY (app, job, run) REFERENCES job_runs (app, job, run) ON DELETE CASCADE
) STRICT;
CREATE INDEX job_attempts_of_run ON job_attempts (app, job, run);
