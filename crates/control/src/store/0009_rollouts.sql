-- How often the target's rollout was tried in vain, and which share of the requests it gets (model::share::Share as
-- JSON; NULL: it is no canary).
ALTER TABLE services ADD COLUMN failed_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE services ADD COLUMN share TEXT;

-- How long the last rollouts took to be ready, in milliseconds, the newest last (a JSON array): how long the next may take
-- is learned from that.
ALTER TABLE services ADD COLUMN boots_ms TEXT NOT NULL DEFAULT '[]';

-- 5 minutes were what held where nothing was said. Left as they are they would be taken for what somebody said.
UPDATE revisions SET spec = json_remove(spec, '$.service.progress_deadline_ms')
WHERE json_extract(spec, '$.service.progress_deadline_ms') = 300000;
