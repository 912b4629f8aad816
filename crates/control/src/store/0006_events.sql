-- What happened to services, the oldest first; the oldest are forgotten when there are too many.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    app     TEXT,
    service TEXT,
    text    TEXT    NOT NULL,
    who     TEXT
) STRICT;
CREATE INDEX events_of ON events (app, service, id);
