/* The writer's thread: group commit, failures of one job and of a whole batch, and recovery. */
#include "db_fixture.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

#include "db_internal.h"
#include "failing_vfs.h"

/* ---- batches ---- */

/* A job that holds the writer until the test lets it go: what is submitted meanwhile queues up. */
struct gate {
    struct item_job item;
    sem_t entered, open;
};

static enum status run_gate(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct gate *gate = OWNER(job, struct gate, item.job);
    (void)conn;
    (void)err;
    sem_post(&gate->entered);
    while (sem_wait(&gate->open) != 0)
        continue;
    return STATUS_OK;
}

static void gate_close(struct gate *gate, struct db *db)
{
    item_init(&gate->item, NULL);
    gate->item.job.run = run_gate;
    sem_init(&gate->entered, 0, 0);
    sem_init(&gate->open, 0, 0);
    db_submit(db, &gate->item.job);
    wait_for(&gate->entered);
}

static void gate_open(struct gate *gate)
{
    sem_post(&gate->open);
    assert_int_equal(item_wait(&gate->item), STATUS_OK);
    sem_destroy(&gate->entered);
    sem_destroy(&gate->open);
}

/* What the writer did, in its order: "r0", "d0". */
struct history {
    struct db *db;
    int count;
    struct {
        char what;
        int number;
        int64_t visible; /* rows that a reader saw */
    } events[1024];
};

struct noted_job {
    struct item_job item;
    int number;
    char name[16];
    struct history *history;
};

static int64_t visible_rows(struct db *db)
{
    struct db_conn *conn = db_reader_get(db);
    struct db_rows rows = {0};
    bool found = db_query(conn, SELECT_COUNT, &rows, NULL, "t", "") == STATUS_OK && db_next(&rows, NULL) == STATUS_OK;
    int64_t count = found ? db_int(&rows, 0) : -1;
    db_rows_done(&rows);
    db_reader_put(db, conn);
    return count;
}

static void note(struct noted_job *job, char what)
{
    struct history *history = job->history;
    history->events[history->count].what = what;
    history->events[history->count].number = job->number;
    history->events[history->count++].visible = visible_rows(history->db);
}

static enum status run_noted(struct db_job *job, struct db_conn *conn, struct err *err)
{
    note(OWNER(job, struct noted_job, item.job), 'r');
    return run_item(job, conn, err);
}

static void noted_finished(struct db_job *job)
{
    note(OWNER(job, struct noted_job, item.job), 'd');
    item_finished(job);
}

static void submit_noted(struct history *history, struct noted_job *job, int number)
{
    (void)snprintf(job->name, sizeof job->name, "item %d", number);
    item_init(&job->item, job->name);
    job->item.job.run = run_noted;
    job->item.job.done = noted_finished;
    job->number = number;
    job->history = history;
    db_submit(history->db, &job->item.job);
}

static void assert_event(const struct history *history, int at, char what, int number, int64_t visible)
{
    if (history->events[at].what != what || history->events[at].number != number ||
        history->events[at].visible != visible)
        fail_msg("event %d: %c%d with %lld rows instead of %c%d with %lld", at, history->events[at].what,
                 history->events[at].number, (long long)history->events[at].visible, what, number,
                 (long long)visible);
}

/* All of them are queued before the writer takes the first. */
static void run_noted_jobs(struct fixture *fixture, struct history *history, struct noted_job *jobs, int count)
{
    struct gate gate;
    *history = (struct history){.db = fixture->db};
    gate_close(&gate, fixture->db);
    for (int i = 0; i < count; i++)
        submit_noted(history, &jobs[i], i);
    gate_open(&gate);
    for (int i = 0; i < count; i++)
        assert_int_equal(item_wait(&jobs[i].item), STATUS_OK);
}

static void test_what_has_queued_up_is_one_transaction_told_after_its_commit(void **state)
{
    enum { JOBS = 40 };
    static struct noted_job jobs[JOBS];
    static struct history history;
    run_noted_jobs(*state, &history, jobs, JOBS);
    assert_int_equal(history.count, 2 * JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_event(&history, i, 'r', i, 0);           /* in the order of submission, nothing committed */
        assert_event(&history, JOBS + i, 'd', i, JOBS); /* nobody is told before everything is */
    }
}

static void test_a_batch_has_at_most_256_jobs(void **state)
{
    enum { JOBS = 300, BATCH = 256 };
    static struct noted_job jobs[JOBS];
    static struct history history;
    run_noted_jobs(*state, &history, jobs, JOBS);
    int at = 0;
    for (int i = 0; i < BATCH; i++)
        assert_event(&history, at++, 'r', i, 0);
    for (int i = 0; i < BATCH; i++)
        assert_event(&history, at++, 'd', i, BATCH);
    for (int i = BATCH; i < JOBS; i++)
        assert_event(&history, at++, 'r', i, BATCH);
    for (int i = BATCH; i < JOBS; i++)
        assert_event(&history, at++, 'd', i, JOBS);
}

static void test_a_job_that_fails_is_rolled_back_alone(void **state)
{
    struct fixture *fixture = *state;
    static const enum status outcomes[] = {STATUS_OK,    STATUS_CONFLICT, STATUS_OK,    STATUS_STALE,
                                           STATUS_BUSY,  STATUS_FULL,     STATUS_IO,    STATUS_OK,
                                           STATUS_CONFLICT};
    char names[COUNT(outcomes)][8];
    struct item_job jobs[COUNT(outcomes)];
    struct gate gate;
    gate_close(&gate, fixture->db);
    for (size_t i = 0; i < COUNT(outcomes); i++) {
        (void)snprintf(names[i], sizeof names[i], "job %zu", i);
        item_init(&jobs[i], names[i]);
        jobs[i].outcome = outcomes[i];
        db_submit(fixture->db, &jobs[i].job);
    }
    gate_open(&gate);
    for (size_t i = 0; i < COUNT(outcomes); i++) {
        assert_int_equal(item_wait(&jobs[i]), outcomes[i]);
        assert_int_equal(count_items(fixture->db, names[i]), outcomes[i] == STATUS_OK);
        assert_string_equal(jobs[i].job.err.text, outcomes[i] == STATUS_OK ? "" : "as the test wants");
    }
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_OK);
}

static void test_a_lone_job_that_fails_leaves_nothing_and_the_database_healthy(void **state)
{
    struct fixture *fixture = *state;
    static const enum status outcomes[] = {STATUS_CONFLICT, STATUS_STALE, STATUS_FULL, STATUS_OK};
    for (size_t i = 0; i < COUNT(outcomes); i++) {
        struct item_job item;
        item_init(&item, "lone");
        item.outcome = outcomes[i];
        db_submit(fixture->db, &item.job);
        assert_int_equal(item_wait(&item), outcomes[i]);
        assert_int_equal(count_items(fixture->db, "lone"), outcomes[i] == STATUS_OK);
        assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_OK);
    }
}

static void test_a_constraint_violated_in_a_batch_fails_its_job_alone(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[3];
    struct gate gate;
    gate_close(&gate, fixture->db);
    for (int i = 0; i < 3; i++) {
        item_init(&jobs[i], i < 2 ? "the same" : "another");
        db_submit(fixture->db, &jobs[i].job);
    }
    gate_open(&gate);
    assert_int_equal(item_wait(&jobs[0]), STATUS_OK);
    assert_int_equal(item_wait(&jobs[1]), STATUS_CONFLICT);
    assert_int_equal(item_wait(&jobs[2]), STATUS_OK);
    assert_int_equal(count_items(fixture->db, ""), 2);
}

/* Fails before it has written anything. */
static enum status run_refused(struct db_job *job, struct db_conn *conn, struct err *err)
{
    (void)job;
    (void)conn;
    return err_set(err, STATUS_STALE, "refused");
}

/* Bare jobs, of which the second fails, in its run() or in that of the others. */
static void run_bare_jobs(struct db *db, struct item_job jobs[3],
                          enum status (*second)(struct db_job *job, struct db_conn *conn, struct err *err))
{
    static const char *const names[] = {"first", "second", "third"};
    struct gate gate;
    gate_close(&gate, db);
    for (int i = 0; i < 3; i++) {
        item_init(&jobs[i], names[i]);
        jobs[i].job.bare = true;
        jobs[i].outcome = i == 1 ? STATUS_STALE : STATUS_OK;
        if (i == 1)
            jobs[i].job.run = second;
        db_submit(db, &jobs[i].job);
    }
    gate_open(&gate);
}

static void test_a_bare_job_that_has_written_nothing_is_refused_alone(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[3];
    run_bare_jobs(fixture->db, jobs, run_refused);
    for (int i = 0; i < 3; i++)
        assert_int_equal(item_wait(&jobs[i]), i == 1 ? STATUS_STALE : STATUS_OK);
    assert_int_equal(count_items(fixture->db, "second"), 0);
    assert_int_equal(count_items(fixture->db, ""), 2);
}

static void test_a_bare_job_that_fails_after_a_write_is_refused_alone_too(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[3];
    run_bare_jobs(fixture->db, jobs, run_item);
    for (int i = 0; i < 3; i++)
        assert_int_equal(item_wait(&jobs[i]), i == 1 ? STATUS_STALE : STATUS_OK);
    assert_int_equal(count_items(fixture->db, "second"), 0);
    assert_int_equal(count_items(fixture->db, ""), 2);
}

static void submit_again(struct db_job *job)
{
    struct item_job *item = OWNER(job, struct item_job, job);
    item->name = "again";
    job->done = item_finished;
    db_submit((struct db *)(uintptr_t)item->number, job);
}

static void test_a_finished_job_may_be_submitted_anew(void **state)
{
    struct fixture *fixture = *state;
    struct item_job item;
    item_init(&item, "at first");
    item.number = (int64_t)(uintptr_t)fixture->db;
    item.job.done = submit_again;
    assert_int_equal(item_commit(fixture->db, &item), STATUS_OK);
    assert_int_equal(count_items(fixture->db, "at first"), 1);
    assert_int_equal(count_items(fixture->db, "again"), 1);
}

static void test_closing_runs_everything_that_is_queued(void **state)
{
    enum { JOBS = 20 };
    struct fixture *fixture = *state;
    struct item_job jobs[JOBS];
    char names[JOBS][8];
    struct gate gate;
    gate_close(&gate, fixture->db);
    for (int i = 0; i < JOBS; i++) {
        (void)snprintf(names[i], sizeof names[i], "job %d", i);
        item_init(&jobs[i], names[i]);
        db_submit(fixture->db, &jobs[i].job);
    }
    sem_post(&gate.open);
    fixture_close(fixture);
    assert_int_equal(item_wait(&gate.item), STATUS_OK);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(item_wait(&jobs[i]), STATUS_OK);
    fixture_open(fixture);
    assert_int_equal(count_items(fixture->db, ""), JOBS);
}

/* ---- a database that cannot be written ---- */

static bool is_healthy(void *db)
{
    return db_health(db, &(int64_t){0}, NULL) == STATUS_OK;
}

static void assert_unhealthy(struct db *db, enum status status)
{
    struct err err = {0};
    assert_int_equal(db_health(db, &(int64_t){0}, &err), status);
    assert_int_equal(err.status, status);
    assert_true(err.text[0] != '\0');
}

static void test_a_lock_of_somebody_else_makes_a_batch_busy_and_its_end_recovers(void **state)
{
    struct fixture *fixture = *state;
    sqlite3 *other = NULL;
    struct item_job jobs[2];
    /* Five seconds of patience are too many for a test; the writer's thread waits for work meanwhile. */
    assert_int_equal(sqlite3_busy_timeout(fixture->db->writer.handle, 50), SQLITE_OK);
    assert_int_equal(sqlite3_open(fixture->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        item_init(&jobs[i], "refused");
        db_submit(fixture->db, &jobs[i].job);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(item_wait(&jobs[i]), STATUS_BUSY);
        assert_non_null(strstr(jobs[i].job.err.text, "locked"));
    }
    assert_unhealthy(fixture->db, STATUS_BUSY);
    assert_int_equal(count_items(fixture->db, ""), 0); /* reading goes on */

    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    wait_until(is_healthy, fixture->db); /* without traffic */
    assert_int_equal(add_item(fixture->db, "accepted"), STATUS_OK);
    assert_int_equal(count_items(fixture->db, ""), 1);
}

/* Three jobs in one batch, of which the second fails by itself, on a disk that refuses to write. */
static void assert_failing_disk(struct db *db, int result, enum status status)
{
    struct item_job jobs[3];
    struct gate gate;
    gate_close(&gate, db);
    for (int i = 0; i < 3; i++) {
        item_init(&jobs[i], i == 0 ? "a" : i == 1 ? "b" : "c");
        jobs[i].outcome = i == 1 ? STATUS_STALE : STATUS_OK;
        db_submit(db, &jobs[i].job);
    }
    atomic_store(&failing_write, result);
    gate_open(&gate); /* that job writes nothing */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(item_wait(&jobs[i]), status);
        assert_non_null(strstr(jobs[i].job.err.text, "SQLite: "));
    }
    assert_unhealthy(db, status);
    assert_int_equal(count_items(db, ""), 0);
    assert_int_equal(add_item(db, "still failing"), status);

    disk_works();
    wait_until(is_healthy, db); /* without traffic */
    assert_int_equal(count_items(db, ""), 0);
    assert_int_equal(add_item(db, "works"), STATUS_OK);
    assert_int_equal(count_items(db, ""), 1);
}

static void test_a_full_disk_fails_every_job_of_the_batch_and_recovers(void **state)
{
    struct fixture *fixture = *state;
    assert_failing_disk(fixture->db, SQLITE_FULL, STATUS_FULL);
}

static void test_a_disk_that_cannot_write_fails_every_job_of_the_batch_and_recovers(void **state)
{
    struct fixture *fixture = *state;
    assert_failing_disk(fixture->db, SQLITE_IOERR_WRITE, STATUS_IO);
}

static enum status run_large(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct item_job *item = OWNER(job, struct item_job, job);
    return db_run(conn, ADD_LARGE, err, "ti", item->name, item->number);
}

/* More than the page cache: written before the commit, so that SQLite rolls the transaction back inside the job. */
static void test_a_transaction_lost_in_the_middle_fails_its_batch_alone(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[3];
    struct gate gate;
    gate_close(&gate, fixture->db);
    for (int i = 0; i < 3; i++) {
        item_init(&jobs[i], i == 0 ? "before" : i == 1 ? "large" : "after");
        jobs[i].number = 8 << 20;
        jobs[i].job.run = i == 1 ? run_large : run_item;
        db_submit(fixture->db, &jobs[i].job);
    }
    atomic_store(&failing_write, SQLITE_FULL);
    sem_post(&gate.open);
    assert_int_equal(item_wait(&gate.item), STATUS_OK); /* it has written nothing */
    for (int i = 0; i < 3; i++)
        assert_int_equal(item_wait(&jobs[i]), STATUS_FULL);
    disk_works();
    assert_int_equal(add_item(fixture->db, "next"), STATUS_OK);
    assert_int_equal(count_items(fixture->db, ""), 1);
    sem_destroy(&gate.entered);
    sem_destroy(&gate.open);
}

/* ---- durability ---- */

static atomic_int fatal_calls;
static char fatal_reason[256];

static void note_fatal(const char *reason)
{
    (void)text_copy(fatal_reason, sizeof fatal_reason, reason);
    atomic_fetch_add(&fatal_calls, 1);
}

static int new_fixture_with_fatal(void **state)
{
    (void)fixture_new(state);
    struct fixture *fixture = *state;
    fixture->config.fatal = note_fatal;
    atomic_store(&fatal_calls, 0);
    fixture_open(fixture);
    return 0;
}

static void test_an_fsync_that_fails_fails_the_batch_and_is_fatal(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[2];
    struct gate gate;
    assert_int_equal(add_item(fixture->db, "safe"), STATUS_OK);
    gate_close(&gate, fixture->db);
    for (int i = 0; i < 2; i++) {
        item_init(&jobs[i], i == 0 ? "a" : "b");
        jobs[i].job.durable = i == 1;
        db_submit(fixture->db, &jobs[i].job);
    }
    atomic_store(&failing_sync, SQLITE_IOERR_FSYNC);
    gate_open(&gate);
    for (int i = 0; i < 2; i++)
        assert_int_equal(item_wait(&jobs[i]), STATUS_UNSYNCED);
    assert_unhealthy(fixture->db, STATUS_UNSYNCED);
    fixture_close(fixture); /* joins the thread that calls fatal() behind done() */
    assert_int_equal(atomic_load(&fatal_calls), 1);
    assert_true(fatal_reason[0] != '\0');
}

static void test_a_job_that_need_not_be_durable_waits_for_no_fsync(void **state)
{
    struct fixture *fixture = *state;
    struct item_job item;
    assert_int_equal(add_item(fixture->db, "opens the log"), STATUS_OK);
    int before = atomic_load(&vfs_syncs);
    assert_int_equal(add_item(fixture->db, "durable"), STATUS_OK);
    assert_true(atomic_load(&vfs_syncs) > before);
    before = atomic_load(&vfs_syncs);
    item_init(&item, "quick");
    item.job.durable = false;
    assert_int_equal(item_commit(fixture->db, &item), STATUS_OK);
    assert_int_equal(atomic_load(&vfs_syncs), before);
    assert_int_equal(count_items(fixture->db, "quick"), 1);
    assert_int_equal(add_item(fixture->db, "durable again"), STATUS_OK);
    assert_true(atomic_load(&vfs_syncs) > before);
}

static void test_one_durable_job_makes_its_whole_batch_durable(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[3];
    struct gate gate;
    assert_int_equal(add_item(fixture->db, "opens the log"), STATUS_OK);
    gate_close(&gate, fixture->db);
    for (int i = 0; i < 3; i++) {
        item_init(&jobs[i], i == 0 ? "a" : i == 1 ? "b" : "c");
        jobs[i].job.durable = i == 1;
        db_submit(fixture->db, &jobs[i].job);
    }
    int before = atomic_load(&vfs_syncs);
    gate_open(&gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(item_wait(&jobs[i]), STATUS_OK);
    assert_true(atomic_load(&vfs_syncs) > before);
}

/* ---- lazy jobs ---- */

static void submit_lazy(struct fixture *fixture, struct item_job *item, const char *name)
{
    item_init(item, name);
    item->job.durable = false;
    item->job.lazy = true;
    db_submit(fixture->db, &item->job);
}

static void test_a_lazy_job_alone_waits_a_moment(void **state)
{
    struct fixture *fixture = *state;
    struct item_job lazy;
    int64_t began_ms = clock_mono_ms();
    submit_lazy(fixture, &lazy, "of a writer that sleeps");
    assert_int_equal(item_wait(&lazy), STATUS_OK);
    assert_true(clock_mono_ms() - began_ms >= 90); /* it has waked nobody for itself */
    assert_int_equal(count_items(fixture->db, "of a writer that sleeps"), 1);
    assert_int_equal(add_item(fixture->db, "wakes it"), STATUS_OK);
    submit_lazy(fixture, &lazy, "of a writer that was just at work");
    assert_int_equal(item_wait(&lazy), STATUS_OK);
    assert_int_equal(count_items(fixture->db, "of a writer that was just at work"), 1);
}

static void test_a_lazy_job_rides_with_the_next_one(void **state)
{
    struct fixture *fixture = *state;
    static struct noted_job jobs[2];
    static struct history history;
    int64_t took_ms;
    do { /* again, where this thread was kept from the second for so long that the first went alone */
        int64_t began_ms = clock_mono_ms(), rows = visible_rows(fixture->db);
        history = (struct history){.db = fixture->db};
        for (int i = 0; i < 2; i++) {
            (void)snprintf(jobs[i].name, sizeof jobs[i].name, "%d after %d", i, (int)rows);
            item_init(&jobs[i].item, jobs[i].name);
            jobs[i].item.job.run = run_noted;
            jobs[i].item.job.done = noted_finished;
            jobs[i].item.job.lazy = i == 0;
            jobs[i].number = i;
            jobs[i].history = &history;
            db_submit(fixture->db, &jobs[i].item.job);
        }
        took_ms = clock_mono_ms() - began_ms;
        for (int i = 0; i < 2; i++)
            assert_int_equal(item_wait(&jobs[i].item), STATUS_OK);
    } while (took_ms >= 90);
    assert_int_equal(history.count, 4);
    assert_true(history.events[0].what == 'r' && history.events[0].number == 0);
    assert_true(history.events[1].what == 'r' && history.events[1].number == 1);
    assert_int_equal(history.events[2].visible, history.events[0].visible + 2); /* one transaction */
}

static void test_closing_waits_for_lazy_jobs_too(void **state)
{
    struct fixture *fixture = *state;
    struct item_job lazy;
    submit_lazy(fixture, &lazy, "late");
    fixture_close(fixture);
    assert_int_equal(item_wait(&lazy), STATUS_OK);
    fixture_open(fixture);
    assert_int_equal(count_items(fixture->db, "late"), 1);
}

static int install_vfs(void **state)
{
    (void)state;
    failing_vfs_install();
    return 0;
}

static int free_fixture_of_a_working_disk(void **state)
{
    disk_works();
    return fixture_free(state);
}

#define TEST_DISK(test)                                                                                      \
    cmocka_unit_test_setup_teardown(test, new_fixture_with_fatal, free_fixture_of_a_working_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_OPEN(test_what_has_queued_up_is_one_transaction_told_after_its_commit),
        TEST_OPEN(test_a_lazy_job_alone_waits_a_moment),
        TEST_OPEN(test_a_lazy_job_rides_with_the_next_one),
        TEST_OPEN(test_closing_waits_for_lazy_jobs_too),
        TEST_OPEN(test_a_batch_has_at_most_256_jobs),
        TEST_OPEN(test_a_job_that_fails_is_rolled_back_alone),
        TEST_OPEN(test_a_lone_job_that_fails_leaves_nothing_and_the_database_healthy),
        TEST_OPEN(test_a_constraint_violated_in_a_batch_fails_its_job_alone),
        TEST_OPEN(test_a_bare_job_that_has_written_nothing_is_refused_alone),
        TEST_OPEN(test_a_bare_job_that_fails_after_a_write_is_refused_alone_too),
        TEST_OPEN(test_a_finished_job_may_be_submitted_anew),
        TEST_OPEN(test_closing_runs_everything_that_is_queued),
        TEST_OPEN(test_a_lock_of_somebody_else_makes_a_batch_busy_and_its_end_recovers),
        TEST_DISK(test_a_full_disk_fails_every_job_of_the_batch_and_recovers),
        TEST_DISK(test_a_disk_that_cannot_write_fails_every_job_of_the_batch_and_recovers),
        TEST_DISK(test_a_transaction_lost_in_the_middle_fails_its_batch_alone),
        TEST_DISK(test_an_fsync_that_fails_fails_the_batch_and_is_fatal),
        TEST_DISK(test_a_job_that_need_not_be_durable_waits_for_no_fsync),
        TEST_DISK(test_one_durable_job_makes_its_whole_batch_durable),
    };
    return cmocka_run_group_tests_name("db_writer", tests, install_vfs, NULL);
}
