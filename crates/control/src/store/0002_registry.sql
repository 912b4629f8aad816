-- Who may use the registry. Of a token only its SHA-256 is known.
CREATE TABLE tokens (
    name       TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL,
    pull       INTEGER NOT NULL,
    push       INTEGER NOT NULL,
    repository TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    expires_at TEXT
) STRICT, WITHOUT ROWID;

-- Why a revision was made, where nobody deployed it by hand.
ALTER TABLE revisions ADD COLUMN cause TEXT;
