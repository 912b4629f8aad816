-- How many replicas `layby scale` said, whatever the revision says. NULL: what the revision says. `replicas` stays what is
-- wanted now.
ALTER TABLE services ADD COLUMN scale INTEGER;

-- The powers that this node has beside those that every node has.
CREATE TABLE powers (
    name         TEXT    PRIMARY KEY,
    cpu_milli    INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
