-- Who made each revision, and what became of it and when. A rollout ends when the revision goes live, fails, is called off
-- ('aborted'), or a newer one overtakes it; the last is derived: still 'rolling', and no longer the target.
CREATE TABLE revisions_new (
    app         TEXT    NOT NULL,
    service     TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    spec        TEXT    NOT NULL,
    created_at  TEXT    NOT NULL,
    deadline_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL CHECK (outcome IN ('rolling', 'live', 'failed', 'aborted')),
    cause       TEXT,
    made_by     TEXT,
    ended_at    TEXT,
    failure     TEXT,
    PRIMARY KEY (app, service, revision),
    FOREIGN KEY (app, service) REFERENCES services ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO revisions_new (app, service, revision, spec, created_at, deadline_ms, outcome, cause)
    SELECT app, service, revision, spec, created_at, deadline_ms, outcome, cause FROM revisions;
DROP TABLE revisions;
ALTER TABLE revisions_new RENAME TO revisions;

-- What the newest failed revision is known to have failed of.
UPDATE revisions SET failure =
    (SELECT last_failure FROM services WHERE (services.app, services.service) = (revisions.app, revisions.service))
WHERE outcome = 'failed' AND revision =
    (SELECT json_extract(last_failure, '$.revision') FROM services
     WHERE (services.app, services.service) = (revisions.app, revisions.service));
