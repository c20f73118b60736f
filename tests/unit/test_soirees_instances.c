/* Two instances on one PostgreSQL database, one lock at a time, as no load would reach it for sure. Skipped
 * without STORE_URL (see soirees_fixture.h). */
#include "soirees_fixture.h"

#include <pthread.h>

static void post_confirmed(struct store_confirm *confirm)
{
    sem_post(confirm->arg);
}

/* ---- somebody else at the database ---- */

static void run_on(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(connection));
    PQclear(result);
}

/* Holds a row until PQfinish. */
static PGconn *hold_row(const char *url, const char *table, int64_t seq)
{
    PGconn *holder = PQconnectdb(url);
    CLEANUP(free_text)
    char *sql = mem_format("SELECT FROM soirees.%s WHERE seq = %lld FOR UPDATE", table, (long long)seq);
    run_on(holder, "BEGIN");
    run_on(holder, sql);
    return holder;
}

static void wait_until_number(PGconn *connection, const char *sql, int wanted)
{
    int64_t end_ms = clock_mono_ms() + WAIT_MAX_S * 1000;
    for (;;) {
        PGresult *result = PQexec(connection, sql);
        int found = PQntuples(result) ? atoi(PQgetvalue(result, 0, 0)) : -1;
        PQclear(result);
        if (found == wanted)
            return;
        if (clock_mono_ms() > end_ms)
            fail_msg("%s: %d, not %d", sql, found, wanted);
        (void)usleep(2000);
    }
}

#define WAITING                                                                                              \
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
#define DEADLOCKS "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

/* ---- the tests ---- */

static void submit(struct store *store, struct store_write *write, sem_t *done)
{
    sem_init(done, 0, 0);
    write->arg = done;
    write->done = post_done;
    store_submit(store, write);
}

/* One instance marks a message as confirmed and then wants its booking, which the other one changes; the
 * other one wants to drop that message. Each waits for the other, and the server ends one of the two. */
static void test_two_instances_in_a_deadlock_both_get_through(void **state)
{
    struct fixture *fixture = *state, second = {0};
    if (!fixture->url)
        skip();
    second.config = fixture->config;
    open_store(&second);
    struct soiree busy = book(fixture, "{" BOOKING ",\"playlistId\":\"p\"}"),
                  wanted = book(fixture, "{" BOOKING "}");
    int64_t row = assert_only_request(fixture, &wanted);
    PGconn *watcher = PQconnectdb(fixture->url);
    PGconn *booking_held = hold_row(fixture->url, "soirees", busy.seq);
    PGconn *message_held = hold_row(fixture->url, "outbox", row);

    /* The first instance's writer is held up, so that what comes now is one batch of its own. */
    sem_t held_up, invited, styled, confirmed;
    struct store_write hold_up = new_write(STORE_CHANGE, busy.id, "{\"nombreInvites\":2}");
    submit(fixture->store, &hold_up, &held_up);
    wait_until_number(watcher, WAITING, 1);
    struct store_confirm confirm = {.count = 1, .seqs = {row}, .done = post_confirmed, .arg = &confirmed};
    sem_init(&confirmed, 0, 0);
    store_confirm(fixture->store, &confirm);
    struct store_write invite = new_write(STORE_CHANGE, wanted.id, "{\"nombreInvites\":3}");
    submit(fixture->store, &invite, &invited);
    PQfinish(booking_held);
    wait_for(&held_up);
    wait_until_number(watcher, WAITING, 1); /* it is first in the line for the message */

    struct store_write style = new_write(STORE_CHANGE, wanted.id, "{\"styleMusical\":\"rock\"}");
    submit(second.store, &style, &styled);
    wait_until_number(watcher, WAITING, 2); /* has the booking, and is next in the line */
    PQfinish(message_held);
    wait_for(&confirmed);
    wait_for(&invited);
    wait_for(&styled);
    wait_until_number(watcher, DEADLOCKS, 1);

    assert_int_equal(confirm.err.status, STATUS_OK);
    assert_int_equal(invite.err.status, STATUS_OK);
    assert_int_equal(style.err.status, STATUS_OK);
    struct soiree now = get(fixture, wanted.id);
    assert_int_equal(now.version, 3);
    assert_int_equal(now.nombre_invites, 3);
    assert_string_equal(now.style, "rock");
    struct rows rows = unsent(&second, 0, ROWS_MAX);
    assert_int_equal(rows.count, 1);
    assert_string_equal(rows.rows[0].message_id, now.request_id);
    drop_rows(&rows);
    PQfinish(watcher);
    close_store(&second);
}

struct get {
    struct fixture *fixture;
    int64_t seq;
    enum status status;
    struct err err;
};

static void *get_row(void *arg)
{
    struct get *get = arg;
    struct outbox_row row = {0};
    get->status = store_outbox_get(get->fixture->store, get->seq, &row, &get->err);
    free(row.body);
    return NULL;
}

/* Stricter than READ COMMITTED, it would be a serialization failure. */
static void test_a_row_that_changes_meanwhile_is_taken_whatever_isolation_is_the_default(void **state)
{
    struct fixture *fixture = *state, second = {0};
    if (!fixture->url)
        skip();
    run_at(fixture->url, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation TO"
                         " serializable', current_database()); END $$");
    second.config = fixture->config;
    open_store(&second);
    struct soiree wanted = book(&second, "{" BOOKING "}");
    struct get get = {.fixture = &second, .seq = assert_only_request(&second, &wanted)};
    PGconn *watcher = PQconnectdb(fixture->url), *changer = hold_row(fixture->url, "outbox", get.seq);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, get_row, &get), 0);
    wait_until_number(watcher, WAITING, 1);
    run_on(changer, "UPDATE soirees.outbox SET again_count = 0");
    run_on(changer, "COMMIT");
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (get.status != STATUS_OK)
        fail_msg("%s", get.err.text);
    PQfinish(changer);
    PQfinish(watcher);
    close_store(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_two_instances_in_a_deadlock_both_get_through),
        TEST(test_a_row_that_changes_meanwhile_is_taken_whatever_isolation_is_the_default),
    };
    return cmocka_run_group_tests_name("soirees_instances", tests, NULL, NULL);
}
