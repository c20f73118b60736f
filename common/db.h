/* SQLite: one writer thread that owns the only writing connection and commits whatever has queued up in one
 * transaction (group commit), and a pool of read-only connections. Durable: WAL with synchronous=FULL.
 *
 * A write is a job: the writer runs its run() inside a savepoint of the batch's transaction (but for bare
 * ones), and after COMMIT (or the batch's failure) its done(). A job that fails is rolled back alone; a batch
 * whose COMMIT fails fails every job in it, so that nobody is told of a write that is not on the disk.
 *
 * All text handed in is borrowed for the call, all text handed out until the next step of that statement.
 */
#ifndef COMMON_DB_H
#define COMMON_DB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "db_migration.h"
#include "status.h"

struct db;
struct db_conn;
struct sqlite3_stmt;

struct db_config {
    const char *path;                      /* its folder is created; "<path>.lock" refuses a second process */
    const struct db_migration *migrations; /* applied in order by user_version; never edited once shipped */
    size_t migration_count;
    const char *const *statements; /* prepared in this order; their index names them in db_run and db_query */
    size_t statement_count;
    unsigned readers; /* read-only connections, at least the number of threads that read at once */
    /* Called once, in the writer's thread, when an fsync failed and nobody can tell what is on the disk: the
     * process must end. May be NULL. */
    void (*fatal)(const char *reason);
    /* Called when the database can no longer be written (why), and when it can again (NULL); once a change,
     * any thread, may not block. May be NULL. */
    void (*changed)(const char *reason);
};

/* Opens, migrates, prepares, starts the writer. On error *err says what and where: IO (cannot open, too new a
 * schema), BUSY (another process has the file). The config's strings must outlive the database. */
enum status db_open(struct db **ret_db, const struct db_config *config, struct err *err);

/* Runs what is queued, stops the writer, closes; NULL is fine. Nothing may be submitted any more. */
void db_close(struct db *db);

enum { DB_COUNTS = 2 };
struct db_job {
    /* Writer's thread, inside the batch's transaction. Not OK rolls this job back. */
    enum status (*run)(struct db_job *job, struct db_conn *conn, struct err *err);
    /* Writer's thread, after the commit or the failure; job->err.status tells. The job is the owner's again:
     * done() may free it or submit it anew. May not block. */
    void (*done)(struct db_job *job);
    /* run() fails, if at all, before its first write, so it needs no savepoint of its own. Should it fail
     * later all the same (as the database may have it), the whole batch is rolled back and run once more,
     * with a savepoint for each: every run(), a job's that is not bare too, must bear being run again. */
    bool bare;
    bool durable; /* wait for fsync; false: survives the death of the process, not of the machine */
    bool lazy;    /* nobody waits for it: it rides with the next job that is not, or goes after 0.1 s */
    bool grows;   /* refused with FULL while the disk has less free than db_disk_low's limit */
    /* Numbers of stored rows that are kept in memory, so that nobody has to count them: run() says by how
     * much it changes each, and the writer adds that once it is committed. `counts` NULL: none. */
    _Atomic int64_t *counts;
    int64_t changes[DB_COUNTS]; /* 0 before each run() */
    struct err err;
    struct db_job *next; /* the writer's */
};

/* Queues a job; any thread. The queue's length is bounded by who submits: one job a request, delivery or
 * message. */
void db_submit(struct db *db, struct db_job *job);

/* OK, or why the database cannot be written now (BUSY, FULL, IO) with the text; *ret_since_ms is since when
 * it has been so (wall clock). A write that has not ended for 10 s counts as a failed one. Any thread; does
 * no more than statvfs. While writing fails the writer tries an empty write every second, so that this
 * recovers without traffic. */
enum status db_health(struct db *db, int64_t *ret_since_ms, struct err *err);

/* Whether the last write and the last look at the free space were well. Any thread; costs nothing. */
bool db_was_well(struct db *db);

/* Appends the database's metrics (see metrics.h): sizes, free space, commits, their sizes and durations. Any
 * thread. */
void db_put_metrics(struct db *db, struct buf *out);

/* ---- reading: a connection of the pool, for one short use ---- */
struct db_conn *db_reader_get(struct db *db);
void db_reader_put(struct db *db, struct db_conn *conn);

/* The first column of the first row that a query without arguments gives, as a text (cut at a code point) and
 * as a number; NOT_FOUND where there is none. Any thread; like every reader it may wait for a connection. */
struct db_look {
    char text[64];
    int64_t number;
};
enum status db_look(struct db *db, unsigned statement, struct db_look *ret_look, struct err *err);

/* ---- statements; `types` has a letter an argument: t const char * (NULL = SQL NULL), i int64_t, d double
 * ---- */

/* Runs a statement that gives no rows. CONFLICT on a uniqueness violation, BUSY, FULL, IO. */
enum status db_run(struct db_conn *conn, unsigned statement, struct err *err, const char *types, ...);

/* How many rows the last db_run changed, and the rowid of its insert. */
int64_t db_changes(struct db_conn *conn);
int64_t db_last_rowid(struct db_conn *conn);

/* A query under way. CLEANUP(db_rows_done): an open statement pins the WAL. */
struct db_rows {
    struct sqlite3_stmt *statement;
    struct db_conn *conn;
};
enum status db_query(struct db_conn *conn, unsigned statement, struct db_rows *ret_rows, struct err *err,
                     const char *types, ...);
/* Steps to the next row: OK, NOT_FOUND at the end, else the error. */
enum status db_next(struct db_rows *rows, struct err *err);
void db_rows_done(struct db_rows *rows);

const char *db_text(struct db_rows *rows, int column); /* "" for NULL */
bool db_is_null(struct db_rows *rows, int column);
int64_t db_int(struct db_rows *rows, int column);
double db_double(struct db_rows *rows, int column);

#endif
