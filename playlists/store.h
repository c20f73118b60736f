/* The playlists' storage: reads at once, writes as jobs of the database's writer. A generated playlist, its
 * request's end and its pending link are written in one transaction. There is an engine a database,
 * store_<engine>*.c, and store.c hands each call to the one that was opened; nothing outside knows which it
 * is. */
#ifndef PLAYLISTS_STORE_H
#define PLAYLISTS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"
#include "db.h"
#include "db_care.h"
#include "ids.h"
#include "message.h"
#include "pg.h"
#include "playlist.h"
#include "status.h"

struct store;

struct store_config {
    const char *path; /* SQLite's file, used where url is "" */
    const char *url;  /* PostgreSQL's */
    unsigned readers;
    void (*fatal)(const char *reason);   /* see db_config and pg_config */
    void (*changed)(const char *reason); /* likewise */
};

enum status store_open(struct store **ret_store, const struct store_config *config, struct err *err);
/* Runs what is queued, then closes; NULL is fine. */
void store_close(struct store *store);

/* What --check has to know of the SQLite file. */
void store_care(struct db_care *ret_care);

/* OK, or why nothing can be stored now (BUSY, FULL, IO) with the text; *ret_since_ms is since when it has
 * been so (wall clock). Any thread; never waits for the database. */
enum status store_health(struct store *store, int64_t *ret_since_ms, struct err *err);

/* Appends the database's metrics (see metrics.h). Any thread. */
void store_put_metrics(struct store *store, struct buf *out);

/* What the engine needs of a job while it has it. */
union store_job {
    struct db_job sqlite;
    struct pg_job postgres;
};

/* ---- reads; any thread ---- */

/* NOT_FOUND for an unknown id. playlist_done it. */
enum status store_get(struct store *store, const char *id, struct playlist *ret_playlist, struct err *err);

/* Newest first: at most page->limit + 1 rows (see api_list) older than page->before, each handed to row()
 * until that returns false; soiree_id "" = any. */
enum status store_list(struct store *store, const char *soiree_id, const struct api_page *page,
                       bool (*row)(void *arg, const struct playlist *playlist), void *arg, struct err *err);

/* ---- writes of the REST API ---- */

enum store_write_kind { STORE_CREATE, STORE_CHANGE, STORE_DELETE };
struct store_write {
    enum store_write_kind kind;
    char id[TEXT_SIZE(64)];           /* all but STORE_CREATE, which makes one */
    struct playlist_change change;    /* STORE_CREATE, STORE_CHANGE */
    struct api_conditions conditions; /* If-Match, If-None-Match */
    char key[API_KEY_SIZE];           /* STORE_CREATE: Idempotency-Key, "" = none */

    /* Writer's thread, after the commit or the failure; the write is the owner's again.
     * err.status: OK; NOT_FOUND; STALE (condition); INVALID (key used for another document); GONE (what the
     * key made was deleted); BUSY, FULL, IO, UNSYNCED. */
    void (*done)(struct store_write *write);
    void *arg;

    struct err err;
    struct playlist playlist; /* OK: as it is now (STORE_DELETE: as it was) */

    union store_job job; /* the store's, from here */
    bool created;
};
void store_submit(struct store *store, struct store_write *write);
/* Frees what a write holds, not the struct. */
void store_write_done(struct store_write *write);

/* ---- links ---- */

/* A link that soirees does not have yet. */
struct link {
    int64_t seq; /* 0 = none */
    char playlist_id[UUID_SIZE];
    char soiree_id[TEXT_SIZE(128)];
    char request_id[MESSAGE_ID_SIZE]; /* for Playlist-Request; "" = no such header */
    char traceparent[TRACEPARENT_SIZE];
    int64_t attempts;
};

/* The links that are pending: how many, and when the oldest one's playlist was made (wall clock), -1 where
 * there is none or it cannot be read. The count is kept in memory, so that a look costs the same at any size.
 * Any thread. */
struct store_pending {
    int64_t count, oldest_ms;
};
void store_pending_look(struct store *store, struct store_pending *ret_pending);

/* ---- the steps of one delivery ---- */

enum store_step_kind {
    STORE_BEGIN,         /* what is there for this request already? counts a start */
    STORE_COUNT_FAILURE, /* an attempt to generate it failed */
    STORE_SAVE,          /* the playlist, the request's end and the pending link, in one transaction */
    STORE_ABANDON,       /* the process ends in good order before the request does: takes its start back */
};
enum store_next { STORE_NEXT_GENERATE, STORE_NEXT_LINK, STORE_NEXT_NOTHING };
struct store_step {
    enum store_step_kind kind;
    const char *soiree_id,
        *message_id;  /* the request's key; message_id "" = any playlist made for the soirée will do */
    bool redelivered; /* STORE_BEGIN, store_begin_first: the broker has delivered it before */
    const char *request_id, *traceparent; /* STORE_SAVE: for the link */
    struct playlist *playlist;            /* STORE_SAVE: id and created_ms are set here; stays the caller's */

    /* Writer's thread. err.status: OK; CONFLICT (STORE_SAVE: saved meanwhile, begin again); BUSY, FULL, IO,
     * UNSYNCED. */
    void (*done)(struct store_step *step);

    struct err err;
    enum store_next next; /* STORE_BEGIN */
    int64_t starts;       /* STORE_BEGIN: this one included */
    int64_t failures;     /* STORE_BEGIN: attempts that failed, by this or an earlier process */
    struct link link;     /* STORE_BEGIN with STORE_NEXT_LINK, STORE_SAVE */

    union store_job job; /* the store's */
};
void store_step(struct store *store, struct store_step *step);

/* STORE_BEGIN at once, in the caller's thread, where it need not write: true for a request of which neither
 * the broker nor the store has heard before, with next, starts and failures as STORE_BEGIN sets them. False:
 * it takes a STORE_BEGIN; so too where the last write failed, lest something is asked for that cannot be
 * saved. No write, because the broker remembers this start: should the process die, the message comes back
 * marked as redelivered, and a STORE_BEGIN of such a one that finds no row counts the start before it too.
 * (So a message that was on its way to a connection that broke counts as started once.) */
bool store_begin_first(struct store *store, struct store_step *step);

/* ---- pending links, for the linker; none of these is durable by itself: a link told twice is told the same
 * ---- */

enum store_links_kind {
    STORE_LINKS_CLAIM, /* takes up to STORE_CLAIM_MAX that are due, leasing them for lease_ms */
    STORE_LINKS_END,   /* links[0] is delivered or pointless; rides with the next write: see db_job.lazy */
    STORE_LINKS_RETRY, /* links[0] is due again in delay_ms */
    STORE_LINKS_HURRY, /* all that wait for another try are due now */
};
enum { STORE_CLAIM_MAX = 32 };
struct store_links {
    enum store_links_kind kind;
    int64_t lease_ms, delay_ms;
    size_t count;
    struct link links[STORE_CLAIM_MAX];
    void (*done)(struct store_links *links); /* writer's thread */
    void *arg;
    struct err err;
    union store_job job; /* the store's */
};
void store_links(struct store *store, struct store_links *links);

/* How long a new link is the worker's own before the linker may take it. */
enum { STORE_FIRST_LEASE_MS = 15000 };

#endif
