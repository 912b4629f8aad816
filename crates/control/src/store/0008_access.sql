-- What a token may do with the node: nothing, or a role; with all apps, or those of a JSON list.
ALTER TABLE tokens ADD COLUMN role TEXT;
ALTER TABLE tokens ADD COLUMN apps TEXT;

-- Who changed what. Never what was sent along.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    from_where TEXT    NOT NULL,
    via        TEXT    NOT NULL,
    verb       TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    took_ms    INTEGER NOT NULL
) STRICT;
