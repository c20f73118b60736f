/* Opening, migrating, reading, statements. The writer's thread has its own program, test_db_writer.c. */
#include "db_fixture.h"

#include <float.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static bool exists(const char *folder, const char *name)
{
    CLEANUP(free_text) char *path = mem_format("%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* ---- opening ---- */

static void test_opening_creates_the_folders_the_file_and_the_schema(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *path = mem_format("%s/a/b/c/test.db", fixture->folder);
    fixture->config.path = path;
    fixture_open(fixture);
    assert_true(exists(fixture->folder, "a/b/c/test.db"));
    assert_true(exists(fixture->folder, "a/b/c/test.db.lock"));
    assert_int_equal(count_items(fixture->db, ""), 0);
    assert_int_equal(add_item(fixture->db, "disco"), STATUS_OK);
    assert_int_equal(count_items(fixture->db, "disco"), 1);
    fixture_close(fixture);
}

static void test_what_was_stored_is_there_after_opening_again(void **state)
{
    struct fixture *fixture = *state;
    for (int round = 0; round < 3; round++) {
        char name[] = "0";
        name[0] = (char)('0' + round);
        fixture_open(fixture);
        assert_int_equal(count_items(fixture->db, ""), round);
        assert_int_equal(add_item(fixture->db, name), STATUS_OK);
        fixture_close(fixture);
    }
    assert_false(exists(fixture->folder, "test.db-wal")); /* the last close has moved it into the file */
}

static void test_a_second_open_is_refused_while_the_first_lives(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    struct db *second = NULL;
    struct err err = {0};
    assert_int_equal(db_open(&second, &fixture->config, &err), STATUS_BUSY);
    assert_null(second);
    assert_int_equal(err.status, STATUS_BUSY);
    assert_non_null(strstr(err.text, fixture->path));
    assert_non_null(strstr(err.text, "another process"));

    assert_int_equal(add_item(fixture->db, "unharmed"), STATUS_OK);
    fixture_close(fixture);
    fixture_open(fixture); /* the lock goes with its owner, not with its file */
    assert_true(exists(fixture->folder, "test.db.lock"));
    assert_int_equal(count_items(fixture->db, "unharmed"), 1);
}

/* Expects the open to fail, and cleanly. */
static enum status open_fails(struct fixture *fixture, struct err *err)
{
    struct db *none = NULL;
    *err = (struct err){0};
    enum status status = db_open(&none, &fixture->config, err);
    if (status == STATUS_OK)
        db_close(none);
    assert_int_not_equal(status, STATUS_OK);
    assert_null(none);
    assert_int_equal(err->status, status);
    return status;
}

static const struct db_migration two_steps[] = {
    {"0001-create", "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, number INTEGER,"
                    " weight REAL) STRICT"},
    {"0002-number", "INSERT INTO items (name, number) VALUES ('migrated', 7); UPDATE items SET number = number + 1"},
};

static void test_migrations_run_once_and_in_order(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    assert_int_equal(add_item(fixture->db, "old"), STATUS_OK);
    fixture_close(fixture);
    fixture->config.migrations = two_steps;
    fixture->config.migration_count = COUNT(two_steps);
    for (int round = 0; round < 2; round++) {
        fixture_open(fixture);
        assert_int_equal(count_items(fixture->db, "old"), 1);
        assert_int_equal(count_items(fixture->db, "migrated"), 1); /* UNIQUE: a second run would fail */
        fixture_close(fixture);
    }
}

static void test_a_migration_that_fails_leaves_everything_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    static const struct db_migration broken[] = {
        {"0001-create", "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, number INTEGER,"
                        " weight REAL) STRICT"},
        {"0002-half", "INSERT INTO items (name) VALUES ('half'); DELETE FROM no_such_table"},
    };
    struct err err;
    fixture_open(fixture);
    fixture_close(fixture);
    fixture->config.migrations = broken;
    fixture->config.migration_count = COUNT(broken);
    assert_int_equal(open_fails(fixture, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "no_such_table"));

    fixture->config.migrations = fixture_schema;
    fixture->config.migration_count = COUNT(fixture_schema);
    fixture_open(fixture); /* still the first version, and not locked */
    assert_int_equal(count_items(fixture->db, ""), 0);
}

static void test_a_schema_newer_than_the_program_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct err err;
    fixture->config.migrations = two_steps;
    fixture->config.migration_count = COUNT(two_steps);
    fixture_open(fixture);
    fixture_close(fixture);
    fixture->config.migration_count = 1;
    assert_int_equal(open_fails(fixture, &err), STATUS_IO);
    assert_non_null(strstr(err.text, fixture->path));
    assert_non_null(strstr(err.text, "newer"));
    fixture->config.migration_count = 2;
    fixture_open(fixture);
    assert_int_equal(count_items(fixture->db, "migrated"), 1);
}

/* ---- files that cannot be used: the error names the file ---- */

static void assert_says(const struct err *err, const char *path, const char *why)
{
    assert_int_equal(err->status, STATUS_IO);
    if (!strstr(err->text, path))
        fail_msg("the error does not name %s: %s", path, err->text);
    if (!strstr(err->text, why))
        fail_msg("the error does not say '%s': %s", why, err->text);
}

static void assert_unusable(struct fixture *fixture, const char *path, const char *why)
{
    struct err err;
    fixture->config.path = path;
    (void)open_fails(fixture, &err);
    assert_says(&err, fixture->folder, why);
}

/* The same as a user without privileges, in a process of its own: root may write what is read-only. */
static void assert_unusable_unprivileged(struct fixture *fixture, const char *path, const char *why)
{
    struct err *err = mmap(NULL, sizeof *err, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(err, MAP_FAILED);
    fixture->config.path = path;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct db *db = NULL;
        if (getuid() == 0 && setuid(65534) != 0)
            _exit(1);
        err->status = db_open(&db, &fixture->config, err);
        _exit(0);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    struct err found = *err;
    assert_int_equal(munmap(err, sizeof *err), 0);
    assert_says(&found, fixture->folder, why);
}

static void test_a_folder_is_no_database(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *folder = mem_format("%s/folder", fixture->folder);
    assert_int_equal(mkdir(folder, 0755), 0);
    assert_unusable(fixture, folder, "unable to open database file");
}

static void test_a_database_of_another_program_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static const struct db_migration theirs[] = {{"0001-create", "CREATE TABLE things (id INTEGER PRIMARY KEY)"}};
    static const char *const their_statements[] = {"SELECT id FROM things"};
    struct db_config config = fixture->config;
    fixture->config.migrations = theirs;
    fixture->config.statements = their_statements;
    fixture->config.statement_count = 1;
    fixture_open(fixture);
    fixture_close(fixture);
    fixture->config = config;
    assert_unusable(fixture, fixture->path, "not a database of this program (no such table: items)");
}

static void test_a_file_in_the_place_of_a_folder_is_named(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *file = mem_format("%s/file", fixture->folder);
    CLEANUP(free_text) char *path = mem_format("%s/file/deep/test.db", fixture->folder);
    write_file(file, "x", 1);
    assert_unusable(fixture, path, "Not a directory");
}

static void test_a_file_that_is_no_database_is_refused_and_left_alone(void **state)
{
    struct fixture *fixture = *state;
    static const char text[] = "this is a letter to my aunt, and by no means a database. Kind regards, and so on and "
                               "so forth, until there are more than a hundred bytes of it.";
    char after[sizeof text] = {0};
    write_file(fixture->path, text, sizeof text - 1);
    assert_unusable(fixture, fixture->path, "file is not a database");
    FILE *file = fopen(fixture->path, "re");
    assert_non_null(file);
    assert_int_equal(fread(after, 1, sizeof after, file), sizeof text - 1);
    fclose(file);
    assert_string_equal(after, text);
}

static void test_a_folder_that_is_read_only_is_named(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *below = mem_format("%s/new/test.db", fixture->folder);
    assert_int_equal(chmod(fixture->folder, 0555), 0);
    assert_unusable_unprivileged(fixture, fixture->path, "Permission denied");
    assert_unusable_unprivileged(fixture, below, "Permission denied");
    assert_int_equal(chmod(fixture->folder, 0755), 0);
}

static void test_a_file_that_is_read_only_is_named(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *lock = mem_format("%s.lock", fixture->path);
    fixture_open(fixture);
    fixture_close(fixture);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(chmod(fixture->path, 0444), 0);
    assert_int_equal(chmod(fixture->folder, 0777), 0);
    assert_unusable_unprivileged(fixture, fixture->path, "readonly");
}

/* ---- statements ---- */

struct values_job {
    struct item_job item;
    double weight;
};

static enum status run_values(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct values_job *values = OWNER(job, struct values_job, item.job);
    return db_run(conn, ADD, err, "tid", values->item.name, values->item.number, values->weight);
}

static void test_texts_integers_and_doubles_come_back_as_they_went_in(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *name;
        int64_t number;
        double weight;
    } rows[] = {
        {"", 0, 0},
        {"é 😀 'quoted' \"twice\"; DROP TABLE items --", INT64_MAX, DBL_MAX},
        {"line\nend\t\x01", INT64_MIN, -DBL_MIN},
        {"ß", -1, 0.1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct values_job values = {.weight = rows[i].weight};
        item_init(&values.item, rows[i].name);
        values.item.number = rows[i].number;
        values.item.job.run = run_values;
        assert_int_equal(item_commit(fixture->db, &values.item), STATUS_OK);
    }
    struct err err = {0};
    struct db_conn *conn = db_reader_get(fixture->db);
    struct db_rows found = {0};
    assert_int_equal(db_query(conn, ALL, &found, &err, ""), STATUS_OK);
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(db_next(&found, &err), STATUS_OK);
        assert_string_equal(db_text(&found, 0), rows[i].name);
        assert_true(db_int(&found, 1) == rows[i].number);
        assert_true(db_double(&found, 2) == rows[i].weight);
    }
    assert_int_equal(db_next(&found, &err), STATUS_NOT_FOUND);
    db_rows_done(&found);
    db_rows_done(&found); /* twice is fine */
    db_reader_put(fixture->db, conn);
}

static void test_null_is_told_from_an_empty_text(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(add_item(fixture->db, ""), STATUS_OK);
    struct err err = {0};
    struct db_conn *conn = db_reader_get(fixture->db);
    struct db_rows found = {0};
    assert_int_equal(db_query(conn, ALL, &found, &err, ""), STATUS_OK);
    assert_int_equal(db_next(&found, &err), STATUS_OK);
    assert_false(db_is_null(&found, 0));
    assert_string_equal(db_text(&found, 0), "");
    assert_true(db_is_null(&found, 2)); /* never bound: NULL, not the weight of an earlier run */
    assert_string_equal(db_text(&found, 2), "");
    assert_int_equal(db_int(&found, 2), 0);
    db_rows_done(&found);
    db_reader_put(fixture->db, conn);
}

static enum status run_without_a_name(struct db_job *job, struct db_conn *conn, struct err *err)
{
    (void)job;
    return db_run(conn, ADD, err, "ti", (const char *)NULL, (int64_t)1);
}

static enum status run_of_the_wrong_type(struct db_job *job, struct db_conn *conn, struct err *err)
{
    (void)job;
    return db_run(conn, ADD, err, "tt", "wrong", "not a number");
}

static void test_a_violated_constraint_says_which(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        enum status (*run)(struct db_job *job, struct db_conn *conn, struct err *err);
        enum status status;
        const char *text;
    } cases[] = {
        {run_item, STATUS_CONFLICT, "UNIQUE constraint failed: items.name"},
        {run_without_a_name, STATUS_INTERNAL, "NOT NULL constraint failed: items.name"},
        {run_of_the_wrong_type, STATUS_INTERNAL, "cannot store TEXT value in INTEGER column items.number"},
    };
    assert_int_equal(add_item(fixture->db, "once"), STATUS_OK);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct item_job item;
        item_init(&item, "once");
        item.job.run = cases[i].run;
        assert_int_equal(item_commit(fixture->db, &item), cases[i].status);
        assert_non_null(strstr(item.job.err.text, cases[i].text));
    }
    assert_int_equal(count_items(fixture->db, ""), 1);
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_OK); /* the caller's fault, not the database's */
}

struct changes_job {
    struct item_job item;
    int64_t changes[3], rowid;
};

static enum status run_changes(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct changes_job *changes = OWNER(job, struct changes_job, item.job);
    enum status status = db_run(conn, ADD, err, "ti", "counted", (int64_t)1);
    changes->changes[0] = db_changes(conn);
    changes->rowid = db_last_rowid(conn);
    if (status == STATUS_OK)
        status = db_run(conn, REMOVE, err, "t", "nobody");
    changes->changes[1] = db_changes(conn);
    if (status == STATUS_OK)
        status = db_run(conn, REMOVE, err, "t", "counted");
    changes->changes[2] = db_changes(conn);
    return status;
}

static void test_changes_and_rowids_are_those_of_the_last_run(void **state)
{
    struct fixture *fixture = *state;
    struct changes_job changes = {.rowid = 0};
    assert_int_equal(add_item(fixture->db, "first"), STATUS_OK);
    item_init(&changes.item, NULL);
    changes.item.job.run = run_changes;
    assert_int_equal(item_commit(fixture->db, &changes.item), STATUS_OK);
    assert_int_equal(changes.changes[0], 1);
    assert_int_equal(changes.rowid, 2);
    assert_int_equal(changes.changes[1], 0);
    assert_int_equal(changes.changes[2], 1);
}

/* ---- readers ---- */

static void test_a_reader_cannot_write(void **state)
{
    struct fixture *fixture = *state;
    struct err err = {0};
    struct db_conn *conn = db_reader_get(fixture->db);
    assert_int_equal(db_run(conn, ADD, &err, "ti", "smuggled", (int64_t)1), STATUS_IO);
    assert_non_null(strstr(err.text, "readonly"));
    db_reader_put(fixture->db, conn);
    assert_int_equal(count_items(fixture->db, ""), 0);
}

struct reader_thread {
    struct db *db;
    struct db_conn *conn;
    atomic_bool given_back, got_before;
    sem_t asking;
};

static void *ask_for_a_reader(void *arg)
{
    struct reader_thread *thread = arg;
    sem_post(&thread->asking);
    thread->conn = db_reader_get(thread->db);
    atomic_store(&thread->got_before, !atomic_load(&thread->given_back));
    db_reader_put(thread->db, thread->conn);
    return NULL;
}

static void test_who_finds_no_reader_free_waits_for_one(void **state)
{
    struct fixture *fixture = *state;
    struct reader_thread thread = {.db = fixture->db};
    pthread_t id;
    sem_init(&thread.asking, 0, 0);
    struct db_conn *first = db_reader_get(fixture->db), *second = db_reader_get(fixture->db);
    assert_ptr_not_equal(first, second);
    assert_int_equal(pthread_create(&id, NULL, ask_for_a_reader, &thread), 0);
    wait_for(&thread.asking);
    atomic_store(&thread.given_back, true);
    db_reader_put(fixture->db, second);
    assert_int_equal(pthread_join(id, NULL), 0);
    assert_false(atomic_load(&thread.got_before));
    assert_ptr_equal(thread.conn, second);
    db_reader_put(fixture->db, first);
    sem_destroy(&thread.asking);
}

static void test_an_open_query_sees_one_state_whatever_is_committed(void **state)
{
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_int_equal(add_item(fixture->db, "a"), STATUS_OK);
    assert_int_equal(add_item(fixture->db, "b"), STATUS_OK);
    struct db_conn *conn = db_reader_get(fixture->db);
    struct db_rows rows = {0};
    assert_int_equal(db_query(conn, ALL, &rows, &err, ""), STATUS_OK);
    assert_int_equal(db_next(&rows, &err), STATUS_OK);
    assert_int_equal(add_item(fixture->db, "c"), STATUS_OK); /* neither waits for the other */
    assert_int_equal(count_items(fixture->db, ""), 3);
    assert_int_equal(db_next(&rows, &err), STATUS_OK);
    assert_string_equal(db_text(&rows, 0), "b");
    assert_int_equal(db_next(&rows, &err), STATUS_NOT_FOUND);
    db_rows_done(&rows);
    db_reader_put(fixture->db, conn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_CLOSED(test_opening_creates_the_folders_the_file_and_the_schema),
        TEST_CLOSED(test_what_was_stored_is_there_after_opening_again),
        TEST_CLOSED(test_a_second_open_is_refused_while_the_first_lives),
        TEST_CLOSED(test_migrations_run_once_and_in_order),
        TEST_CLOSED(test_a_migration_that_fails_leaves_everything_as_it_was),
        TEST_CLOSED(test_a_schema_newer_than_the_program_is_refused),
        TEST_CLOSED(test_a_folder_is_no_database),
        TEST_CLOSED(test_a_database_of_another_program_is_refused),
        TEST_CLOSED(test_a_file_in_the_place_of_a_folder_is_named),
        TEST_CLOSED(test_a_file_that_is_no_database_is_refused_and_left_alone),
        TEST_CLOSED(test_a_folder_that_is_read_only_is_named),
        TEST_CLOSED(test_a_file_that_is_read_only_is_named),
        TEST_OPEN(test_texts_integers_and_doubles_come_back_as_they_went_in),
        TEST_OPEN(test_null_is_told_from_an_empty_text),
        TEST_OPEN(test_a_violated_constraint_says_which),
        TEST_OPEN(test_changes_and_rowids_are_those_of_the_last_run),
        TEST_OPEN(test_a_reader_cannot_write),
        TEST_OPEN(test_who_finds_no_reader_free_waits_for_one),
        TEST_OPEN(test_an_open_query_sees_one_state_whatever_is_committed),
    };
    return cmocka_run_group_tests_name("db", tests, NULL, NULL);
}
