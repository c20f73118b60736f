/* A store of bookings in a folder of its own, and writes that the test waits for. Where STORE_URL names a
 * PostgreSQL server (`postgresql://…/`, its user may create databases) the store is a database of its own
 * there. */
#ifndef TESTS_SOIREES_FIXTURE_H
#define TESTS_SOIREES_FIXTURE_H

#include "temp_folder.h"

#include <libpq-fe.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

#include "soirees/store.h"

#define BOOKING "\"clientId\":\"c\",\"date\":\"2025-12-31\",\"lieu\":\"l\",\"nombreInvites\":1"
#define TRACE "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

struct fixture {
    char *folder, *path, *url; /* url NULL: SQLite */
    struct store_config config;
    struct store *store;
    _Atomic int64_t again_after_ms;
    atomic_int wakes; /* of the relay */
};

static inline void count_wake(void *arg)
{
    atomic_fetch_add(&((struct fixture *)arg)->wakes, 1);
}

/* A server is there some time after the store was opened. */
static inline void open_store(struct fixture *fixture)
{
    struct err err = {0};
    int64_t since_ms, end_ms = clock_mono_ms() + WAIT_MAX_S * 1000;
    if (store_open(&fixture->store, &fixture->config, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    store_on_outbox(fixture->store, count_wake, fixture);
    while (store_health(fixture->store, &since_ms, &err) != STATUS_OK) {
        if (clock_mono_ms() > end_ms)
            fail_msg("%s", err.text);
        (void)usleep(1000);
    }
}

static inline void run_at(const char *url, const char *sql)
{
    PGconn *connection = PQconnectdb(url);
    PGresult *result = PQexec(connection, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(connection));
    PQclear(result);
    PQfinish(connection);
}

/* An empty database; free() its URL. */
static inline char *new_database(const char *server)
{
    static int count;
    CLEANUP(free_text) char *admin = mem_format("%spostgres", server);
    CLEANUP(free_text) char *sql = mem_format("CREATE DATABASE unit_%d_%d", (int)getpid(), ++count);
    run_at(admin, sql);
    return mem_format("%sunit_%d_%d", server, (int)getpid(), count);
}

static inline void close_store(struct fixture *fixture)
{
    store_close(fixture->store);
    fixture->store = NULL;
}

static inline int new_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    fixture->folder = temp_folder();
    fixture->path = mem_format("%s/soirees.db", fixture->folder);
    if (getenv("STORE_URL"))
        fixture->url = new_database(getenv("STORE_URL"));
    fixture->again_after_ms = 1000000;
    fixture->config = (struct store_config){
        .path = fixture->path, .url = fixture->url, .readers = 2, .again_after_ms = &fixture->again_after_ms};
    open_store(fixture);
    *state = fixture;
    return 0;
}

static inline int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    store_close(fixture->store);
    free(fixture->path);
    free(fixture->url);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, new_fixture, free_fixture)

/* Runs SQL on the file beside the store, as an operator might. */
static inline void run_beside(struct fixture *fixture, const char *sql)
{
    sqlite3 *handle = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &handle), SQLITE_OK);
    if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

/* Has the rows fail that are written into the table, where the condition holds. */
static inline void refuse_rows(struct fixture *fixture, const char *table, const char *condition)
{
    CLEANUP(free_text)
    char *sql = fixture->url
                    ? mem_format("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                                 " $$BEGIN RAISE EXCEPTION 'refused'; END$$;"
                                 "CREATE TRIGGER refuse BEFORE INSERT ON soirees.%s FOR EACH ROW"
                                 " WHEN (%s) EXECUTE FUNCTION refuse()",
                                 table, condition)
                    : mem_format("CREATE TRIGGER refuse BEFORE INSERT ON %s WHEN %s"
                                 " BEGIN SELECT RAISE(ABORT, 'refused'); END",
                                 table, condition);
    if (fixture->url)
        run_at(fixture->url, sql);
    else
        run_beside(fixture, sql);
}

/* ---- writes ---- */

static inline void post_done(struct store_write *write)
{
    sem_post(write->arg);
}

static inline enum status run_write(struct fixture *fixture, struct store_write *write)
{
    sem_t done;
    sem_init(&done, 0, 0);
    write->arg = &done;
    write->done = post_done;
    store_submit(fixture->store, write);
    wait_for(&done);
    sem_destroy(&done);
    return write->err.status;
}

/* A write whose change is that JSON text ("" for none). */
static inline struct store_write new_write(enum store_write_kind kind, const char *id, const char *text)
{
    struct store_write write = {.kind = kind, .traceparent = TRACE};
    struct problems problems = {0};
    (void)text_copy(write.id, sizeof write.id, id);
    if (!*text)
        return write;
    CLEANUP(json_free) cJSON *document = NULL;
    assert_int_equal(json_parse(text, strlen(text), &document, NULL), STATUS_OK);
    if (soiree_decode(document, kind == STORE_CREATE ? JSON_CREATE : JSON_CHANGE, &write.change, &problems) != STATUS_OK)
        fail_msg("%s: %s %s", text, problems.items[0].pointer, problems.items[0].detail);
    return write;
}

static inline struct soiree book(struct fixture *fixture, const char *text)
{
    struct store_write write = new_write(STORE_CREATE, "", text);
    if (run_write(fixture, &write) != STATUS_OK)
        fail_msg("%s", write.err.text);
    return write.soiree;
}

static inline struct soiree change(struct fixture *fixture, const char *id, const char *text)
{
    struct store_write write = new_write(STORE_CHANGE, id, text);
    if (run_write(fixture, &write) != STATUS_OK)
        fail_msg("%s", write.err.text);
    return write.soiree;
}

/* The worker's link; *ret_soiree only when it is not NULL. */
static inline enum status link_playlist(struct fixture *fixture, const char *id, const char *request_id,
                                        const char *playlist_id, struct soiree *ret_soiree)
{
    struct store_write write = new_write(STORE_LINK, id, "");
    (void)text_copy(write.request_id, sizeof write.request_id, request_id);
    (void)text_copy(write.change.values.playlist_id, sizeof write.change.values.playlist_id, playlist_id);
    write.change.present = 1U << SOIREE_PLAYLIST_ID;
    enum status status = run_write(fixture, &write);
    if (ret_soiree)
        *ret_soiree = write.soiree;
    return status;
}

static inline enum status delete_soiree(struct fixture *fixture, const char *id)
{
    struct store_write write = new_write(STORE_DELETE, id, "");
    return run_write(fixture, &write);
}

/* ---- reads ---- */

static inline struct soiree get(struct fixture *fixture, const char *id)
{
    struct soiree soiree;
    struct err err = {0};
    if (store_get(fixture->store, id, &soiree, &err) != STATUS_OK)
        fail_msg("%s: not there: %s", id, err.text);
    return soiree;
}

static inline void assert_gone(struct fixture *fixture, const char *id)
{
    struct soiree soiree;
    assert_int_equal(store_get(fixture->store, id, &soiree, NULL), STATUS_NOT_FOUND);
}

static inline void assert_same(const struct soiree *a, const struct soiree *b)
{
    CLEANUP(buf_done) struct buf first, second;
    buf_init(&first, 64 * 1024);
    buf_init(&second, 64 * 1024);
    soiree_put_json(&first, a);
    soiree_put_json(&second, b);
    assert_string_equal(buf_get(&first), buf_get(&second));
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->version, b->version);
    assert_string_equal(a->request_id, b->request_id);
}

/* ---- the outbox ---- */

enum { ROWS_MAX = 64 };
struct rows {
    struct outbox_row rows[ROWS_MAX];
    size_t count;
};

static inline void drop_rows(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        free(rows->rows[i].body);
    rows->count = 0;
}

/* drop_rows it. */
static inline struct rows unsent(struct fixture *fixture, int64_t after, size_t max)
{
    struct rows rows = {.count = 0};
    struct err err = {0};
    if (store_outbox_unsent(fixture->store, after, max, rows.rows, &rows.count, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return rows;
}

static inline size_t count_unsent(struct fixture *fixture)
{
    struct rows rows = unsent(fixture, 0, ROWS_MAX);
    size_t count = rows.count;
    drop_rows(&rows);
    return count;
}

/* The only unsent row is that booking's current request; returns its sequence number. */
static inline int64_t assert_only_request(struct fixture *fixture, const struct soiree *soiree)
{
    CLEANUP(drop_rows) struct rows rows = unsent(fixture, 0, ROWS_MAX);
    assert_int_equal(rows.count, 1);
    assert_int_equal(strlen(rows.rows[0].message_id), 36);
    assert_string_equal(rows.rows[0].message_id, soiree->request_id);
    assert_string_equal(rows.rows[0].soiree_id, soiree->id);
    assert_string_equal(rows.rows[0].traceparent, TRACE);
    CLEANUP(free_text) char *begin = mem_format("{\"soireeId\":\"%s\",\"clientId\":\"%s\",\"style\":\"%s\",\"timestamp\":\"",
                                                soiree->id, soiree->client_id, soiree->style);
    assert_ptr_equal(strstr(rows.rows[0].body, begin), rows.rows[0].body);
    assert_int_equal(strlen(rows.rows[0].body), strlen(begin) + TIMESTAMP_SIZE - 1 + 2);
    return rows.rows[0].seq;
}

#endif
