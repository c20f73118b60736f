/* The writer's thread: takes what has queued up, commits it in one transaction, tells the jobs' owners.
 *
 * While one batch waits for its fsync the next one queues up, so the batch size follows the load by itself
 * and an idle system commits a lone job at once. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "db_internal.h"
#include "db_meters.h"
#include "pulse.h"

enum { BATCH_MAX = 256, LAZY_MS = 100, IDLE_MS = 1000, STALLED_MS = 10000 };
static const off_t WAL_LARGE_BYTES = 16 << 20;

static enum status run_alone(struct db *db, struct db_job *job)
{
    job->err = (struct err){0};
    memset(job->changes, 0, sizeof job->changes);
    job->err.status = job->run(job, &db->writer, &job->err);
    return job->err.status;
}

struct batch {
    struct db *db;
    struct db_job *jobs;
    struct err space;
    bool refused; /* the only job failed, and the database did not */
    bool careful; /* every job gets a savepoint, bare ones too */
    bool spoiled; /* a bare job failed after a write: once more, carefully */
};

/* Runs one job of several, in its own savepoint where it may need one: for every page that it changes a
 * savepoint keeps a copy. Returns not OK only where the whole transaction is gone (SQLite rolls it back by
 * itself on some errors: "Response To Errors Within A Transaction", lang_transaction.html), or is to go. */
static enum status run_job(struct batch *batch, struct db_job *job, struct err *err)
{
    struct db *db = batch->db;
    sqlite3 *handle = db->writer.handle;
    bool bare = job->bare && !batch->careful;
    int64_t changes = sqlite3_total_changes64(handle);
    enum status status = bare ? STATUS_OK : db_control(&db->writer, DB_SAVEPOINT, err);
    if (status != STATUS_OK)
        return status;
    status = run_alone(db, job);
    bool lost = sqlite3_get_autocommit(handle);
    batch->spoiled = bare && !lost && status != STATUS_OK && sqlite3_total_changes64(handle) != changes;
    if (batch->spoiled || lost) {
        *err = job->err;
        return status != STATUS_OK ? status : err_set(err, STATUS_IO, "SQLite: transaction lost");
    }
    if (bare)
        return STATUS_OK;
    if (status != STATUS_OK && (status = db_control(&db->writer, DB_ROLLBACK_TO, err)) != STATUS_OK)
        return status;
    return db_control(&db->writer, DB_RELEASE, err);
}

static enum status run_batch(void *arg, struct err *err)
{
    struct batch *batch = arg;
    bool lone = !batch->jobs->next; /* needs no savepoint: the transaction is its own */
    for (struct db_job *job = batch->jobs; job; job = job->next) {
        if (job->grows && batch->space.status != STATUS_OK) {
            job->err = batch->space;
            continue;
        }
        enum status status = lone ? run_alone(batch->db, job) : run_job(batch, job, err);
        if (lone && status != STATUS_OK) {
            *err = job->err;
            batch->refused = !sqlite3_get_autocommit(batch->db->writer.handle);
        }
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static void set_health(struct db *db, const struct err *err)
{
    bool other = since_set(&db->write_ok, err->status == STATUS_OK);
    pthread_mutex_lock(&db->mutex);
    db->health = *err;
    pthread_mutex_unlock(&db->mutex);
    if (other)
        db_tell(db, err);
}

/* synchronous cannot change inside a transaction, so it is the batch's: FULL as soon as one job asks for it.
 */
static enum status set_sync(struct db *db, bool durable, struct err *err)
{
    if (db->synced == durable)
        return STATUS_OK;
    enum status status = db_exec(db->writer.handle,
                                 durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", err);
    if (status == STATUS_OK)
        db->synced = durable;
    return status;
}

static void add_changes(struct db_job *job)
{
    for (int i = 0; job->counts && job->err.status == STATUS_OK && i < DB_COUNTS; i++)
        if (job->changes[i])
            atomic_fetch_add_explicit(&job->counts[i], job->changes[i], memory_order_relaxed);
}

static void commit_jobs(struct db *db, struct db_job *jobs)
{
    struct batch batch = {.db = db, .jobs = jobs};
    bool durable = false, grows = false;
    int64_t count = 0, began_us = clock_mono_us();
    for (struct db_job *job = jobs; job; job = job->next, count++) {
        durable = durable || job->durable;
        grows = grows || job->grows;
    }
    if (grows)
        (void)db_check_space(db, &batch.space);

    atomic_store(&db->write_began_ms, began_us / 1000);
    struct err err = {0};
    err.status = set_sync(db, durable, &err);
    if (err.status == STATUS_OK)
        err.status = db_transaction(&db->writer, run_batch, &batch, &err);
    if (batch.spoiled) {
        batch.careful = true;
        err = (struct err){0};
        err.status = db_transaction(&db->writer, run_batch, &batch, &err);
    }
    atomic_store(&db->write_began_ms, 0);
    struct err none = {0};
    set_health(db, batch.refused ? &none : &err);
    db_meters_commit(err.status == STATUS_OK || batch.refused, count, clock_mono_us() - began_us);
    db->wal_grew = true;

    while (jobs) {
        struct db_job *job = jobs;
        jobs = job->next;
        if (err.status != STATUS_OK)
            job->err = err;
        add_changes(job);
        job->done(job);
    }
    if (err.status == STATUS_UNSYNCED && db->config.fatal)
        db->config.fatal(err.text);
}

static enum status touch(void *arg, struct err *err)
{
    struct db *db = arg;
    char sql[48];
    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %zu", db->config.migration_count);
    return db_exec(db->writer.handle, sql, err);
}

/* Nothing to do for a while: sees whether a database that failed works again, and cuts a WAL that a burst
 * left long. */
static void idle(struct db *db, bool failing)
{
    struct stat wal;
    if (failing) {
        struct err err = {0};
        err.status = db_transaction(&db->writer, touch, db, &err);
        set_health(db, &err);
    } else if (db->wal_grew) {
        db->wal_grew = false;
        if (stat(db->wal_path, &wal) == 0 && wal.st_size > WAL_LARGE_BYTES)
            (void)sqlite3_wal_checkpoint_v2(db->writer.handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
}

static struct db_job *take_batch(struct db *db)
{
    struct db_job *jobs = db->first, *last = jobs;
    for (int n = 1; last && n < BATCH_MAX && last->next; n++)
        last = last->next;
    if (last) {
        db->first = last->next;
        last->next = NULL;
    }
    if (!db->first) {
        db->last = NULL;
        db->wanted = false;
    }
    return jobs;
}

/* Lazy jobs wake nobody while it waits in turns, which it does as long as there may be more of them. */
static void wait_for_work(struct db *db)
{
    if (!db->first && !db->wal_grew && db->health.status == STATUS_OK) {
        pulse_beat("db-writer", PULSE_IDLE);
        db->asleep = true;
        pthread_cond_wait(&db->work, &db->mutex);
        db->asleep = false;
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LAZY_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pulse_beat("db-writer", LAZY_MS);
    if (pthread_cond_timedwait(&db->work, &db->mutex, &until) == 0)
        return;
    db->wanted = db->first;
    if (db->wanted || clock_mono_ms() < db->idle_at_ms)
        return;
    bool failing = db->health.status != STATUS_OK;
    pthread_mutex_unlock(&db->mutex);
    idle(db, failing);
    db->idle_at_ms = clock_mono_ms() + IDLE_MS;
    pthread_mutex_lock(&db->mutex);
}

static void *writer_main(void *arg)
{
    struct db *db = arg;
    pthread_mutex_lock(&db->mutex);
    while (db->first || !db->stopping) {
        if (!db->wanted && !db->stopping) {
            wait_for_work(db);
            continue;
        }
        struct db_job *jobs = take_batch(db);
        pthread_mutex_unlock(&db->mutex);
        pulse_beat("db-writer", 0);
        commit_jobs(db, jobs);
        db->idle_at_ms = clock_mono_ms() + IDLE_MS;
        pthread_mutex_lock(&db->mutex);
    }
    pthread_mutex_unlock(&db->mutex);
    return NULL;
}

void db_submit(struct db *db, struct db_job *job)
{
    job->next = NULL;
    job->err = (struct err){0};
    pthread_mutex_lock(&db->mutex);
    if (db->last)
        db->last->next = job;
    else
        db->first = job;
    db->last = job;
    bool wake = job->lazy ? db->asleep : !db->wanted;
    db->wanted = db->wanted || !job->lazy;
    pthread_mutex_unlock(&db->mutex);
    if (wake) /* after the unlocking: whom it wakes would wait for the mutex */
        pthread_cond_signal(&db->work);
}

enum status db_health(struct db *db, int64_t *ret_since_ms, struct err *err)
{
    pthread_mutex_lock(&db->mutex);
    struct err health = db->health;
    pthread_mutex_unlock(&db->mutex);
    int64_t began_ms = atomic_load(&db->write_began_ms);
    int64_t stalled_ms = began_ms ? clock_mono_ms() - began_ms : 0;
    if (health.status == STATUS_OK && stalled_ms > STALLED_MS) {
        *ret_since_ms = clock_wall_ms() - stalled_ms;
        return err_set(err, STATUS_BUSY, "une écriture n'a pas abouti depuis %lld s",
                       (long long)stalled_ms / 1000);
    }
    if (health.status == STATUS_OK)
        health.status = db_check_space(db, &health);
    int64_t write_ms = since_ms(&db->write_ok), space_ms = since_ms(&db->space_ok);
    *ret_since_ms = !since_state(&db->write_ok)   ? write_ms
                    : !since_state(&db->space_ok) ? space_ms
                    : write_ms > space_ms         ? write_ms
                                                  : space_ms;
    if (err && health.status != STATUS_OK)
        *err = health;
    return health.status;
}

bool db_was_well(struct db *db)
{
    return since_state(&db->write_ok) && since_state(&db->space_ok);
}

enum status db_writer_start(struct db *db, struct err *err)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&db->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failed = pthread_create(&db->thread, NULL, writer_main, db);
    db->running = failed == 0;
    return failed ? err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed)) : STATUS_OK;
}

void db_writer_stop(struct db *db)
{
    if (!db->running)
        return;
    pthread_mutex_lock(&db->mutex);
    db->stopping = true;
    pthread_cond_signal(&db->work);
    pthread_mutex_unlock(&db->mutex);
    pthread_join(db->thread, NULL);
    pthread_cond_destroy(&db->work);
}
