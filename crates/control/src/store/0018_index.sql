-- The number of an attempt of an indexed job (model::job::JobSpec); NULL: its attempts have none.
ALTER TABLE job_attempts ADD COLUMN number INTEGER;
