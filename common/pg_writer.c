/* The writer's thread: takes what has queued up, runs it round by round through libpq's pipeline, commits,
 * tells the jobs' owners. While one batch waits for the server the next one queues up, so the batch size
 * follows the load by itself, and an idle system commits a lone job at once: a booking in one round trip. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "backoff.h"
#include "db_meters.h"
#include "failpoint.h"
#include "mem.h"
#include "pg_internal.h"
#include "pulse.h"

enum {
    BATCH_MAX = 256,
    LOOK_MAX = 1024, /* how far into the queue a batch looks for jobs whose keys it does not have yet */
    KEYS_SIZE = 1024,
    IDLE_MS = 1000,
    ALONE_MS = 15000, /* for the jobs of a failed batch, each by itself */
    DEADLOCK_TRIES = 5,
};

struct batch {
    struct pg *pg;
    struct pg_session *session;
    struct pg_job *jobs[BATCH_MAX]; /* by their keys */
    unsigned count;
    bool probe; /* an empty write: does it work again? */

    int64_t deadline_ms;
    bool committing; /* COMMIT has gone out */
    enum pg_fault fault;
    struct err err;
};

/* ---- the queue ---- */

struct keys {
    const char *slots[KEYS_SIZE];
};

/* Whether the key was not there yet. */
static bool keys_add(struct keys *keys, const char *key)
{
    uint64_t hash = 1469598103934665603U; /* FNV-1a */
    for (const char *c = key; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211U;
    size_t at = hash % KEYS_SIZE;
    while (keys->slots[at] && strcmp(keys->slots[at], key) != 0)
        at = (at + 1) % KEYS_SIZE;
    bool absent = !keys->slots[at];
    keys->slots[at] = key;
    return absent;
}

static int by_key(const void *a, const void *b)
{
    const struct pg_job *const *first = a, *const *second = b;
    return strcmp((*first)->key, (*second)->key);
}

/* With the mutex. A job whose key is in the batch waits for the next one, and so do those behind it that have
 * the same key. */
static void take_batch(struct pg *pg, struct batch *batch)
{
    struct keys keys = {{0}};
    struct pg_job **link = &pg->first, *kept = NULL;
    batch->count = 0;
    for (int looks = 0; *link && batch->count < BATCH_MAX && looks < LOOK_MAX; looks++) {
        struct pg_job *job = *link;
        if (*job->key && !keys_add(&keys, job->key)) {
            kept = job;
            link = &job->next;
            continue;
        }
        *link = job->next;
        batch->jobs[batch->count++] = job;
        if (pg->last == job)
            pg->last = kept;
    }
    qsort(batch->jobs, batch->count, sizeof batch->jobs / BATCH_MAX, by_key);
}

void pg_submit(struct pg *pg, struct pg_job *job)
{
    job->next = NULL;
    job->err = (struct err){0};
    pthread_mutex_lock(&pg->mutex);
    if (pg->last)
        pg->last->next = job;
    else
        pg->first = job;
    pg->last = job;
    bool wake = pg->writer_sleeps;
    pg->writer_sleeps = false;
    pthread_mutex_unlock(&pg->mutex);
    if (wake)
        pg_wake_writer(pg);
}

/* ---- a job's statements ---- */

void pg_put(struct pg_job *job, unsigned statement, const char *types, ...)
{
    char name[16];
    va_list args;
    if (job->put_count == PG_ANSWERS_MAX)
        abort();
    pg_statement_name(statement, name);
    va_start(args, types);
    (void)pg_send(job->session, name, types, args); /* a lost connection shows when the answers are read */
    va_end(args);
    job->put_count++;
}

struct pg_rows pg_answer(const struct pg_job *job, unsigned n)
{
    if (n >= job->answer_count)
        abort();
    return (struct pg_rows){.result = job->answers[n], .row = -1};
}

static void clear_answers(struct pg_job *job)
{
    for (unsigned i = 0; i < job->answer_count; i++)
        PQclear(job->answers[i]);
    job->answer_count = 0;
}

/* ---- a batch ---- */

static void fail_batch(struct batch *batch, enum pg_fault fault, const struct err *err)
{
    if (batch->fault != PG_FAULT_NONE && fault != PG_FAULT_LOST)
        return;
    batch->fault = fault;
    batch->err = *err;
}

static void lose(struct batch *batch, const struct err *err)
{
    struct err unknown = {0};
    (void)err_set(&unknown, STATUS_IO, "%.150s; l'issue de l'écriture est inconnue", err->text);
    fail_batch(batch, PG_FAULT_LOST, batch->committing ? &unknown : err);
}

/* The result of the next statement; NULL when the connection is lost or the statement was not run. */
static PGresult *next_result(struct batch *batch)
{
    PGresult *result = NULL, *end = NULL;
    struct err err = {0};
    if (batch->fault == PG_FAULT_LOST)
        return NULL;
    if (pg_receive(batch->session, batch->deadline_ms, &result, &err) != STATUS_OK) {
        lose(batch, &err);
        return NULL;
    }
    ExecStatusType kind = result ? PQresultStatus(result) : PGRES_FATAL_ERROR;
    if (kind == PGRES_PIPELINE_SYNC)
        return result;
    if (kind == PGRES_FATAL_ERROR && result) {
        enum pg_fault fault = PG_FAULT_NONE;
        (void)pg_failed(batch->session, result, &fault, &err);
        if (fault == PG_FAULT_LOST)
            lose(batch, &err);
        else
            fail_batch(batch, fault, &err);
    }
    if (result && batch->fault != PG_FAULT_LOST &&
        pg_receive(batch->session, batch->deadline_ms, &end, &err) != STATUS_OK)
        lose(batch, &err);
    PQclear(end);
    if (kind == PGRES_TUPLES_OK || kind == PGRES_COMMAND_OK)
        return result;
    PQclear(result);
    return NULL;
}

static void skip_results(struct batch *batch, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        PQclear(next_result(batch));
}

/* Sends what was put, and reads all answers. `heads` statements stand before the jobs' own. */
static void exchange(struct batch *batch, unsigned heads, bool commit)
{
    batch->deadline_ms = clock_mono_ms() + PG_ANSWER_MS;
    if (commit) {
        FAILPOINT("db.commit.before");
        batch->committing = true;
        (void)pg_send_control(batch->session, PG_COMMIT);
    }
    if (!batch->session->lost && !PQpipelineSync(batch->session->pq))
        batch->session->lost = true;
    skip_results(batch, heads);
    for (unsigned i = 0; i < batch->count; i++) {
        struct pg_job *job = batch->jobs[i];
        for (unsigned n = 0; n < job->put_count; n++) {
            PGresult *result = next_result(batch);
            if (result)
                job->answers[job->answer_count++] = result;
        }
        job->put_count = 0;
    }
    if (commit) {
        PGresult *result = next_result(batch);
        /* COMMIT of a transaction that failed is a ROLLBACK, and no error (manual, COMMIT). */
        if (result && strcmp(PQcmdStatus(result), "COMMIT") != 0 && batch->fault == PG_FAULT_NONE) {
            struct err err = {0};
            (void)err_set(&err, STATUS_IO, "PostgreSQL: transaction lost");
            fail_batch(batch, PG_FAULT_JOB, &err);
        }
        PQclear(result);
        FAILPOINT("db.commit.after");
    }
    PGresult *sync = next_result(batch);
    if (sync && PQresultStatus(sync) != PGRES_PIPELINE_SYNC)
        abort(); /* answers and statements have come apart */
    PQclear(sync);
}

/* Lets every job put what it has to; the number of those that did, *ret_last whether none has to see its
 * answers before the commit. */
static unsigned run_round(struct batch *batch, unsigned round, bool *ret_last)
{
    unsigned active = 0;
    *ret_last = true;
    for (unsigned i = 0; i < batch->count; i++) {
        struct pg_job *job = batch->jobs[i];
        if (job->ended)
            continue;
        job->round = round;
        job->session = batch->session;
        job->put_count = 0;
        job->last = false;
        job->err.status = job->run(job, &job->err);
        clear_answers(job);
        job->ended = job->put_count == 0;
        active += !job->ended;
        *ret_last = *ret_last && (job->ended || job->last);
    }
    return active;
}

static void begin_jobs(struct batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct pg_job *job = batch->jobs[i];
        clear_answers(job);
        job->err = (struct err){0};
        job->ended = false;
    }
    batch->fault = PG_FAULT_NONE;
    batch->err = (struct err){0};
    batch->committing = false;
}

static unsigned begin_transaction(struct batch *batch)
{
    bool durable = batch->probe;
    for (unsigned i = 0; i < batch->count; i++)
        durable = durable || batch->jobs[i]->durable;
    (void)pg_send_control(batch->session, PG_BEGIN);
    if (!durable)
        (void)pg_send_control(batch->session, PG_ASYNC);
    if (batch->probe)
        (void)pg_send_control(batch->session, PG_PROBE);
    return 1U + !durable + batch->probe;
}

static void roll_back(struct batch *batch)
{
    struct batch end = {.pg = batch->pg, .session = batch->session};
    (void)pg_send_control(end.session, PG_ROLLBACK);
    exchange(&end, 1, false);
    if (end.fault != PG_FAULT_NONE)
        end.session->lost = true;
}

/* One transaction. What came of it is in batch->fault and batch->err; each job that was refused has its err.
 */
static void run_batch(struct batch *batch)
{
    begin_jobs(batch);
    unsigned heads = begin_transaction(batch);
    bool last = false;
    for (unsigned round = 0; batch->fault == PG_FAULT_NONE; round++) {
        unsigned active = run_round(batch, round, &last);
        if (batch->committing && active)
            abort(); /* a job that said it was through */
        if (batch->committing)
            return; /* they only saw their last answers */
        exchange(batch, heads, active == 0 || last);
        heads = 0;
    }
    if (batch->fault != PG_FAULT_LOST && !batch->session->lost)
        roll_back(batch);
}

/* Again while it is a deadlock or the like: the others are through meanwhile. */
static void run_until_through(struct batch *batch)
{
    run_batch(batch);
    for (unsigned tries = 0; batch->fault == PG_FAULT_AGAIN && tries < DEADLOCK_TRIES; tries++) {
        struct timespec pause = {.tv_nsec = backoff_ms(tries, 5, 100) * 1000000L};
        nanosleep(&pause, NULL);
        run_batch(batch);
    }
}

static void end_jobs(struct batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct pg_job *job = batch->jobs[i];
        clear_answers(job);
        if (batch->fault != PG_FAULT_NONE)
            job->err = batch->err;
        job->done(job);
    }
}

static void run_each_alone(struct batch *batch)
{
    int64_t end_ms = clock_mono_ms() + ALONE_MS;
    struct err err = batch->err;
    for (unsigned i = 0; i < batch->count; i++) {
        struct batch alone = {
            .pg = batch->pg, .session = batch->session, .jobs = {batch->jobs[i]}, .count = 1};
        if (batch->session->lost || clock_mono_ms() > end_ms)
            fail_batch(&alone, PG_FAULT_LOST, &err);
        else
            run_until_through(&alone);
        if (alone.fault == PG_FAULT_LOST)
            err = alone.err;
        end_jobs(&alone);
    }
    batch->count = 0;
}

/* False when the session is lost, and closed. */
static bool commit_batch(struct batch *batch)
{
    struct pg *pg = batch->pg;
    struct err none = {0};
    int64_t began_us = clock_mono_us();
    unsigned count = batch->count;
    atomic_store(&pg->write_began_ms, began_us / 1000);
    run_until_through(batch);
    bool own = batch->fault == PG_FAULT_JOB;
    if (own && count > 1)
        run_each_alone(batch);
    atomic_store(&pg->write_began_ms, 0);
    if (count)
        db_meters_commit(batch->fault == PG_FAULT_NONE || own, count, clock_mono_us() - began_us);
    bool lost = batch->session->lost || batch->fault == PG_FAULT_LOST;
    if (lost) {
        pg_session_close(batch->session);
        batch->session = NULL;
        struct err reason = {0};
        (void)err_set(&reason, STATUS_IO, "%s",
                      *batch->err.text ? batch->err.text : "PostgreSQL: connexion perdue");
        pg_want_writer(pg, &reason);
    } else {
        pg_set_health(pg, batch->fault == PG_FAULT_NONE || own ? &none : &batch->err);
    }
    end_jobs(batch);
    return !lost;
}

/* ---- the thread ---- */

/* Waits for a job, a new connection, or the end of the one there is. */
static void wait_for_work(struct pg *pg, struct pg_session **session, bool failing)
{
    struct pollfd ready[2] = {{.fd = pg->wake_fd, .events = POLLIN},
                              {.fd = *session ? PQsocket((*session)->pq) : -1, .events = POLLIN}};
    eventfd_t woken;
    pulse_beat("db-writer", failing ? IDLE_MS : PULSE_IDLE);
    int count = poll(ready, 2, failing ? IDLE_MS : -1);
    pulse_beat("db-writer", 0);
    if (ready[0].revents)
        (void)eventfd_read(pg->wake_fd, &woken);
    if (*session && ready[1].revents && !pg_session_alive(*session)) {
        struct err err = {0};
        char text[200];
        pg_error_text((*session)->pq, text, sizeof text);
        (void)err_set(&err, STATUS_IO, "PostgreSQL: %s", *text ? text : "connexion perdue");
        pg_session_close(*session);
        *session = NULL;
        pg_want_writer(pg, &err);
    } else if (*session && failing && count == 0) {
        struct batch probe = {.pg = pg, .session = *session, .probe = true};
        if (!commit_batch(&probe))
            *session = NULL;
    }
}

static void refuse(struct batch *batch, const struct err *reason)
{
    struct err err = *reason;
    if (err.status == STATUS_OK)
        (void)err_set(&err, STATUS_IO, "PostgreSQL: connexion perdue");
    begin_jobs(batch);
    fail_batch(batch, PG_FAULT_LOST, &err);
    end_jobs(batch);
}

static void *writer_main(void *arg)
{
    struct pg *pg = arg;
    struct pg_session *session = NULL;
    struct batch *batch = mem_new(sizeof *batch);
    bool stopping = false;
    while (!stopping) {
        pthread_mutex_lock(&pg->mutex);
        if (!session) {
            session = pg->fresh_writer;
            pg->fresh_writer = NULL;
        }
        *batch = (struct batch){.pg = pg, .session = session};
        take_batch(pg, batch);
        pg->writer_sleeps = batch->count == 0;
        stopping = batch->count == 0 && pg->stopping;
        struct err health = pg->health;
        pthread_mutex_unlock(&pg->mutex);
        pulse_beat("db-writer", 0);
        if (stopping)
            break;
        if (batch->count == 0)
            wait_for_work(pg, &session, health.status != STATUS_OK);
        else if (!session)
            refuse(batch, &health);
        else if (!commit_batch(batch))
            session = NULL;
    }
    pg_session_close(session);
    free(batch);
    return NULL;
}

enum status pg_writer_start(struct pg *pg, struct err *err)
{
    int failed = pthread_create(&pg->writer, NULL, writer_main, pg);
    pg->writer_runs = failed == 0;
    return failed ? err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed)) : STATUS_OK;
}

void pg_writer_stop(struct pg *pg)
{
    if (!pg->writer_runs)
        return;
    pthread_mutex_lock(&pg->mutex);
    pg->stopping = true;
    pthread_mutex_unlock(&pg->mutex);
    pg_wake_writer(pg);
    pthread_join(pg->writer, NULL);
}
