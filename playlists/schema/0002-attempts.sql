-- A request's attempts outlive the process: after a crash it has those left that it had before.
ALTER TABLE requests ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0; -- calls of the API that failed
