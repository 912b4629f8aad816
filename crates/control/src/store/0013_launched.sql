-- Whether the engine has taken the order for an attempt: one that is gone afterwards has failed, and is not begun anew.
ALTER TABLE job_attempts ADD COLUMN launched INTEGER NOT NULL DEFAULT 0;
