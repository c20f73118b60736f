/* Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): what was created with a key, in the same
 * transaction as the item itself, kept 24 hours. The same three statements serve the `idempotency` table of
 * both services; a store puts IDEMPOTENCY_SQL into its list and gives the index of the first. */
#ifndef COMMON_IDEMPOTENCY_H
#define COMMON_IDEMPOTENCY_H

#include "db.h"

enum { IDEMPOTENCY_STATEMENTS = 3 };
#define IDEMPOTENCY_SQL                                                                                      \
    "SELECT document, item_id FROM idempotency WHERE key = ?1 AND created_ms > ?2",                          \
        "REPLACE INTO idempotency (key, document, item_id, created_ms) VALUES (?1, ?2, ?3, ?4)",             \
        "DELETE FROM idempotency WHERE key IN"                                                               \
        " (SELECT key FROM idempotency WHERE created_ms <= ?1 ORDER BY created_ms LIMIT 16)"

/* Inside a writing job. OK: the key was used for the same document, *ret_id (size bytes) is what it made.
 * NOT_FOUND: a new key. INVALID: it was used for another document. */
enum status idempotency_find(struct db_conn *conn, unsigned first, const char *key, const char *document,
                             int64_t now_ms, char *ret_id, size_t size, struct err *err);

/* Inside the same job: remembers, and forgets some of the oldest. */
enum status idempotency_keep(struct db_conn *conn, unsigned first, const char *key, const char *document,
                             const char *id, int64_t now_ms, struct err *err);

#endif
