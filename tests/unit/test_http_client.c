/* Replies, and what is none. Connections have their own program, test_http_connections.c, tasks and timers theirs,
 * test_http_loop.c. */
#include "http_calls.h"

/* ---- replies ---- */

static void test_a_reply_comes_with_its_status_body_and_type(void **state)
{
    CLEANUP(drop_call) struct call *call = new_call(*state, "/bytes/5");
    run_call(call);
    assert_int_equal(call->exchange.status, STATUS_OK);
    assert_int_equal(call->exchange.http_status, 200);
    assert_string_equal(buf_get(&call->exchange.reply), "xxxxx");
    assert_int_equal(call->exchange.reply.len, 5);
    assert_string_equal(call->exchange.content_type, "application/json; charset=utf-8");
    assert_string_equal(call->exchange.local_address, "127.0.0.1");
    assert_string_equal(call->exchange.reason, "");
    assert_int_equal(call->exchange.index, 0);
}

static void test_every_status_is_a_reply_and_redirects_are_not_followed(void **state)
{
    static const int statuses[] = {200, 201, 301, 302, 307, 400, 401, 403, 404, 405, 409, 422, 429, 500, 503};
    for (size_t i = 0; i < COUNT(statuses); i++) {
        CLEANUP(free_text) char *path = mem_format("/status/%d", statuses[i]);
        CLEANUP(drop_call) struct call *call = new_call(*state, path);
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_OK);
        assert_int_equal(call->exchange.http_status, statuses[i]);
        assert_string_equal(buf_get(&call->exchange.reply), "{}");
    }
}

static void test_a_reply_without_body_and_type_is_one(void **state)
{
    CLEANUP(drop_call) struct call *call = new_call(*state, "/untyped");
    run_call(call);
    assert_int_equal(call->exchange.status, STATUS_OK);
    assert_int_equal(call->exchange.http_status, 204);
    assert_string_equal(buf_get(&call->exchange.reply), "");
    assert_string_equal(call->exchange.content_type, "");
}

static void test_the_request_goes_out_as_it_was_given(void **state)
{
    struct fixture *fixture = *state;
    static const char *const methods[] = {"PUT", "PATCH"};
    for (size_t i = 0; i < COUNT(methods); i++) {
        CLEANUP(drop_call) struct call *call = new_call(fixture, "/echo?style=a%20b");
        call->exchange.method = methods[i];
        call->exchange.body = "{\"playlistId\":\"é\"}";
        call->exchange.headers[0] = "Content-Type: application/merge-patch+json";
        call->exchange.headers[1] = "X-Second: 2";
        call->exchange.headers[5] = "X-Behind-A-Gap: 6";
        run_call(call);
        const char *request = buf_get(&call->exchange.reply);
        CLEANUP(free_text) char *line = mem_format("%s /echo?style=a%%20b HTTP/1.1\r\n", methods[i]);
        assert_ptr_equal(strstr(request, line), request);
        assert_non_null(strstr(request, "\r\nContent-Type: application/merge-patch+json\r\n"));
        assert_non_null(strstr(request, "\r\nX-Second: 2\r\n"));
        assert_null(strstr(request, "X-Behind-A-Gap")); /* the first NULL ends the list */
        assert_non_null(strstr(request, "\r\nUser-Agent: soirees/"));
        assert_non_null(strstr(request, "\r\nContent-Length: 19\r\n"));
        assert_string_equal(strstr(request, "\r\n\r\n") + 4, "{\"playlistId\":\"é\"}");
    }
}

static void test_nothing_of_a_request_is_left_in_the_next(void **state)
{
    CLEANUP(drop_call) struct call *first = new_call(*state, "/echo"), *second = new_call(*state, "/echo");
    first->exchange.method = "PATCH";
    first->exchange.body = "{}";
    first->exchange.headers[0] = "Authorization: Bearer secret";
    run_call(first);
    assert_non_null(strstr(buf_get(&first->exchange.reply), "secret"));
    run_call(second); /* on the same connection, by the same handle */
    const char *request = buf_get(&second->exchange.reply);
    assert_ptr_equal(strstr(request, "GET /echo HTTP/1.1\r\n"), request);
    assert_null(strstr(request, "secret"));
    assert_null(strcasestr(request, "Content-"));
}

static void test_a_consul_index_is_read_whatever_is_in_it(void **state)
{
    static const struct {
        const char *path;
        uint64_t index;
    } cases[] = {
        {"/index/7", 7},
        {"/index/18446744073709551615", UINT64_MAX},
        {"/index/99999999999999999999999999999999999999", UINT64_MAX},
        {"/index/x", 0},
        {"/index/", 0},
        {"/index/12x", 12},
        {"/index/-1", 0},
        {"/echo", 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, cases[i].path);
        call->exchange.index = 5;
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_OK);
        assert_true(call->exchange.index == cases[i].index ||
                    (i == 2 && call->exchange.index > UINT64_MAX / 10)); /* cut or clamped: large all the same */
    }
}

/* ---- replies that are none ---- */

static void test_a_reply_may_be_as_long_as_its_maximum_and_not_a_byte_longer(void **state)
{
    static const struct {
        const char *path;
        size_t max;
        enum status status;
    } cases[] = {
        {"/bytes/1000", 1000, STATUS_OK},          {"/bytes/1000", 999, STATUS_TOO_LARGE},
        {"/bytes/0", 1, STATUS_OK},                {"/bytes/1000000", 1000000, STATUS_OK},
        {"/bytes/1000000", 999999, STATUS_TOO_LARGE}, {"/endless", 100000, STATUS_TOO_LARGE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, cases[i].path);
        call->exchange.max_reply_bytes = cases[i].max;
        run_call(call);
        assert_int_equal(call->exchange.status, cases[i].status);
        if (cases[i].status == STATUS_OK)
            continue;
        CLEANUP(free_text) char *reason = mem_format("réponse de plus de %zu octets", cases[i].max);
        assert_string_equal(call->exchange.reason, reason);
    }
}

static void test_the_timeout_is_for_all_of_the_exchange(void **state)
{
    static const char *const paths[] = {"/silence", "/trickle"}; /* also for what goes on and on */
    for (size_t i = 0; i < COUNT(paths); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, paths[i]);
        call->exchange.timeout_ms = 150;
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_TIMEOUT);
        assert_true(call->exchange.reason[0] != '\0');
        assert_in_range(call->took_ms, 140, 5000);
        wait_for(&((struct fixture *)*state)->server->left); /* and the connection is given up */
    }
}

static void test_no_time_left_is_not_time_without_end(void **state)
{
    static const long timeouts[] = {0, -1, -1000};
    for (size_t i = 0; i < COUNT(timeouts); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, "/silence");
        call->exchange.timeout_ms = timeouts[i];
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_TIMEOUT);
    }
}

static void test_a_connection_that_fails_is_a_network_error_with_its_reason(void **state)
{
    static const char *const paths[] = {"/half", "/garbage", "/closed"};
    for (size_t i = 0; i < COUNT(paths); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, paths[i]);
        call->exchange.once = true; /* else libcurl repeats it */
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_NETWORK);
        assert_true(call->exchange.reason[0] != '\0');
    }
}

/* The other side closes a kept connection as the next request comes: libcurl would repeat it on a new one. */
static void test_what_goes_out_once_is_not_repeated_on_another_connection(void **state)
{
    struct tiny_http *server = ((struct fixture *)*state)->server;
    for (int round = 0; round < 2; round++) {
        bool once = round == 0;
        int requests = atomic_load(&server->requests);
        CLEANUP(drop_call) struct call *first = new_call(*state, "/bytes/5");
        run_call(first);
        assert_int_equal(first->exchange.status, STATUS_OK);
        CLEANUP(drop_call) struct call *second = new_call(*state, "/closed");
        second->exchange.once = once;
        run_call(second);
        assert_int_equal(second->exchange.status, STATUS_NETWORK);
        assert_true(second->exchange.reason[0] != '\0');
        assert_int_equal(atomic_load(&server->requests) - requests, once ? 2 : 3);
    }
}

static void test_a_refused_connection_is_a_network_error(void **state)
{
    unsigned port;
    int fd = tiny_bind(&port); /* bound, and nobody listens: the port stays refused */
    CLEANUP(drop_call) struct call *call = new_call(*state, "/");
    free(call->url);
    call->exchange.url = call->url = mem_format("http://127.0.0.1:%u/", port);
    run_call(call);
    assert_int_equal(call->exchange.status, STATUS_NETWORK);
    assert_true(call->exchange.reason[0] != '\0');
    (void)close(fd);
}

static void test_nothing_but_http_is_spoken(void **state)
{
    static const char *const urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "http://", ""};
    for (size_t i = 0; i < COUNT(urls); i++) {
        CLEANUP(drop_call) struct call *call = new_call(*state, "/");
        call->exchange.url = urls[i];
        run_call(call);
        assert_int_equal(call->exchange.status, STATUS_NETWORK);
        assert_string_equal(buf_get(&call->exchange.reply), "");
        assert_true(call->exchange.reason[0] != '\0');
    }
}

/* ---- helpers ---- */

static void test_only_unreserved_characters_are_not_percent_encoded(void **state)
{
    (void)state;
    static const struct {
        const char *text, *encoded;
    } cases[] = {
        {"", ""},
        {"AZaz09-._~", "AZaz09-._~"},
        {"a b", "a%20b"},
        {"r&b/soul?#", "r%26b%2Fsoul%3F%23"},
        {"%41+", "%2541%2B"},
        {"é😀", "%C3%A9%F0%9F%98%80"},
        {"\x01\x7F\n\r\"'<>\\^`{|}", "%01%7F%0A%0D%22%27%3C%3E%5C%5E%60%7B%7C%7D"},
        {"!$()*,;=:@[]", "%21%24%28%29%2A%2C%3B%3D%3A%40%5B%5D"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(buf_done) struct buf out;
        buf_init(&out, 1024);
        http_put_encoded(&out, cases[i].text);
        assert_string_equal(buf_get(&out), cases[i].encoded);
    }
}

static void test_a_plain_get_gives_the_status_or_why_there_is_none(void **state)
{
    static const struct {
        const char *path;
        enum status status;
        long http_status;
    } cases[] = {
        {"/status/200", STATUS_OK, 200},
        {"/status/503", STATUS_OK, 503},
        {"/bytes/100000", STATUS_OK, 200},
        {"/garbage", STATUS_NETWORK, 0},
        {"/silence", STATUS_TIMEOUT, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text) char *url = url_of(*state, cases[i].path);
        struct err err = {0};
        long http_status = -1;
        assert_int_equal(http_get(url, 200, &http_status, &err), cases[i].status);
        if (cases[i].status == STATUS_OK)
            assert_int_equal(http_status, cases[i].http_status);
        else
            assert_ptr_equal(strstr(err.text, url), err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_reply_comes_with_its_status_body_and_type),
        TEST(test_every_status_is_a_reply_and_redirects_are_not_followed),
        TEST(test_a_reply_without_body_and_type_is_one),
        TEST(test_the_request_goes_out_as_it_was_given),
        TEST(test_nothing_of_a_request_is_left_in_the_next),
        TEST(test_a_consul_index_is_read_whatever_is_in_it),
        TEST(test_a_reply_may_be_as_long_as_its_maximum_and_not_a_byte_longer),
        TEST(test_the_timeout_is_for_all_of_the_exchange),
        TEST(test_no_time_left_is_not_time_without_end),
        TEST(test_a_connection_that_fails_is_a_network_error_with_its_reason),
        TEST(test_what_goes_out_once_is_not_repeated_on_another_connection),
        TEST(test_a_refused_connection_is_a_network_error),
        TEST(test_nothing_but_http_is_spoken),
        TEST(test_only_unreserved_characters_are_not_percent_encoded),
        TEST(test_a_plain_get_gives_the_status_or_why_there_is_none),
    };
    return cmocka_run_group_tests_name("http_client", tests, global_init, NULL);
}
