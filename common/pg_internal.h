/* What pg.c (opening, health), pg_wire.c (one connection), pg_connect.c (making one), pg_pool.c (all of them)
 * and pg_writer.c (the writer's thread) share. Private to them. */
#ifndef COMMON_PG_INTERNAL_H
#define COMMON_PG_INTERNAL_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>

#include "pg.h"
#include "since.h"

enum {
    PG_ANSWER_MS = 8000,    /* one query, or one round of a batch */
    PG_STATEMENT_MS = 5000, /* statement_timeout: the server gives up before we do */
    PG_LOCK_MS = 3000,      /* lock_timeout */
    PG_MIGRATE_MS = 600000,
    PG_ARGS_MAX = 16,
};

/* Statements that every transaction of the writer needs, prepared beside the service's own. */
enum pg_control { PG_BEGIN, PG_ASYNC, PG_COMMIT, PG_ROLLBACK, PG_PROBE, PG_CONTROLS };

struct pg_session {
    PGconn *pq;
    bool lost; /* broken, or in a state nobody knows: good for pg_session_close alone */
    struct pg_session *next;
};

struct pg {
    struct pg_config config;

    pthread_mutex_t mutex; /* guards everything down to the thread */
    pthread_cond_t reader_free, connector_work;
    struct pg_session *free_readers, *fresh_writer; /* fresh: made, not yet taken by the writer */
    unsigned readers, readers_used;                 /* connected; of those, handed out */
    bool writer_wanted, connecting, stopping, abandoned;
    struct pg_job *first, *last; /* the queue, oldest first */
    bool writer_sleeps;
    struct err health; /* of the last write, or why there is no connection */

    struct since write_ok;
    _Atomic int64_t write_began_ms; /* monotonic; 0: none is under way */
    atomic_int told;                /* what config.changed was told: 0 nothing yet, 1 there, 2 gone */
    int wake_fd;                    /* eventfd: something for the writer */
    pthread_t writer, connector;
    bool writer_runs, connector_runs;
};

/* ---- pg_wire.c: one connection; whoever has it ---- */

/* What an error means for whoever ran the statement. */
enum pg_fault {
    PG_FAULT_NONE,
    PG_FAULT_AGAIN,    /* a deadlock, a serialization failure: the same once more */
    PG_FAULT_JOB,      /* this statement's own */
    PG_FAULT_DATABASE, /* none would succeed now */
    PG_FAULT_LOST,     /* the connection is of no more use */
};

/* A SQLSTATE as a status, the policy beside it. */
enum status pg_state(const char *sqlstate, enum pg_fault *ret_fault);

/* Fills *err from a result that is an error. */
enum status pg_failed(struct pg_session *session, const PGresult *result, enum pg_fault *ret_fault,
                      struct err *err);

/* Sends a prepared statement; false when the connection is lost. */
bool pg_send(struct pg_session *session, const char *name, const char *types, va_list args);
bool pg_send_control(struct pg_session *session, enum pg_control control);
void pg_statement_name(unsigned statement, char name[16]);

/* What PQgetResult gives next (NULL between two statements' results), waited for until `deadline_ms`
 * (monotonic); IO with the connection lost when it does not come. */
enum status pg_receive(struct pg_session *session, int64_t deadline_ms, PGresult **ret_result,
                       struct err *err);

/* Runs SQL outside of a pipeline: several statements where there are no values. *ret_result (may be NULL) is
 * the last one's, PQclear it. */
enum status pg_do(struct pg_session *session, const char *sql, int value_count, const char *const *values,
                  int64_t timeout_ms, PGresult **ret_result, struct err *err);

/* The one result of a prepared statement, sent just now, outside of a pipeline. */
enum status pg_finish_query(struct pg_session *session, PGresult **ret_result, struct err *err);

/* Whether an idle connection is still there, without asking. */
bool pg_session_alive(struct pg_session *session);
void pg_session_close(struct pg_session *session); /* NULL is fine */

/* libpq's words on one line, without the hints, and without the password should they have it. */
void pg_error_text(PGconn *pq, char *out, size_t size);

/* ---- pg_connect.c: the connector's thread ---- */

/* A connection that is ready for use; the writer's also brings the schema up to date and enters pipeline
 * mode. Blocks as long as libpq's connect_timeout allows for every host. */
enum status pg_connect(struct pg *pg, bool writer, struct pg_session **ret_session, struct err *err);

/* ---- pg_pool.c ---- */

enum status pg_connector_start(struct pg *pg, struct err *err);
/* True when the thread has ended; false: it is inside libpq, and will free `pg` when it comes out. */
bool pg_connector_stop(struct pg *pg);
/* The writer has lost its connection, which it closed: asks for another one. */
void pg_want_writer(struct pg *pg, const struct err *reason);
/* Tells config.changed, once a change. */
void pg_tell(struct pg *pg, const char *reason);
void pg_set_health(struct pg *pg, const struct err *err);
void pg_wake_writer(struct pg *pg);
void pg_pool_put_metrics(struct pg *pg, struct buf *out);
void pg_free(struct pg *pg);

/* ---- pg_writer.c ---- */

enum status pg_writer_start(struct pg *pg, struct err *err);
void pg_writer_stop(struct pg *pg);

#endif
