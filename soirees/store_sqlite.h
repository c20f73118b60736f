/* What store_sqlite.c (bookings) and store_sqlite_outbox.c (the relay's side) share. Private to the two. */
#ifndef SOIREES_STORE_SQLITE_H
#define SOIREES_STORE_SQLITE_H

#include <stdatomic.h>

#include "idempotency.h"
#include "mem.h"
#include "store_internal.h"

enum statement {
    GET,
    LIST,
    LIST_DATES,
    LIST_STATUT,
    LIST_CLIENT,
    INSERT,
    UPDATE,
    LINK,
    DELETE,
    OUTBOX_INSERT,
    OUTBOX_DROP,
    OUTBOX_DROP_OPEN,
    OUTBOX_UNSENT,
    OUTBOX_GET,
    OUTBOX_DUE,
    OUTBOX_KEEP,
    OUTBOX_KEEP_FIRST,
    OUTBOX_MEND,
    OUTBOX_DELETE,
    OUTBOX_UNSENT_COUNT,
    OUTBOX_OPEN_COUNT,
    OUTBOX_OLDEST,
    IDEMPOTENCY,
    STATEMENT_COUNT = IDEMPOTENCY + IDEMPOTENCY_STATEMENTS
};

enum { UNSENT, OPEN };
struct sqlite_store {
    struct store base;
    struct db *db;
    const _Atomic int64_t *again_after_ms;
    _Atomic int64_t counts[DB_COUNTS]; /* rows of the outbox */
};

static inline struct sqlite_store *sqlite_of(struct store *base)
{
    return OWNER(base, struct sqlite_store, base);
}

/* See store.h. */
void store_sqlite_outbox_look(struct store *base, struct store_outbox *ret_outbox);
enum status store_sqlite_outbox_unsent(struct store *base, int64_t after, size_t max, struct outbox_row *rows,
                                       size_t *ret_count, struct err *err);
enum status store_sqlite_outbox_get(struct store *base, int64_t seq, struct outbox_row *ret_row,
                                    struct err *err);
enum status store_sqlite_outbox_due(struct store *base, int64_t now_ms, struct outbox_row *ret_row,
                                    struct err *err);
enum status store_sqlite_outbox_take(struct store *base, int64_t seq, struct err *err);
void store_sqlite_outbox_hold(struct store *base, const int64_t *seqs, size_t count);
int64_t store_sqlite_outbox_poll_ms(struct store *base);
void store_sqlite_confirm(struct store *base, struct store_confirm *confirm);

#endif
