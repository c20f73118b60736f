/* The bookings' storage: reads at once, writes as jobs of the database's writer. A booking and its outgoing
 * message are written in one transaction. There is an engine a database, store_<engine>*.c, and store.c hands
 * each call to the one that was opened; nothing outside knows which it is. */
#ifndef SOIREES_STORE_H
#define SOIREES_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"
#include "db.h"
#include "db_care.h"
#include "ids.h"
#include "pg.h"
#include "soiree.h"
#include "status.h"

struct store;

struct store_config {
    const char *path; /* SQLite's file, used where url is "" */
    const char *url;  /* PostgreSQL's */
    unsigned readers;
    /* An open request is sent again this long after its confirm; 0 = never. Borrowed; it may change while the
     * store is open, and counts from the next confirm then. */
    const _Atomic int64_t *again_after_ms;
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

/* Who is to be woken when a commit has put a message into the outbox; before the first write. Called in the
 * writer's thread, after the commit. */
void store_on_outbox(struct store *store, void (*wake)(void *arg), void *arg);

/* ---- reads; any thread ---- */

/* What is in the outbox: messages that the broker has not confirmed, and confirmed requests that nobody has
 * answered; when the oldest of the former was written (wall clock), -1 where there is none or it cannot be
 * read. The counts are kept in memory, so that a look costs the same at any size. */
struct store_outbox {
    int64_t unsent, open, oldest_ms;
};
void store_outbox_look(struct store *store, struct store_outbox *ret_outbox);

/* NOT_FOUND for an unknown id. */
enum status store_get(struct store *store, const char *id, struct soiree *ret_soiree, struct err *err);

struct soiree_filter {
    const char *client_id, *statut, *date_from, *date_to; /* "" = any */
};
/* Newest first: at most page->limit + 1 rows (see api_list) older than page->before, each handed to row(),
 * until that returns false. What a filter leaves out costs a look into an index, about 0.1 us an item. */
enum status store_list(struct store *store, const struct soiree_filter *filter, const struct api_page *page,
                       bool (*row)(void *arg, const struct soiree *soiree), void *arg, struct err *err);

/* ---- writes ---- */

enum store_write_kind { STORE_CREATE, STORE_CHANGE, STORE_LINK, STORE_DELETE };
struct store_write {
    enum store_write_kind kind;
    char id[TEXT_SIZE(64)];             /* all but STORE_CREATE, which makes one */
    struct soiree_change change;        /* STORE_CREATE, STORE_CHANGE; STORE_LINK: playlistId */
    struct api_conditions conditions;   /* If-Match, If-None-Match */
    char key[API_KEY_SIZE];             /* STORE_CREATE: Idempotency-Key, "" = none */
    char request_id[UUID_SIZE];         /* STORE_LINK: the answered request */
    char traceparent[TRACEPARENT_SIZE]; /* goes out with the message */

    /* Writer's thread, after the commit or the failure; the write is the owner's again.
     * err.status: OK; NOT_FOUND; STALE (condition); CONFLICT (link refused); INVALID (key used for another
     * document); GONE (what the key made was deleted); BUSY, FULL, IO, UNSYNCED. */
    void (*done)(struct store_write *write);
    void *arg;

    struct err err;
    struct soiree soiree; /* OK: as it is now (STORE_DELETE: as it was) */

    union store_job job; /* the store's, from here */
    struct store *store;
    bool requested;
};
void store_submit(struct store *store, struct store_write *write);

/* ---- the outbox, for the relay ---- */

struct outbox_row {
    int64_t seq;
    char message_id[UUID_SIZE];
    char traceparent[TRACEPARENT_SIZE];
    char soiree_id[TEXT_SIZE(64)];
    char *body; /* free() */
};
/* Several instances may share a database: a row that is handed out is this one's for STORE_LEASE_MS, and no
 * other instance gets it meanwhile; a lease is prolonged by store_outbox_hold, ends with the confirm, and
 * comes to its end when nobody prolongs it. SQLite's file has one process, and no need of any of it. */
enum { STORE_LEASE_MS = 30000 };

/* Unsent rows, oldest first, at most `max`: those behind `after` that are nobody's or this instance's, and
 * those that nobody has held for long enough, wherever they are. A row handed out before comes again when
 * `after` says so, or when its lease has ended. The relay's thread. */
enum status store_outbox_unsent(struct store *store, int64_t after, size_t max, struct outbox_row *rows,
                                size_t *ret_count, struct err *err);
/* One row that is still unsent, held anew; NOT_FOUND when it was dropped meanwhile, or is another instance's.
 */
enum status store_outbox_get(struct store *store, int64_t seq, struct outbox_row *ret_row, struct err *err);
/* The confirmed request that has been open the longest past its time; NOT_FOUND when there is none. */
enum status store_outbox_due(struct store *store, int64_t now_ms, struct outbox_row *ret_row,
                             struct err *err);
/* Before it is sent again: takes it; NOT_FOUND when another instance has, or when it is answered. */
enum status store_outbox_take(struct store *store, int64_t seq, struct err *err);

/* Prolongs the leases of rows that this instance has not done with. */
void store_outbox_hold(struct store *store, const int64_t *seqs, size_t count);
/* How often to look for rows that other instances wrote or left, ms; 0: there are none. */
int64_t store_outbox_poll_ms(struct store *store);

/* The broker has these messages: not sent again before their time. Not durable by itself: a message confirmed
 * and forgotten is sent twice with the same message_id, and the worker knows it. */
enum { STORE_CONFIRM_MAX = 256 };
struct store_confirm {
    size_t count;
    int64_t seqs[STORE_CONFIRM_MAX];
    bool clock_back; /* the wall clock may have been put back: whoever would wait for longer than its interval
                        begins it once more */
    void (*done)(struct store_confirm *confirm); /* writer's thread; err.status: OK, BUSY, FULL, IO */
    void *arg;
    struct err err;
    union store_job job; /* the store's, from here */
    struct store *store;
};
void store_confirm(struct store *store, struct store_confirm *confirm);

#endif
