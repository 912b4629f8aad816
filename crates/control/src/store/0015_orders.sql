-- An order for a run is of the newest generation that there is: those of forgotten runs may have been newer than its own.
ALTER TABLE job_runs DROP COLUMN generation;
