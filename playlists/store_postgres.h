/* What store_postgres.c (playlists, requests) and store_postgres_links.c (pending links) share. Private to
 * the two. Times are the database's, so that the instances' clocks need not agree; but those of a playlist,
 * which is answered before it is read back. */
#ifndef PLAYLISTS_STORE_POSTGRES_H
#define PLAYLISTS_STORE_POSTGRES_H

#include <pthread.h>

#include "mem.h"
#include "pg_keys.h"
#include "store_internal.h"

enum statement {
    GET,
    LIST,
    LIST_SOIREE,
    LOCK,
    INSERT,
    UPDATE,
    DELETE,
    REQUEST_FIND,
    REQUEST_FIND_ANY,
    REQUEST_BEGIN,
    REQUEST_LOCK,
    REQUEST_FAILURE,
    REQUEST_ABANDON,
    SAVE,
    LINK_LEASE,
    LINK_MEND,
    LINK_CLAIM,
    LINK_DELETE,
    LINK_DELETE_PLAYLIST,
    LINK_RETRY,
    LINK_HURRY,
    LINK_LOOK,
    KEYS,
    STATEMENT_COUNT = KEYS + PG_KEYS_STATEMENTS
};

struct postgres_store {
    struct store base;
    struct pg *pg;

    pthread_mutex_t look_mutex; /* one look at the links at a time */
    int64_t looked_ms;          /* monotonic; 0: never */
    struct store_pending look;
};

static inline struct postgres_store *postgres_of(struct store *base)
{
    return OWNER(base, struct postgres_store, base);
}

/* The columns of a link, from `column` on. */
void store_postgres_read_link(const struct pg_rows *rows, int column, struct link *link);

/* See store.h. */
void store_postgres_pending_look(struct store *base, struct store_pending *ret_pending);
void store_postgres_links(struct store *base, struct store_links *links);

#endif
