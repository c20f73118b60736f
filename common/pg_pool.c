/* The connections: one thread makes them, whoever needs one takes what is there. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "backoff.h"
#include "cleanup.h"
#include "mem.h"
#include "metrics.h"
#include "pg_internal.h"
#include "pulse.h"

enum {
    RETRY_BASE_MS = 200,
    RETRY_MAX_MS = 5000,
    READER_WAIT_MS = 2000,
    STOP_WAIT_MS = 500,
    AGAIN_WITHIN_MS = 1000
};

static struct metrics_counter connects = {
    .name = "database_connects_total",
    .help = "Connections to the database's server by their outcome.",
    .label = "outcome",
    .values = {"ok", "failed"},
};

/* ---- what is known of the database ---- */

void pg_set_health(struct pg *pg, const struct err *err)
{
    since_set(&pg->write_ok, err->status == STATUS_OK);
    pthread_mutex_lock(&pg->mutex);
    pg->health = *err;
    pthread_mutex_unlock(&pg->mutex);
}

void pg_tell(struct pg *pg, const char *reason)
{
    int told = reason ? 2 : 1;
    if (atomic_exchange(&pg->told, told) != told && pg->config.changed)
        pg->config.changed(reason);
}

void pg_wake_writer(struct pg *pg)
{
    (void)eventfd_write(pg->wake_fd, 1);
}

void pg_want_writer(struct pg *pg, const struct err *reason)
{
    pg_set_health(pg, reason);
    pthread_mutex_lock(&pg->mutex);
    pg->writer_wanted = true;
    pthread_cond_signal(&pg->connector_work);
    pthread_mutex_unlock(&pg->mutex);
    pg_tell(pg, reason->text);
}

/* ---- the connector's thread ---- */

static void deadline_in(struct timespec *at, int64_t ms)
{
    clock_gettime(CLOCK_MONOTONIC, at);
    int64_t ns = at->tv_nsec + ms % 1000 * 1000000;
    at->tv_sec += ms / 1000 + ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
}

/* With the mutex: the new connection goes where it was wanted. */
static void hand_over(struct pg *pg, struct pg_session *session, bool writer)
{
    if (writer) {
        pg->fresh_writer = session;
        pg->writer_wanted = false;
        pg_wake_writer(pg);
    } else {
        session->next = pg->free_readers;
        pg->free_readers = session;
        pg->readers++;
        pthread_cond_signal(&pg->reader_free);
    }
}

/* Makes one connection; with the mutex at its begin and its end, without it meanwhile. */
static bool connect_one(struct pg *pg, bool writer)
{
    struct pg_session *session = NULL;
    struct err err = {0};
    pg->connecting = true;
    pthread_mutex_unlock(&pg->mutex);
    pulse_beat("db-connector", PULSE_IDLE); /* libpq knows how long that may take */
    bool connected = pg_connect(pg, writer, &session, &err) == STATUS_OK;
    metrics_count(&connects, !connected);
    pthread_mutex_lock(&pg->mutex);
    pg->connecting = false;
    if (pg->abandoned) {
        pg_session_close(session);
        return false;
    }
    if (connected)
        hand_over(pg, session, writer);
    else
        pthread_cond_broadcast(&pg->reader_free); /* nobody is to wait for it */
    if (!writer)
        return connected;
    pg->health = err;
    since_set(&pg->write_ok, connected);
    pthread_mutex_unlock(&pg->mutex);
    pg_tell(pg, connected ? NULL : err.text);
    pthread_mutex_lock(&pg->mutex);
    return connected;
}

static void *connector_main(void *arg)
{
    struct pg *pg = arg;
    unsigned failures = 0;
    pthread_mutex_lock(&pg->mutex);
    while (!pg->stopping) {
        struct timespec until;
        if (!pg->writer_wanted && pg->readers >= pg->config.readers) {
            pulse_beat("db-connector", PULSE_IDLE);
            pthread_cond_wait(&pg->connector_work, &pg->mutex);
        } else if (connect_one(pg, pg->writer_wanted)) {
            failures = 0;
        } else if (!pg->abandoned) {
            deadline_in(&until, backoff_ms(failures++, RETRY_BASE_MS, RETRY_MAX_MS));
            while (!pg->stopping && pthread_cond_timedwait(&pg->connector_work, &pg->mutex, &until) == 0)
                continue;
        }
    }
    bool abandoned = pg->abandoned;
    pthread_mutex_unlock(&pg->mutex);
    if (abandoned)
        pg_free(pg);
    return NULL;
}

enum status pg_connector_start(struct pg *pg, struct err *err)
{
    int failed = pthread_create(&pg->connector, NULL, connector_main, pg);
    pg->connector_runs = failed == 0;
    return failed ? err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed)) : STATUS_OK;
}

/* libpq offers no way out of a connect that waits for a server which says nothing: a stop does not wait. */
bool pg_connector_stop(struct pg *pg)
{
    struct timespec until;
    if (!pg->connector_runs)
        return true;
    pthread_mutex_lock(&pg->mutex);
    pg->stopping = true;
    pthread_cond_broadcast(&pg->connector_work);
    pthread_mutex_unlock(&pg->mutex);
    clock_gettime(CLOCK_REALTIME, &until); /* pthread_timedjoin_np's clock */
    until.tv_nsec += STOP_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (pthread_timedjoin_np(pg->connector, NULL, &until) == 0)
        return true;
    pthread_mutex_lock(&pg->mutex);
    bool inside = pg->connecting;
    pg->abandoned = inside;
    pthread_mutex_unlock(&pg->mutex);
    if (inside)
        (void)pthread_detach(pg->connector);
    else
        (void)pthread_join(pg->connector, NULL);
    return !inside;
}

/* ---- reading ---- */

/* With the mutex: one that has gone is made anew. */
static void drop_reader(struct pg *pg, struct pg_session *session)
{
    pg_session_close(session);
    pg->readers--;
    pthread_cond_signal(&pg->connector_work);
}

static struct pg_session *reader_get(struct pg *pg, struct err *err)
{
    struct timespec until;
    deadline_in(&until, READER_WAIT_MS);
    struct pg_session *session = NULL;
    pthread_mutex_lock(&pg->mutex);
    for (;;) {
        while ((session = pg->free_readers)) {
            pg->free_readers = session->next;
            if (pg_session_alive(session))
                break;
            drop_reader(pg, session);
        }
        bool hopeless = pg->readers_used == 0 && pg->health.status != STATUS_OK;
        if (session || hopeless || pthread_cond_timedwait(&pg->reader_free, &pg->mutex, &until) == ETIMEDOUT)
            break;
    }
    if (session)
        pg->readers_used++;
    else if (pg->health.status != STATUS_OK)
        *err = pg->health;
    else
        (void)err_set(err, STATUS_BUSY, "PostgreSQL: aucune connexion libre");
    pthread_mutex_unlock(&pg->mutex);
    return session;
}

static void reader_put(struct pg *pg, struct pg_session *session)
{
    pthread_mutex_lock(&pg->mutex);
    pg->readers_used--;
    if (session->lost) {
        drop_reader(pg, session);
    } else {
        session->next = pg->free_readers;
        pg->free_readers = session;
    }
    pthread_cond_signal(&pg->reader_free);
    pthread_mutex_unlock(&pg->mutex);
}

enum status pg_query(struct pg *pg, unsigned statement, struct pg_rows *ret_rows, struct err *err,
                     const char *types, ...)
{
    struct err reason = {0};
    int64_t began_ms = clock_mono_ms();
    char name[16];
    pg_statement_name(statement, name);
    *ret_rows = (struct pg_rows){.row = -1};
    for (int tries = 0; tries < 2; tries++) {
        struct pg_session *session = reader_get(pg, &reason);
        if (!session)
            break;
        va_list args;
        va_start(args, types);
        (void)pg_send(session, name, types, args);
        va_end(args);
        reason.status = pg_finish_query(session, &ret_rows->result, &reason);
        bool again = session->lost && clock_mono_ms() - began_ms < AGAIN_WITHIN_MS;
        reader_put(pg, session);
        if (!again)
            break;
    }
    if (err && reason.status != STATUS_OK)
        *err = reason;
    return reason.status;
}

void pg_pool_put_metrics(struct pg *pg, struct buf *out)
{
    pthread_mutex_lock(&pg->mutex);
    unsigned readers = pg->readers, used = pg->readers_used;
    pthread_mutex_unlock(&pg->mutex);
    metrics_put_gauge(out, "database_readers", "Connections for reading.", readers);
    metrics_put_gauge(out, "database_readers_busy", "Of those, in use now.", used);
    metrics_put_counter(out, &connects);
}

void pg_free(struct pg *pg)
{
    while (pg->free_readers) {
        struct pg_session *session = pg->free_readers;
        pg->free_readers = session->next;
        pg_session_close(session);
    }
    pg_session_close(pg->fresh_writer);
    close_fd(&pg->wake_fd);
    pthread_cond_destroy(&pg->connector_work);
    pthread_cond_destroy(&pg->reader_free);
    pthread_mutex_destroy(&pg->mutex);
    free(pg);
}
