-- What the replicas of a service used in an hour (of Unix time) while it was awake: how often it was looked at, how often
-- which CPU was seen (a histogram as JSON), and the most memory of a replica.
CREATE TABLE usage (
    app         TEXT    NOT NULL,
    service     TEXT    NOT NULL,
    hour        INTEGER NOT NULL,
    samples     INTEGER NOT NULL,
    cpu         TEXT    NOT NULL,
    memory_peak INTEGER NOT NULL,
    PRIMARY KEY (app, service, hour),
    FOREIGN KEY (app, service) REFERENCES services ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
