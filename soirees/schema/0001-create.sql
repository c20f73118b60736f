CREATE TABLE soirees (
    seq            INTEGER PRIMARY KEY, -- order of commits
    id             TEXT    NOT NULL UNIQUE,
    version        INTEGER NOT NULL,
    client_id      TEXT    NOT NULL,
    date           TEXT    NOT NULL,
    lieu           TEXT    NOT NULL,
    nombre_invites INTEGER NOT NULL,
    budget         REAL    NOT NULL,
    style          TEXT    NOT NULL,
    statut         TEXT    NOT NULL,
    playlist_id    TEXT,
    request_id     TEXT,                -- the current request for a playlist
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL     -- 0: never changed
) STRICT;

CREATE INDEX soirees_client ON soirees (client_id, seq);

-- One row an open request: written with the booking, gone when the request is answered, cancelled or replaced.
-- Its message is unsent until the broker has confirmed it; then again_ms says when it is sent once more should nobody answer.
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT, -- order of publishing; never used again
    soiree_seq  INTEGER NOT NULL UNIQUE REFERENCES soirees (seq) ON DELETE CASCADE,
    message_id  TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    traceparent TEXT    NOT NULL,
    again_ms    INTEGER,                           -- NULL: not confirmed yet
    again_count INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX outbox_unsent ON outbox (seq) WHERE again_ms IS NULL;
CREATE INDEX outbox_again ON outbox (again_ms) WHERE again_ms IS NOT NULL;

-- Idempotency-Key: what was created with it, kept 24 hours.
CREATE TABLE idempotency (
    key        TEXT    NOT NULL PRIMARY KEY,
    document   TEXT    NOT NULL, -- canonical
    item_id    TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_age ON idempotency (created_ms);
