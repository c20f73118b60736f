/* What db.c (connections, statements), db_writer.c (the writer's thread) and db_care.c (checks, copies)
 * share. Private to the three. */
#ifndef COMMON_DB_INTERNAL_H
#define COMMON_DB_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>

#include "db.h"
#include "since.h"

/* Statements that every transaction needs. */
enum db_control { DB_BEGIN, DB_COMMIT, DB_SAVEPOINT, DB_RELEASE, DB_ROLLBACK_TO, DB_CONTROLS };

enum { DB_BUSY_TIMEOUT_MS = 5000 };

struct db_conn {
    sqlite3 *handle;
    const struct db_config *config;
    sqlite3_stmt **statements;           /* prepared at first use */
    sqlite3_stmt *controls[DB_CONTROLS]; /* likewise */
    struct db_conn *next;                /* free list of the pool */
};

struct db {
    struct db_config config;
    char *path, *wal_path;
    int lock_fd;

    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t reader_free;
    struct db_conn *readers, *free_readers;
    struct db_job *first, *last; /* the queue, oldest first */
    pthread_cond_t work;
    bool wanted; /* the queue is not to wait: a job in it is not lazy, or the lazy ones have waited */
    bool asleep; /* the writer waits without end */
    bool stopping;
    struct err health; /* of the last write */
    struct since write_ok, space_ok;
    _Atomic int64_t write_began_ms; /* monotonic; 0: none is under way */

    struct db_conn writer; /* the writer's thread alone, once it runs */
    pthread_t thread;
    bool running, synced, wal_grew;
    int64_t idle_at_ms; /* monotonic: when a look at what a burst has left is due */
};

/* One SQLite result as a status, the policy beside it. */
enum status db_status(int result);

/* Fills *err from the handle's last error. */
enum status db_failed(sqlite3 *handle, struct err *err);

/* How many migrations the database has had (user_version). */
enum status db_schema_version(sqlite3 *handle, size_t *ret_version, struct err *err);

/* Runs SQL that gives no rows and needs no parameters. */
enum status db_exec(sqlite3 *handle, const char *sql, struct err *err);

enum status db_control(struct db_conn *conn, enum db_control control, struct err *err);

/* BEGIN IMMEDIATE, body, COMMIT: the only place that starts a transaction. A body that fails, or a failed
 * COMMIT, leaves none open. */
enum status db_transaction(struct db_conn *conn, enum status (*body)(void *arg, struct err *err), void *arg,
                           struct err *err);

/* FULL while free space is below max(64 MiB, 5 % of the file system). */
enum status db_check_space(struct db *db, struct err *err);

/* Tells config.changed, if it has: of a failure, or of its end once nothing else fails. */
void db_tell(struct db *db, const struct err *err);

enum status db_writer_start(struct db *db, struct err *err);
void db_writer_stop(struct db *db);

#endif
