-- What requests with an Idempotency-Key were answered. Never what held a secret.
CREATE TABLE answers (
    who      TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    request  BLOB,
    status   INTEGER NOT NULL,
    kind     TEXT,
    location TEXT,
    body     BLOB,
    PRIMARY KEY (who, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (at_ms);
