/* Many clients at once, and the HTTP server's end: draining, idleness, closing. */
#include "http_workers.h"
#include "ids.h"
#include "log.h"

enum { CLIENTS = 8 };

static atomic_bool draining;
static atomic_uint answered;

/* One connection of a client: asks until it has asked enough or the server ends it, which it may only when
 * draining. */
static unsigned storm_through(struct raw_client *client, unsigned first, unsigned count)
{
    static const char *const paths[] = {"/now", "/later", "/overtaken", "/later"};
    for (unsigned i = 0; i < count; i++) {
        char request[128];
        struct raw_reply reply;
        unsigned n = first + i;
        snprintf(request, sizeof request, "GET %s?n=%u HTTP/1.1\r\n" HOST "X-Request-Id: r%u\r\n\r\n",
                 paths[n % COUNT(paths)], n, n);
        bool ended = send(client->fd, request, strlen(request), MSG_NOSIGNAL) < 0 ||
                     !raw_read_reply(client, false, &reply);
        if (ended || reply.status == 503) {
            if (!ended)
                raw_reply_done(&reply);
            assert_true(atomic_load(&draining));
            return i;
        }
        assert_answers(&reply, n);
        raw_reply_done(&reply);
        atomic_fetch_add(&answered, 1);
    }
    return count;
}

enum { ASKED = 400 };

static void *storm(void *arg)
{
    unsigned first = (unsigned)(uintptr_t)arg * 1000;
    for (unsigned done = 0; done < ASKED;) {
        struct raw_client client = {.fd = raw_dial(port)};
        if (client.fd < 0) {
            assert_true(atomic_load(&draining));
            return NULL;
        }
        buf_init(&client.received, RAW_MAX_BYTES);
        done += storm_through(&client, first + done, ASKED - done < 100 ? ASKED - done : 100);
        raw_close(&client);
    }
    return NULL;
}

static void start_storm(pthread_t threads[CLIENTS])
{
    atomic_store(&draining, false);
    atomic_store(&answered, 0);
    atomic_store(&worked, 0);
    for (size_t i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)(uintptr_t)(i + 1)), 0);
}

static void test_a_storm_is_answered_call_by_call(void **state)
{
    pthread_t threads[CLIENTS];
    (void)state;
    start_storm(threads);
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&answered), CLIENTS * ASKED);
    assert_true(http_server_idle(server, LONG_MS));
}

static void test_draining_in_a_storm_loses_no_answer(void **state)
{
    enum { ROUNDS = 40 };
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[CLIENTS];
        bool waits = round % 2;
        start_storm(threads);
        while (atomic_load(&answered) < 50)
            sched_yield();
        atomic_store(&draining, true);
        http_server_drain(server);
        if (waits)
            assert_true(http_server_idle(server, LONG_MS));
        http_server_close(server); /* whoever asks now has the workers answer first */
        for (size_t i = 0; i < CLIENTS; i++)
            pthread_join(threads[i], NULL);
        if (waits)
            assert_int_equal(atomic_load(&answered),
                             atomic_load(&worked)); /* nothing was done without an answer */
        open_server((struct http_server_config){.threads = (unsigned)round % 4 + 1});
    }
}

/* ---- the end ---- */

static void test_draining_refuses_the_new_and_finishes_the_old(void **state)
{
    (void)state;
    struct raw_client held = raw_connect(port), open = raw_connect(port), late = raw_connect(port),
                      silent = raw_connect(port);
    ask(&open, "/now", 1);
    expect(&open, 1);
    ask(&held, "/hold", 2);
    wait_for_held(1);

    http_server_drain(server);
    http_server_drain(server);
    assert_int_equal(raw_dial(port), -1);
    ask(&open, "/now", 3); /* still served, and told to go */
    struct raw_reply reply = raw_expect(&open, 200);
    assert_header(&reply, "Connection", "close");
    assert_answers(&reply, 3);
    raw_reply_done(&reply);
    assert_closed(&open);

    int64_t began_ms = clock_mono_ms();
    assert_false(http_server_idle(server, 300));
    assert_true(clock_mono_ms() - began_ms >= 300);
    ask(&late, "/now", 4); /* no handler is called any more */
    reply = raw_expect(&late, 503);
    assert_problem(&reply, "/now", "Le service s'arrête");
    assert_header(&reply, "Connection", "close");
    raw_reply_done(&reply);
    assert_closed(&late);

    release();
    assert_true(http_server_idle(server, LONG_MS));
    reply = raw_expect(&held, 200); /* sent before the server said it was idle */
    assert_header(&reply, "Connection", "close");
    assert_answers(&reply, 2);
    raw_reply_done(&reply);
    assert_closed(&held);

    http_server_close(server);
    server = NULL;
    assert_closed(&silent);
    raw_close(&held);
    raw_close(&open);
    raw_close(&late);
    raw_close(&silent);
}

static void *release_soon(void *arg)
{
    (void)arg;
    wait_for_held(1);
    release();
    return NULL;
}

static void test_idleness_is_noticed_as_it_comes(void **state)
{
    pthread_t thread;
    (void)state;
    assert_true(http_server_idle(server, 0));
    for (unsigned n = 0; n < 200; n++) {
        struct raw_client client = raw_connect(port);
        ask(&client, "/hold", n);
        assert_int_equal(pthread_create(&thread, NULL, release_soon, NULL), 0);
        expect(&client, n);
        assert_true(http_server_idle(server, LONG_MS));
        pthread_join(thread, NULL);
        raw_close(&client);
    }
}

static void test_a_server_closes_with_connections_in_every_state(void **state)
{
    static const char *const starts[] = {"", "GET / HT", "GET /now HTTP/1.1\r\nHost: a",
                                         "POST /later HTTP/1.1\r\n" HOST
                                         "Content-Type: application/json\r\nContent-Length: 5000\r\n\r\nabc",
                                         "GET /now HTTP/1.1\r\n" HOST "\r\n"};
    struct raw_client clients[10 * COUNT(starts)];
    (void)state;
    for (size_t i = 0; i < COUNT(clients); i++) {
        clients[i] = raw_connect(port);
        raw_send(&clients[i], starts[i % COUNT(starts)]);
    }
    http_server_close(server);
    server = NULL;
    for (size_t i = 0; i < COUNT(clients); i++) {
        while (raw_receive(&clients[i]))
            continue;
        raw_close(&clients[i]);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_storm_is_answered_call_by_call),
        TEST(test_draining_in_a_storm_loses_no_answer),
        TEST(test_draining_refuses_the_new_and_finishes_the_old),
        TEST(test_idleness_is_noticed_as_it_comes),
        TEST(test_a_server_closes_with_connections_in_every_state),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
