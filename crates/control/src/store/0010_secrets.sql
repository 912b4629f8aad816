-- Secrets and configs, encrypted. One that is gone keeps the row of its last version, with nothing in it: a number is
-- never given again.
CREATE TABLE secrets (
    -- '' is the node.
    app TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('secret', 'config')),
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- A manifest brought it: it goes with its app.
    declared INTEGER NOT NULL,
    -- A nonce of 24 bytes, then the ciphertext (XChaCha20-Poly1305). NULL: it is gone.
    sealed BLOB,
    created_at TEXT NOT NULL,
    made_by TEXT NOT NULL,
    PRIMARY KEY (app, kind, name, version)
) STRICT;

-- A text that only the right key opens. No row: no secret was ever kept.
CREATE TABLE master_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    proof BLOB NOT NULL
) STRICT;
