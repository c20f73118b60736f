/* What store_sqlite.c (playlists, requests) and store_sqlite_links.c (pending links) share. Private to the
 * two. */
#ifndef PLAYLISTS_STORE_SQLITE_H
#define PLAYLISTS_STORE_SQLITE_H

#include <stdatomic.h>

#include "idempotency.h"
#include "mem.h"
#include "store_internal.h"

enum statement {
    GET,
    LIST,
    LIST_SOIREE,
    INSERT,
    UPDATE,
    DELETE,
    REQUEST_FIND,
    REQUEST_FIND_ANY,
    REQUEST_KNOWN,
    REQUEST_KNOWN_ANY,
    REQUEST_BEGIN,
    REQUEST_FAILURE,
    REQUEST_END,
    REQUEST_ABANDON,
    LINK_INSERT,
    LINK_FIND,
    LINK_LEASE,
    LINK_CLAIM,
    LINK_DELETE,
    LINK_DELETE_PLAYLIST,
    LINK_RETRY,
    LINK_HURRY,
    LINK_MEND,
    LINK_COUNT,
    LINK_OLDEST,
    IDEMPOTENCY,
    STATEMENT_COUNT = IDEMPOTENCY + IDEMPOTENCY_STATEMENTS
};

struct sqlite_store {
    struct store base;
    struct db *db;
    _Atomic int64_t counts[DB_COUNTS]; /* [0]: pending links */
};

static inline struct sqlite_store *sqlite_of(struct store *base)
{
    return OWNER(base, struct sqlite_store, base);
}

/* A row of links. */
void store_sqlite_read_link(struct db_rows *rows, struct link *link);

/* See store.h. */
void store_sqlite_pending_look(struct store *base, struct store_pending *ret_pending);
void store_sqlite_links(struct store *base, struct store_links *links);

#endif
