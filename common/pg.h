/* PostgreSQL, over libpq (pg*.c alone include it): one writer thread that commits whatever has queued up in
 * one transaction (group commit), a pool of connections for reading, and one thread that makes connections,
 * again and again while there is none, so that nobody else ever waits for one.
 *
 * A write is a job, and a job has rounds. In round 0 every job of a batch puts its statements (what it reads
 * and locks) into libpq's pipeline (libpq manual, "Pipeline Mode"), and all are sent at once; in the next
 * round each has its answers, decides, and puts what follows from them; when none puts anything more, COMMIT.
 * Jobs of a batch stand in the order of their keys, so that all instances lock rows in one order (manual,
 * "Explicit Locking", section "Deadlocks"), and two jobs with the same key are never in one batch.
 *
 * What a job expects to happen is no SQL error (INSERT … ON CONFLICT … RETURNING): an SQL error ends the
 * transaction. Then the jobs of the batch run once more, each alone, so that one cannot fail the others. A
 * deadlock or a serialization failure runs the same batch again. A job may run more than once, each time from
 * round 0.
 *
 * Text handed in is borrowed for the call; text handed out lives as long as its rows.
 */
#ifndef COMMON_PG_H
#define COMMON_PG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "db_migration.h"
#include "status.h"

struct pg;
struct pg_session;
struct pg_result; /* libpq's */

struct pg_config {
    const char *url;                       /* postgresql://…; may name several hosts */
    const char *schema;                    /* of the tables, and the session's search_path; [a-z_]+ */
    const char *application;               /* application_name, for pg_stat_activity */
    const struct db_migration *migrations; /* applied in order, see the table `migrations`; never edited once
                                              shipped */
    size_t migration_count;
    const char *const *statements; /* with $1, $2, …; their index names them in pg_put and pg_query */
    size_t statement_count;
    unsigned readers; /* connections for reading, at least the number of threads that read at once */
    /* Once, any thread: the schema is newer than this program, the process must end. May be NULL. */
    void (*fatal)(const char *reason);
    /* The database is there (reason NULL) or no longer, whenever that changes. Any thread. May be NULL. */
    void (*changed)(const char *reason);
};

/* Starts the threads; waits for no connection. INVALID: the URL (see pg_check_url). The config's strings must
 * outlive it. */
enum status pg_open(struct pg **ret_pg, const struct pg_config *config, struct err *err);

/* Runs what is queued (which fails where there is no connection), ends the threads; NULL is fine. */
void pg_close(struct pg *pg);

/* For a setting: INVALID where libpq would not take it, or where a password is written so that libpq would
 * take a part of it for a host name. The text never shows a part of the value. */
enum status pg_check_url(const char *value, struct err *err);

/* OK, or why nothing can be written now, with the text; *ret_since_ms is since when it has been so (wall
 * clock). A write that has not ended for 10 s counts as a failed one. Any thread; asks nobody. */
enum status pg_health(struct pg *pg, int64_t *ret_since_ms, struct err *err);

/* Appends the connections' and the writer's metrics. Any thread. */
void pg_put_metrics(struct pg *pg, struct buf *out);

/* ---- rows ---- */

/* What one statement gave. pg_rows_done those of pg_query; those of pg_answer are the job's. */
struct pg_rows {
    struct pg_result *result;
    int row; /* -1 before the first */
};
bool pg_next(struct pg_rows *rows);                          /* to the next row; false at the end */
const char *pg_text(const struct pg_rows *rows, int column); /* "" for NULL */
bool pg_is_null(const struct pg_rows *rows, int column);
int64_t pg_int(const struct pg_rows *rows, int column);
double pg_double(const struct pg_rows *rows, int column);
int64_t pg_changes(const struct pg_rows *rows); /* how many rows it changed */
void pg_rows_done(struct pg_rows *rows);

/* ---- statements; `types` has a letter an argument: t const char * (NULL = SQL NULL), i int64_t, d double;
 * ---- at most 16 */

/* Runs one statement by itself on a connection of the pool, in a transaction of its own: a query, or a change
 * that may be done twice (when the connection breaks it is run once more on another one). Any thread; waits
 * at most some seconds. BUSY, FULL, IO. */
enum status pg_query(struct pg *pg, unsigned statement, struct pg_rows *ret_rows, struct err *err,
                     const char *types, ...);

/* ---- jobs ---- */

enum { PG_ANSWERS_MAX = 8 };
struct pg_job {
    /* Writer's thread, once a round: puts statements, or none when it is through. Not OK ends this job alone
     * with that status; only where it has written nothing yet, since nothing of it is rolled back. */
    enum status (*run)(struct pg_job *job, struct err *err);
    /* Writer's thread, after the commit or the failure; job->err.status tells. The job is the owner's again:
     * done() may free it or submit it anew. May not block. A connection that broke while COMMIT was under way
     * leaves the outcome unknown: IO, and what the job wrote may be there or not. */
    void (*done)(struct pg_job *job);
    const char *key; /* what it locks, for the batch's order; "" = nothing; borrowed until done() */
    bool durable;    /* COMMIT waits for the disk; else synchronous_commit is off for a batch of only such */

    unsigned round;
    /* Set by run(): whatever the answers are, they change nothing in what is written, so that COMMIT may go
     * out with these statements. run() is still called with them, then after the commit. */
    bool last;

    struct err err;
    /* The writer's, from here. */
    struct pg_result *answers[PG_ANSWERS_MAX];
    unsigned answer_count, put_count;
    bool ended;
    struct pg_session *session;
    struct pg_job *next;
};

/* Queues a job; any thread. Where there is no connection it fails at once. */
void pg_submit(struct pg *pg, struct pg_job *job);

/* Inside run(): puts a statement into this round, at most PG_ANSWERS_MAX; and what the n-th one of the round
 * before gave. */
void pg_put(struct pg_job *job, unsigned statement, const char *types, ...);
struct pg_rows pg_answer(const struct pg_job *job, unsigned n);

#endif
