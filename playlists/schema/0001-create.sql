CREATE TABLE playlists (
    seq         INTEGER PRIMARY KEY, -- order of commits
    id          TEXT    NOT NULL UNIQUE,
    version     INTEGER NOT NULL,
    nom         TEXT    NOT NULL,
    description TEXT    NOT NULL,
    styles      TEXT    NOT NULL, -- JSON array of strings
    tracks      TEXT    NOT NULL, -- JSON array of strings
    soiree_id   TEXT,
    origine     TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL  -- 0: never changed
) STRICT;

CREATE INDEX playlists_soiree ON playlists (soiree_id, seq) WHERE soiree_id IS NOT NULL;

-- One row a request that was ever begun; it stays when its playlist is deleted, so that a redelivery makes no other.
CREATE TABLE requests (
    soiree_id   TEXT    NOT NULL,
    message_id  TEXT    NOT NULL, -- '' where the message had none
    starts      INTEGER NOT NULL, -- begun and not ended by this or an earlier process
    playlist_id TEXT,             -- NULL until the playlist is saved
    PRIMARY KEY (soiree_id, message_id)
) STRICT, WITHOUT ROWID;

-- Links that soirees does not have yet: written with the playlist, gone when delivered or pointless.
CREATE TABLE links (
    seq         INTEGER PRIMARY KEY,
    playlist_id TEXT    NOT NULL UNIQUE,
    soiree_id   TEXT    NOT NULL,
    request_id  TEXT    NOT NULL, -- what Playlist-Request says; '' = no such header
    traceparent TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    next_ms     INTEGER NOT NULL  -- not tried before; while it is tried, a lease
) STRICT;

CREATE INDEX links_next ON links (next_ms);

-- Idempotency-Key: what was created with it, kept 24 hours.
CREATE TABLE idempotency (
    key        TEXT    NOT NULL PRIMARY KEY,
    document   TEXT    NOT NULL, -- canonical
    item_id    TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_age ON idempotency (created_ms);
