/* Idempotency-Key: what was made with a key is found for 24 hours, and only for the same document. */
#include "temp_folder.h"

#include <string.h>

#include "idempotency.h"

enum { IDEMPOTENCY, SELECT_COUNT = IDEMPOTENCY + IDEMPOTENCY_STATEMENTS, STATEMENTS };
static const int64_t hour_ms = 3600 * 1000, begin_ms = 1764671400000;

static const char *const statements[STATEMENTS] = {
    [IDEMPOTENCY] = IDEMPOTENCY_SQL,
    [SELECT_COUNT] = "SELECT count(*) FROM idempotency",
};

static const struct db_migration schema[] = {
    {"0001-create", "CREATE TABLE idempotency (key TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL,"
                    " item_id TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID"},
};

struct fixture {
    char *folder, *path;
    struct db *db;
};

static int open_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    struct err err = {0};
    fixture->folder = temp_folder();
    fixture->path = mem_format("%s/test.db", fixture->folder);
    const struct db_config config = {.path = fixture->path,
                                     .migrations = schema,
                                     .migration_count = COUNT(schema),
                                     .statements = statements,
                                     .statement_count = STATEMENTS,
                                     .readers = 1};
    if (db_open(&fixture->db, &config, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    *state = fixture;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *fixture = *state;
    db_close(fixture->db);
    free(fixture->path);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

/* One use of a key, in a job of the writer. */
struct use {
    const char *key, *document, *id; /* id: to be kept; NULL: to be found */
    int64_t now_ms;
    char found[64];
    struct db_job job;
    sem_t finished;
};

static enum status run_use(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct use *use = OWNER(job, struct use, job);
    if (use->id)
        return idempotency_keep(conn, IDEMPOTENCY, use->key, use->document, use->id, use->now_ms, err);
    return idempotency_find(conn, IDEMPOTENCY, use->key, use->document, use->now_ms, use->found, sizeof use->found,
                            err);
}

static void use_finished(struct db_job *job)
{
    sem_post(&OWNER(job, struct use, job)->finished);
}

static enum status run(struct fixture *fixture, struct use *use)
{
    use->job = (struct db_job){.run = run_use, .done = use_finished};
    assert_int_equal(sem_init(&use->finished, 0, 0), 0);
    db_submit(fixture->db, &use->job);
    wait_for(&use->finished);
    sem_destroy(&use->finished);
    return use->job.err.status;
}

static void keep(struct fixture *fixture, const char *key, const char *document, const char *id, int64_t now_ms)
{
    struct use use = {.key = key, .document = document, .id = id, .now_ms = now_ms};
    assert_int_equal(run(fixture, &use), STATUS_OK);
}

static void assert_found(struct fixture *fixture, const char *key, const char *document, int64_t now_ms,
                         const char *id)
{
    struct use use = {.key = key, .document = document, .now_ms = now_ms};
    assert_int_equal(run(fixture, &use), STATUS_OK);
    assert_string_equal(use.found, id);
}

static void assert_not_found(struct fixture *fixture, const char *key, const char *document, int64_t now_ms,
                             enum status status)
{
    struct use use = {.key = key, .document = document, .now_ms = now_ms, .found = "untouched"};
    assert_int_equal(run(fixture, &use), status);
    assert_string_equal(use.found, "untouched");
}

static int64_t kept(struct fixture *fixture)
{
    struct db_conn *conn = db_reader_get(fixture->db);
    struct db_rows rows = {0};
    assert_int_equal(db_query(conn, SELECT_COUNT, &rows, NULL, ""), STATUS_OK);
    assert_int_equal(db_next(&rows, NULL), STATUS_OK);
    int64_t count = db_int(&rows, 0);
    db_rows_done(&rows);
    db_reader_put(fixture->db, conn);
    return count;
}

static void test_a_new_key_finds_nothing(void **state)
{
    assert_not_found(*state, "key", "{}", begin_ms, STATUS_NOT_FOUND);
    keep(*state, "key", "{}", "item", begin_ms);
    assert_not_found(*state, "KEY", "{}", begin_ms, STATUS_NOT_FOUND);
    assert_not_found(*state, "key ", "{}", begin_ms, STATUS_NOT_FOUND);
    assert_not_found(*state, "ke", "{}", begin_ms, STATUS_NOT_FOUND);
}

static void test_the_same_key_and_document_find_what_was_made(void **state)
{
    keep(*state, "key", "{\"lieu\":\"é\"}", "item", begin_ms);
    keep(*state, "key 2", "{\"lieu\":\"é\"}", "other", begin_ms);
    for (int round = 0; round < 2; round++) {
        assert_found(*state, "key", "{\"lieu\":\"é\"}", begin_ms + round, "item");
        assert_found(*state, "key 2", "{\"lieu\":\"é\"}", begin_ms + round, "other");
    }
}

static void test_a_key_used_for_another_document_is_refused(void **state)
{
    struct use use = {.key = "key", .document = "{\"a\":2}", .now_ms = begin_ms};
    keep(*state, "key", "{\"a\":1}", "item", begin_ms);
    assert_int_equal(run(*state, &use), STATUS_INVALID);
    assert_string_equal(use.job.err.text, "Cette Idempotency-Key a déjà servi pour un autre document");
    assert_not_found(*state, "key", "", begin_ms, STATUS_INVALID);
    assert_not_found(*state, "key", "{\"A\":1}", begin_ms, STATUS_INVALID);
    assert_found(*state, "key", "{\"a\":1}", begin_ms, "item");
}

static void test_a_key_is_kept_for_24_hours(void **state)
{
    keep(*state, "key", "{}", "item", begin_ms);
    assert_found(*state, "key", "{}", begin_ms + 24 * hour_ms - 1, "item");
    assert_not_found(*state, "key", "{\"a\":1}", begin_ms + 24 * hour_ms - 1, STATUS_INVALID);
    assert_not_found(*state, "key", "{}", begin_ms + 24 * hour_ms, STATUS_NOT_FOUND);
    assert_not_found(*state, "key", "{\"a\":1}", begin_ms + 24 * hour_ms, STATUS_NOT_FOUND);

    keep(*state, "key", "{\"a\":1}", "later", begin_ms + 24 * hour_ms); /* used anew */
    assert_found(*state, "key", "{\"a\":1}", begin_ms + 47 * hour_ms, "later");
}

static void test_each_new_key_forgets_some_that_have_expired(void **state)
{
    enum { OLD = 40 };
    for (int i = 0; i < OLD; i++) {
        CLEANUP(free_text) char *key = mem_format("old %d", i);
        keep(*state, key, "{}", "item", begin_ms + i);
    }
    assert_int_equal(kept(*state), OLD);
    keep(*state, "young", "{}", "item", begin_ms + 10 * hour_ms);
    assert_int_equal(kept(*state), OLD + 1);
    for (int round = 0; round < 4; round++) {
        CLEANUP(free_text) char *key = mem_format("new %d", round);
        keep(*state, key, "{}", "item", begin_ms + 25 * hour_ms);
    }
    assert_int_equal(kept(*state), 5); /* so the table does not grow for ever */
    assert_found(*state, "young", "{}", begin_ms + 25 * hour_ms, "item");
    assert_found(*state, "new 0", "{}", begin_ms + 25 * hour_ms, "item");
}

static void test_an_id_longer_than_the_caller_has_room_for_is_cut(void **state)
{
    char id[200];
    memset(id, 'x', sizeof id - 1);
    id[sizeof id - 1] = '\0';
    keep(*state, "key", "{}", id, begin_ms);
    struct use use = {.key = "key", .document = "{}", .now_ms = begin_ms};
    assert_int_equal(run(*state, &use), STATUS_OK);
    assert_int_equal(strlen(use.found), sizeof use.found - 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_key_finds_nothing),
        TEST(test_the_same_key_and_document_find_what_was_made),
        TEST(test_a_key_used_for_another_document_is_refused),
        TEST(test_a_key_is_kept_for_24_hours),
        TEST(test_each_new_key_forgets_some_that_have_expired),
        TEST(test_an_id_longer_than_the_caller_has_room_for_is_cut),
    };
    return cmocka_run_group_tests_name("idempotency", tests, NULL, NULL);
}
