/* Idempotency-Key over PostgreSQL, as idempotency.h is over SQLite: what was created with a key, in the same
 * transaction as the item itself, kept 24 hours. A store puts PG_KEYS_SQL into its list and gives the index
 * of the first.
 *
 * The key's row is taken before anything else is decided (INSERT … ON CONFLICT waits for whoever is about to
 * insert the same one: manual, INSERT), so a key holds across instances. */
#ifndef COMMON_PG_KEYS_H
#define COMMON_PG_KEYS_H

#include "pg.h"

enum { PG_KEYS_STATEMENTS = 3 };
#define PG_KEYS_SQL                                                                                          \
    "INSERT INTO idempotency AS i (key, document, item_id, created_at) VALUES ($1, $2, $3, now())"           \
    " ON CONFLICT (key) DO UPDATE SET document = excluded.document, item_id = excluded.item_id,"             \
    " created_at = excluded.created_at WHERE i.created_at <= now() - interval '24 hours' RETURNING true",    \
        "SELECT document, item_id FROM idempotency WHERE key = $1",                                          \
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency"                                  \
        " WHERE created_at <= now() - interval '24 hours' ORDER BY created_at LIMIT 16"                      \
        " FOR UPDATE SKIP LOCKED)"

/* In round 0 of a job whose key it is: takes it for the item `id`, or finds what it was used for. Puts two
 * statements. */
void pg_keys_take(struct pg_job *job, unsigned first, const char *key, const char *document, const char *id);

/* In round 1. NOT_FOUND: it is this job's now, to be followed by the item itself; some of the oldest are put
 * to be forgotten. OK: it was used for the same document, *ret_id (size bytes) is what it made. INVALID: for
 * another one. BUSY: it was given up meanwhile. */
enum status pg_keys_read(struct pg_job *job, unsigned first, const char *document, char *ret_id, size_t size,
                         struct err *err);

#endif
