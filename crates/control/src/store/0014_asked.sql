-- Answers by whose they are rather than by a name that others may have too, with which request they are of in any case, and
-- how much they take. Those of before are a day old at most, and cannot be told apart: they go.
DROP TABLE answers;
CREATE TABLE answers (
    owner      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL,
    request    BLOB    NOT NULL,
    body_bytes INTEGER NOT NULL,
    is_whole   INTEGER NOT NULL,
    status     INTEGER NOT NULL,
    kind       TEXT,
    location   TEXT,
    body       BLOB,
    bytes      INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (at_ms, bytes);
CREATE INDEX answers_by_owner ON answers (owner, at_ms, bytes);
