-- Numbers of the node itself: `life` counts its starts, `generation` the changes to any service.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('life', 0), ('generation', 0);

-- What should be true of each service.
CREATE TABLE services (
    app           TEXT    NOT NULL,
    service       TEXT    NOT NULL,
    enabled       INTEGER NOT NULL,
    removing      INTEGER NOT NULL,
    target        INTEGER NOT NULL,
    live          INTEGER,
    target_failed INTEGER NOT NULL,
    replicas      INTEGER NOT NULL,
    wanted        TEXT    NOT NULL CHECK (wanted IN ('awake', 'dozing', 'asleep')),
    generation    INTEGER NOT NULL,
    last_failure  TEXT,
    PRIMARY KEY (app, service)
) STRICT, WITHOUT ROWID;

-- What each revision runs; only its outcome ever changes.
CREATE TABLE revisions (
    app         TEXT    NOT NULL,
    service     TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    spec        TEXT    NOT NULL,
    created_at  TEXT    NOT NULL,
    deadline_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL CHECK (outcome IN ('rolling', 'live', 'failed')),
    PRIMARY KEY (app, service, revision),
    FOREIGN KEY (app, service) REFERENCES services ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
