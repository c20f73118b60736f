/* A store of playlists in a folder of its own; writes, steps and links that the test waits for. */
#ifndef TESTS_PLAYLISTS_FIXTURE_H
#define TESTS_PLAYLISTS_FIXTURE_H

#include "temp_folder.h"

#include <sqlite3.h>
#include <string.h>

#include "playlists/store.h"

#define TRACE "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

struct fixture {
    char *folder, *path;
    struct store *store;
};

static inline void open_store(struct fixture *fixture)
{
    struct err err = {0};
    const struct store_config config = {.path = fixture->path, .readers = 2};
    if (store_open(&fixture->store, &config, &err) != STATUS_OK)
        fail_msg("%s", err.text);
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
    fixture->path = mem_format("%s/playlists.db", fixture->folder);
    open_store(fixture);
    *state = fixture;
    return 0;
}

static inline int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    store_close(fixture->store);
    free(fixture->path);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, new_fixture, free_fixture)

/* ---- the file beside the store, as an operator might look at it ---- */

static inline void run_beside(struct fixture *fixture, const char *sql)
{
    sqlite3 *handle = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &handle), SQLITE_OK);
    if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

/* The only number that a query gives. */
static inline int64_t number_beside(struct fixture *fixture, const char *sql)
{
    sqlite3 *handle = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open_v2(fixture->path, &handle, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    return number;
}

/* ---- writes ---- */

static inline void write_is_done(struct store_write *write)
{
    sem_post(write->arg);
}

static inline enum status run_write(struct fixture *fixture, struct store_write *write)
{
    sem_t done;
    sem_init(&done, 0, 0);
    write->arg = &done;
    write->done = write_is_done;
    store_submit(fixture->store, write);
    wait_for(&done);
    sem_destroy(&done);
    return write->err.status;
}

/* A write whose change is that JSON text ("" for none). store_write_done it. */
static inline struct store_write new_write(enum store_write_kind kind, const char *id, const char *text)
{
    struct store_write write = {.kind = kind};
    struct problems problems = {0};
    (void)text_copy(write.id, sizeof write.id, id);
    if (!*text)
        return write;
    CLEANUP(json_free) cJSON *document = NULL;
    assert_int_equal(json_parse(text, strlen(text), &document, NULL), STATUS_OK);
    if (playlist_decode(document, kind == STORE_CREATE ? JSON_CREATE : JSON_CHANGE, &write.change, &problems) !=
        STATUS_OK)
        fail_msg("%s: %s %s", text, problems.items[0].pointer, problems.items[0].detail);
    return write;
}

/* ---- reads ---- */

/* playlist_done it. */
static inline struct playlist get(struct fixture *fixture, const char *id)
{
    struct playlist playlist = {0};
    struct err err = {0};
    if (store_get(fixture->store, id, &playlist, &err) != STATUS_OK)
        fail_msg("%s: not there: %s", id, err.text);
    return playlist;
}

static inline void assert_gone(struct fixture *fixture, const char *id)
{
    struct playlist playlist = {0};
    assert_int_equal(store_get(fixture->store, id, &playlist, NULL), STATUS_NOT_FOUND);
}

static inline void assert_same(const struct playlist *a, const struct playlist *b)
{
    CLEANUP(buf_done) struct buf first, second;
    buf_init(&first, 1 << 20);
    buf_init(&second, 1 << 20);
    playlist_put_json(&first, a);
    playlist_put_json(&second, b);
    assert_string_equal(buf_get(&first), buf_get(&second));
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->version, b->version);
}

/* ---- steps of a delivery ---- */

struct step {
    struct store_step step;
    sem_t done;
};

static inline void step_is_done(struct store_step *step)
{
    sem_post(&OWNER(step, struct step, step)->done);
}

/* Runs the step of that kind for the request; the others of its members are the caller's. */
static inline enum status run_step(struct fixture *fixture, struct step *step, enum store_step_kind kind,
                                   const char *soiree_id, const char *message_id)
{
    sem_init(&step->done, 0, 0);
    step->step.kind = kind;
    step->step.soiree_id = soiree_id;
    step->step.message_id = message_id;
    step->step.done = step_is_done;
    store_step(fixture->store, &step->step);
    wait_for(&step->done);
    sem_destroy(&step->done);
    return step->step.err.status;
}

static inline struct store_step begin(struct fixture *fixture, const char *soiree_id, const char *message_id,
                                      bool redelivered)
{
    struct step step = {.step = {.redelivered = redelivered}};
    assert_int_equal(run_step(fixture, &step, STORE_BEGIN, soiree_id, message_id), STATUS_OK);
    return step.step;
}

static inline bool begin_first(struct fixture *fixture, const char *soiree_id, const char *message_id,
                               bool redelivered)
{
    struct store_step step = {.soiree_id = soiree_id, .message_id = message_id, .redelivered = redelivered};
    bool first = store_begin_first(fixture->store, &step);
    if (first && (step.next != STORE_NEXT_GENERATE || step.starts != 1 || step.failures != 0))
        fail_msg("not what STORE_BEGIN says");
    return first;
}

/* Saves a playlist for the request; *ret_link only when it is not NULL. */
static inline enum status save(struct fixture *fixture, const char *soiree_id, const char *message_id,
                               struct link *ret_link)
{
    CLEANUP(playlist_done) struct playlist playlist = {
        .nom = "Disco", .description = "d", .origine = "defaut",
        .styles = {.json = mem_text("[\"disco\"]"), .count = 1}, .tracks = {.json = mem_text("[\"t\"]"), .count = 1}};
    (void)text_copy(playlist.soiree_id, sizeof playlist.soiree_id, soiree_id);
    struct step step = {.step = {.playlist = &playlist, .request_id = message_id, .traceparent = TRACE}};
    enum status status = run_step(fixture, &step, STORE_SAVE, soiree_id, message_id);
    if (ret_link)
        *ret_link = step.step.link;
    return status;
}

/* ---- pending links ---- */

static inline void links_are_done(struct store_links *links)
{
    sem_post(links->arg);
}

static inline enum status run_links(struct fixture *fixture, struct store_links *links, enum store_links_kind kind)
{
    sem_t done;
    sem_init(&done, 0, 0);
    links->kind = kind;
    links->done = links_are_done;
    links->arg = &done;
    store_links(fixture->store, links);
    wait_for(&done);
    sem_destroy(&done);
    return links->err.status;
}

#endif
