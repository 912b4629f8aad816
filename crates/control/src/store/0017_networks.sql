-- The networks that apps share.
CREATE TABLE networks (
    name       TEXT    NOT NULL PRIMARY KEY,
    -- Those that may join, a JSON array of their names; none: any.
    apps       TEXT    NOT NULL DEFAULT '[]',
    made_by    TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
