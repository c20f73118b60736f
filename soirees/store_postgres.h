/* What store_postgres.c (bookings) and store_postgres_outbox.c (the relay's side) share. Private to the two.
 * Times are the database's, so that the instances' clocks need not agree; but those of a booking, which is
 * answered before it is read back. */
#ifndef SOIREES_STORE_POSTGRES_H
#define SOIREES_STORE_POSTGRES_H

#include <pthread.h>

#include "mem.h"
#include "pg_keys.h"
#include "store_internal.h"

enum statement {
    GET,
    LIST,
    LIST_DATES,
    LIST_STATUT,
    LIST_CLIENT,
    LOCK,
    CREATE,
    UPDATE,
    DELETE,
    OUTBOX_INSERT,
    OUTBOX_DROP,
    OUTBOX_CLAIM,
    OUTBOX_GET,
    OUTBOX_DUE,
    OUTBOX_TAKE,
    OUTBOX_HOLD,
    OUTBOX_RELEASE,
    OUTBOX_KEEP,
    OUTBOX_DELETE,
    OUTBOX_MEND,
    OUTBOX_LOOK,
    KEYS,
    STATEMENT_COUNT = KEYS + PG_KEYS_STATEMENTS
};

struct postgres_store {
    struct store base;
    struct pg *pg;
    const _Atomic int64_t *again_after_ms;
    char instance[UUID_SIZE]; /* the owner of what this process holds of the outbox */

    pthread_mutex_t look_mutex; /* one look at the outbox at a time */
    int64_t looked_ms;          /* monotonic; 0: never */
    struct store_outbox look;
};

static inline struct postgres_store *postgres_of(struct store *base)
{
    return OWNER(base, struct postgres_store, base);
}

/* See store.h. */
void store_postgres_outbox_look(struct store *base, struct store_outbox *ret_outbox);
enum status store_postgres_outbox_unsent(struct store *base, int64_t after, size_t max,
                                         struct outbox_row *rows, size_t *ret_count, struct err *err);
enum status store_postgres_outbox_get(struct store *base, int64_t seq, struct outbox_row *ret_row,
                                      struct err *err);
enum status store_postgres_outbox_due(struct store *base, int64_t now_ms, struct outbox_row *ret_row,
                                      struct err *err);
enum status store_postgres_outbox_take(struct store *base, int64_t seq, struct err *err);
void store_postgres_outbox_hold(struct store *base, const int64_t *seqs, size_t count);
int64_t store_postgres_outbox_poll_ms(struct store *base);
void store_postgres_confirm(struct store *base, struct store_confirm *confirm);

/* At the end: what this instance still holds is another one's at once. */
void store_postgres_outbox_release(struct postgres_store *store);

#endif
