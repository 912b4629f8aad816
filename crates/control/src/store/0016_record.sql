-- How the stream ended that a request was answered with: the exit code that it said last. NULL: it was no stream, it goes
-- on, or nobody stayed to its end.
ALTER TABLE audit ADD COLUMN code INTEGER;

-- Who takes it down.
ALTER TABLE services ADD COLUMN removed_by TEXT;
ALTER TABLE jobs ADD COLUMN removed_by TEXT;

-- What takes time and was asked for without waiting. One that was under way when the node ended has an end, and no code.
CREATE TABLE operations (
    life     INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    -- Whose it is, and what they are called.
    owner    TEXT    NOT NULL,
    who      TEXT    NOT NULL,
    verb     TEXT    NOT NULL,
    target   TEXT    NOT NULL,
    begun_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    code     INTEGER,
    -- What it told last (a JSON array).
    events   TEXT    NOT NULL DEFAULT '[]',
    PRIMARY KEY (life, number)
) STRICT, WITHOUT ROWID;
