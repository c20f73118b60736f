/* Connections that are kept or not, many at once, and exchanges that are given up. */
#include "http_calls.h"

/* ---- connections ---- */

static void test_connections_are_kept_also_by_exchanges_that_go_out_once(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 5; i++) {
        CLEANUP(drop_call) struct call *call = new_call(fixture, "/echo");
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_OK);
    }
    assert_int_equal(atomic_load(&fixture->server->connections), 1);
    for (int i = 0; i < 3; i++) {
        CLEANUP(drop_call) struct call *call = new_call(fixture, "/echo");
        call->exchange.once = true;
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_OK);
    }
    assert_int_equal(atomic_load(&fixture->server->connections), 1);
}

static void test_an_exchange_that_goes_out_once_is_not_repeated(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(drop_call) struct call *call = new_call(fixture, "/closed");
    call->exchange.once = true;
    run_call(call);
    assert_int_equal(call->exchange.status, STATUS_NETWORK);
    assert_int_equal(atomic_load(&fixture->server->requests), 1);
}

static void test_neighbours_are_called_without_the_proxy_of_the_environment(void **state)
{
    unsigned port;
    int fd = tiny_bind(&port);
    CLEANUP(free_text) char *proxy = mem_format("http://127.0.0.1:%u", port);
    CLEANUP(drop_call) struct call *direct = new_call(*state, "/echo"), *proxied = new_call(*state, "/echo");
    assert_int_equal(setenv("http_proxy", proxy, 1), 0);
    assert_int_equal(unsetenv("no_proxy"), 0);
    assert_int_equal(unsetenv("NO_PROXY"), 0);
    proxied->exchange.direct = false;
    run_call(direct);
    run_call(proxied);
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(direct->exchange.status, STATUS_OK);
    assert_int_equal(proxied->exchange.status, STATUS_NETWORK);
    (void)close(fd);
}

static void test_a_hundred_exchanges_go_on_at_once(void **state)
{
    enum { CALLS = 100 };
    struct fixture *fixture = *state;
    struct call *calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        calls[i] = new_call(fixture, "/silence");
        calls[i]->exchange.timeout_ms = 1500;
        start_call(calls[i]);
    }
    for (int i = 0; i < CALLS; i++)
        wait_for(&fixture->server->asked); /* all of them are there before the first ends */
    for (int i = 0; i < CALLS; i++) {
        wait_for(&calls[i]->done);
        assert_int_equal(calls[i]->exchange.status, STATUS_TIMEOUT);
        drop_call(&calls[i]);
    }
    assert_int_equal(atomic_load(&fixture->server->connections), CALLS);
}

/* ---- giving up ---- */

struct cancelling {
    struct http_task task;
    struct call *call;
    sem_t done;
};

static void cancel_call(struct http_task *task)
{
    struct cancelling *cancelling = OWNER(task, struct cancelling, task);
    http_client_cancel(cancelling->call->client, &cancelling->call->exchange);
    sem_post(&cancelling->done);
}

static void cancel(struct call *call)
{
    struct cancelling cancelling = {.task.run = cancel_call, .call = call};
    sem_init(&cancelling.done, 0, 0);
    http_client_post(call->client, &cancelling.task);
    wait_for(&cancelling.done);
    sem_destroy(&cancelling.done);
}

static void test_a_cancelled_exchange_ends_without_a_callback(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(drop_call) struct call *call = new_call(fixture, "/silence"), *next = new_call(fixture, "/echo");
    start_call(call);
    wait_for(&fixture->server->asked);
    cancel(call);
    wait_for(&fixture->server->left); /* the connection is closed */
    run_call(next);
    assert_int_equal(next->exchange.status, STATUS_OK);
    assert_int_equal(atomic_load(&call->ends), 0);
}

static void test_cancelling_what_is_not_under_way_does_nothing(void **state)
{
    CLEANUP(drop_call) struct call *never = new_call(*state, "/echo"), *ended = new_call(*state, "/echo");
    cancel(never);
    run_call(ended);
    cancel(ended);
    cancel(ended);
    assert_int_equal(atomic_load(&ended->ends), 1);
    run_call(ended); /* and it may be sent again */
    assert_int_equal(ended->exchange.status, STATUS_OK);
}

static void test_stopping_drops_what_is_under_way_without_a_callback(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(drop_call) struct call *call = new_call(fixture, "/trickle"), *late = new_call(fixture, "/echo");
    start_call(call);
    wait_for(&fixture->server->asked);
    int64_t start = clock_mono_ms();
    http_client_stop(fixture->client);
    assert_true(clock_mono_ms() - start < 5000); /* not the exchange's 10 s */
    wait_for(&fixture->server->left);
    http_client_stop(fixture->client); /* twice is fine */
    start_call(late);
    assert_int_equal(atomic_load(&call->ends), 0);
    assert_int_equal(atomic_load(&late->ends), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_connections_are_kept_also_by_exchanges_that_go_out_once),
        TEST(test_an_exchange_that_goes_out_once_is_not_repeated),
        TEST(test_neighbours_are_called_without_the_proxy_of_the_environment),
        TEST(test_a_hundred_exchanges_go_on_at_once),
        TEST(test_a_cancelled_exchange_ends_without_a_callback),
        TEST(test_cancelling_what_is_not_under_way_does_nothing),
        TEST(test_stopping_drops_what_is_under_way_without_a_callback),
    };
    return cmocka_run_group_tests_name("http_connections", tests, global_init, NULL);
}
