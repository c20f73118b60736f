/* Calls that are answered later, from other threads. */
#include <sys/resource.h>

#include "http_workers.h"
#include "log.h"

static void test_a_parked_call_is_answered_from_another_thread(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    for (unsigned n = 0; n < 100; n++) {
        ask(&client, "/later", n);
        expect(&client, n);
    }
    raw_close(&client);
}

static void test_an_answer_may_overtake_its_handler(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    for (unsigned n = 0; n < 200; n++) {
        ask(&client, "/overtaken", n);
        expect(&client, n);
    }
    raw_close(&client);
}

static void test_a_handler_may_answer_what_it_has_parked(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    for (unsigned n = 0; n < 20; n++) {
        ask(&client, "/changes-its-mind", n);
        struct raw_reply reply = raw_expect(&client, 503);
        assert_problem(&reply, "/changes-its-mind", "plus tard");
        raw_reply_done(&reply);
    }
    raw_close(&client);
}

static void test_one_thread_is_enough(void **state)
{
    (void)state;
    http_server_close(server);
    open_server((struct http_server_config){.threads = 1});
    struct raw_client held = raw_connect(port), other = raw_connect(port);
    ask(&held, "/hold", 1);
    wait_for_held(1);
    ask(&other, "/later", 2);
    expect(&other, 2);
    release();
    expect(&held, 1);
    raw_close(&held);
    raw_close(&other);
}

static void test_what_is_pipelined_behind_a_parked_call_waits(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port), other = raw_connect(port);
    ask(&client, "/hold", 1);
    ask(&client, "/now", 2);
    ask(&client, "/later", 3);
    wait_for_held(1);
    ask(&other, "/now", 4); /* the same threads go on serving */
    expect(&other, 4);
    struct pollfd readable = {.fd = client.fd, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 0), 0);
    release();
    for (unsigned n = 1; n <= 3; n++)
        expect(&client, n);
    raw_close(&client);
    raw_close(&other);
}

static void test_thousands_wait_at_once(void **state)
{
    enum { WANTED = 3000 };
    struct rlimit files;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    size_t count = files.rlim_cur < 2 * WANTED + 100 ? (size_t)files.rlim_cur / 2 - 100 : WANTED;
    struct raw_client *clients = mem_new(count * sizeof *clients);
    for (size_t i = 0; i < count; i++) {
        clients[i] = raw_connect(port);
        ask(&clients[i], "/hold", (unsigned)i);
    }
    wait_for_held(count);
    for (int round = 0; round < 2; round++) {
        release();
        for (size_t i = 0; i < count; i++) {
            expect(&clients[i], (unsigned)i);
            if (round == 0)
                ask(&clients[i], i % 2 ? "/hold" : "/later", (unsigned)i);
        }
        if (round == 0)
            wait_for_held(count / 2);
    }
    for (size_t i = 0; i < count; i++)
        raw_close(&clients[i]);
    free(clients);
}

static void test_a_client_may_leave_while_its_call_waits(void **state)
{
    enum { COUNT_LEAVING = 50 };
    (void)state;
    for (unsigned i = 0; i < COUNT_LEAVING; i++) {
        struct raw_client client = raw_connect(port);
        ask(&client, "/hold", i);
        wait_for_held(i + 1);
        raw_close(&client);
    }
    assert_false(http_server_idle(server, 0));
    release();
    assert_true(http_server_idle(server, LONG_MS));
    struct raw_client client = raw_connect(port);
    ask(&client, "/now", 1);
    expect(&client, 1);
    raw_close(&client);
}

/* libmicrohttpd takes the end of what a client sends for its leaving, once the call was parked. */
static void test_a_client_may_stop_sending(void **state)
{
    enum { PAIRS = 50 };
    struct raw_client direct[PAIRS], parked[PAIRS];
    (void)state;
    for (unsigned n = 0; n < PAIRS; n++) {
        direct[n] = raw_connect(port);
        parked[n] = raw_connect(port);
        ask(&direct[n], "/now", n);
        ask(&parked[n], "/hold", n);
        assert_int_equal(shutdown(direct[n].fd, SHUT_WR), 0);
        assert_int_equal(shutdown(parked[n].fd, SHUT_WR), 0);
        expect(&direct[n], n);
    }
    wait_for_held(PAIRS);
    release();
    assert_true(http_server_idle(server, LONG_MS));
    for (unsigned n = 0; n < PAIRS; n++) {
        struct raw_reply reply;
        if (raw_read_reply(&parked[n], false, &reply))
            assert_answers(&reply, n);
        raw_reply_done(&reply);
        assert_closed(&direct[n]); /* before the idle timeout */
        assert_closed(&parked[n]);
        raw_close(&direct[n]);
        raw_close(&parked[n]);
    }
}

static void test_a_waiting_call_outlives_every_timeout(void **state)
{
    (void)state;
    http_server_close(server);
    open_server((struct http_server_config){.idle_timeout_s = 1, .request_timeout_s = 1});
    struct raw_client waiting = raw_connect(port), idle = raw_connect(port);
    ask(&waiting, "/hold", 1);
    wait_for_held(1);
    assert_closed(&idle); /* a second has passed */
    struct pollfd readable = {.fd = waiting.fd, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 2000), 0);
    release();
    expect(&waiting, 1);
    raw_close(&waiting);
    raw_close(&idle);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_parked_call_is_answered_from_another_thread),
        TEST(test_an_answer_may_overtake_its_handler),
        TEST(test_a_handler_may_answer_what_it_has_parked),
        TEST(test_one_thread_is_enough),
        TEST(test_what_is_pipelined_behind_a_parked_call_waits),
        TEST(test_thousands_wait_at_once),
        TEST(test_a_client_may_leave_while_its_call_waits),
        TEST(test_a_client_may_stop_sending),
        TEST(test_a_waiting_call_outlives_every_timeout),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
