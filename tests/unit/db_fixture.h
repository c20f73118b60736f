/* A database of one table in a folder of its own, and jobs that the test waits for. What runs in the writer's thread
 * asserts nothing (a failed assertion jumps, and only in the test's own thread): it reports a status. */
#ifndef TESTS_DB_FIXTURE_H
#define TESTS_DB_FIXTURE_H

#include "db.h"
#include "temp_folder.h"

enum { ADD, ADD_LARGE, REMOVE, ALL, SELECT_COUNT, ADD_BARE, FIXTURE_STATEMENTS };

static const char *const fixture_statements[FIXTURE_STATEMENTS] = {
    [ADD] = "INSERT INTO items (name, number, weight) VALUES (?1, ?2, ?3)",
    [ADD_LARGE] = "INSERT INTO items (name) VALUES (?1 || hex(zeroblob(?2)))",
    [REMOVE] = "DELETE FROM items WHERE name = ?1",
    [ALL] = "SELECT name, number, weight FROM items ORDER BY id",
    [SELECT_COUNT] = "SELECT count(*) FROM items WHERE ?1 = '' OR name = ?1",
    [ADD_BARE] = "INSERT INTO items (number) VALUES (?1)",
};

static const struct db_migration fixture_schema[] = {
    {"0001-create", "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, number INTEGER,"
                    " weight REAL) STRICT"},
};

struct fixture {
    char *folder, *path;
    struct db_config config;
    struct db *db;
};

static inline int fixture_new(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    fixture->folder = temp_folder();
    fixture->path = mem_format("%s/test.db", fixture->folder);
    fixture->config = (struct db_config){
        .path = fixture->path,
        .migrations = fixture_schema,
        .migration_count = COUNT(fixture_schema),
        .statements = fixture_statements,
        .statement_count = FIXTURE_STATEMENTS,
        .readers = 2,
    };
    *state = fixture;
    return 0;
}

static inline void fixture_open(struct fixture *fixture)
{
    struct err err = {0};
    if (db_open(&fixture->db, &fixture->config, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static inline void fixture_close(struct fixture *fixture)
{
    db_close(fixture->db);
    fixture->db = NULL;
}

static inline int fixture_free(void **state)
{
    struct fixture *fixture = *state;
    db_close(fixture->db);
    free(fixture->path);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

static inline int fixture_new_open(void **state)
{
    (void)fixture_new(state);
    fixture_open(*state);
    return 0;
}

#define TEST_OPEN(test) cmocka_unit_test_setup_teardown(test, fixture_new_open, fixture_free)
#define TEST_CLOSED(test) cmocka_unit_test_setup_teardown(test, fixture_new, fixture_free)

/* ---- jobs ---- */

/* One job; by itself it adds the row `name` (when there is one) and ends with `outcome`. */
struct item_job {
    struct db_job job;
    const char *name;
    int64_t number;
    enum status outcome;
    sem_t finished;
};

static inline enum status run_item(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct item_job *item = OWNER(job, struct item_job, job);
    enum status status = item->name ? db_run(conn, ADD, err, "ti", item->name, item->number) : STATUS_OK;
    return status == STATUS_OK && item->outcome != STATUS_OK ? err_set(err, item->outcome, "as the test wants")
                                                             : status;
}

static inline void item_finished(struct db_job *job)
{
    sem_post(&OWNER(job, struct item_job, job)->finished);
}

static inline void item_init(struct item_job *item, const char *name)
{
    *item = (struct item_job){.name = name, .job = {.run = run_item, .done = item_finished, .durable = true}};
    assert_int_equal(sem_init(&item->finished, 0, 0), 0);
}

static inline enum status item_wait(struct item_job *item)
{
    wait_for(&item->finished);
    sem_destroy(&item->finished);
    return item->job.err.status;
}

/* Runs one job of the given kind and waits for its end. */
static inline enum status item_commit(struct db *db, struct item_job *item)
{
    db_submit(db, &item->job);
    return item_wait(item);
}

static inline enum status add_item(struct db *db, const char *name)
{
    struct item_job item;
    item_init(&item, name);
    return item_commit(db, &item);
}

/* ---- what is stored ---- */

/* Rows of that name, or all for "". */
static inline int64_t count_items(struct db *db, const char *name)
{
    struct err err = {0};
    struct db_conn *conn = db_reader_get(db);
    struct db_rows rows = {0};
    enum status status = db_query(conn, SELECT_COUNT, &rows, &err, "t", name);
    if (status == STATUS_OK)
        status = db_next(&rows, &err);
    int64_t count = status == STATUS_OK ? db_int(&rows, 0) : -1;
    db_rows_done(&rows);
    db_reader_put(db, conn);
    if (count < 0)
        fail_msg("%s", err.text);
    return count;
}

#endif
