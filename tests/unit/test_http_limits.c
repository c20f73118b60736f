/* Connections at the HTTP server: their order and length of life, heads that two servers would read
 * differently, and the limits of size, time and number. */
#include "raw_http.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "ids.h"
#include "log.h"

#define JSON "Content-Type: application/json\r\n"

static unsigned port;
static struct http_server *server;

static void park(struct http_call *call, void *service);

static const struct http_route routes[] = {
    {"GET", "/", raw_echo, 0},
    {"GET", "/parked", park, 0},
    {"POST", "/things", raw_echo, HTTP_TAKES_JSON},
};

static void open_server(struct http_server_config config)
{
    config.routes = routes;
    config.route_count = COUNT(routes);
    server = raw_server(config, &port);
}

static int setup(void **state)
{
    (void)state;
    open_server((struct http_server_config){.cors_origin = "*"});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(server);
    return 0;
}

static void reopen(struct http_server_config config)
{
    http_server_close(server);
    open_server(config);
}

static void expect(struct raw_client *client, int status)
{
    struct raw_reply reply = raw_expect(client, status);
    raw_reply_done(&reply);
}

static void expect_alive(struct raw_client *client)
{
    raw_send(client, "GET / HTTP/1.1\r\n" HOST "\r\n");
    expect(client, 200);
}

/* ---- connections ---- */

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    enum { REQUESTS = 200 };
    struct buf all;
    (void)state;
    buf_init(&all, RAW_MAX_BYTES);
    for (int i = 0; i < REQUESTS; i++)
        buf_format(&all, "POST /things?a=%d HTTP/1.1\r\n" HOST JSON "Content-Length: 3\r\n\r\nabc", i);
    struct raw_client client = raw_connect(port);
    raw_send_n(&client, all.data, all.len);
    for (int i = 0; i < REQUESTS; i++) {
        char a[16];
        snprintf(a, sizeof a, "%d", i);
        struct raw_reply reply = raw_expect(&client, 200);
        cJSON *seen = cJSON_Parse(reply.body);
        assert_member(seen, "a", a);
        assert_member(seen, "body", "abc");
        cJSON_Delete(seen);
        raw_reply_done(&reply);
    }
    buf_done(&all);
    raw_close(&client);
}

static void test_connections_live_as_the_client_asks(void **state)
{
    static const struct {
        const char *head;
        bool lives;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", true},
        {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct raw_client client = raw_connect(port);
        raw_send(&client, cases[i].head);
        expect(&client, 200);
        if (cases[i].lives)
            expect_alive(&client);
        else
            assert_closed(&client);
        raw_close(&client);
    }
}

static void test_heads_that_two_servers_could_read_differently_are_400(void **state)
{
    static const struct {
        const char *head;
        size_t len; /* 0: strlen */
    } cases[] = {
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 40\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n", 0},
        {"POST /things HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Transfer-Encoding\t: chunked\r\nContent-Length: 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "\x0bTransfer-Encoding: chunked\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 40\r\n 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "X: 1\r\n\tContent-Length: 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST "X: 1\rContent-Length: 2\r\n", 0},
        {"POST /things HTTP/1.1\r\n" HOST JSON JSON "Content-Length: 2\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST HOST, 0},
        {"GET / HTTP/1.1\r\n" HOST "Host: other\r\n", 0},
        {"GET / HTTP/1.1\r\nX: no host\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: a b\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: user@a\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: a, b\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST ": nameless\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST "X(: 1\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST "X\xC3\xA9: 1\r\n", 0},
        {"GET / HTTP/1.1\r\n Host: test\r\n", 0},
        {"GET  / HTTP/1.1\r\n" HOST, 0},
        {"GET /  HTTP/1.1\r\n" HOST, 0},
        {"GET /a b HTTP/1.1\r\n" HOST, 0},
        {"GET /\x01 HTTP/1.1\r\n" HOST, 0},
#define BYTES(text) {text, sizeof text - 1}
        BYTES("GET /\0/x HTTP/1.1\r\n" HOST),
        BYTES("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\nY: 1\r\n"),
        BYTES("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\n"),
        BYTES("GET / HTTP/1.1\r\n" HOST "X\0Y: a\r\n"),
#undef BYTES
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct raw_client client = raw_connect(port);
        raw_send_n(&client, cases[i].head, cases[i].len ? cases[i].len : strlen(cases[i].head));
        raw_send(&client, "\r\n{}GET / HTTP/1.1\r\n" HOST "\r\n");
        struct raw_reply reply;
        if (!raw_read_reply(&client, false, &reply) || reply.status != 400)
            fail_msg("case %zu: %s", i, reply.head ? reply.head : "closed");
        assert_header(&reply, "Connection", "close");
        if (strcmp(raw_header(&reply, "Content-Type") ? raw_header(&reply, "Content-Type") : "", "") != 0)
            assert_header(&reply, "Content-Type", "application/problem+json");
        assert_closed(&client); /* what came behind is not answered */
        raw_reply_done(&reply);
        raw_close(&client);
    }
}

static void test_what_the_library_itself_refuses_ends_the_connection(void **state)
{
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 2x\r\n\r\n{}", 400},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: -2\r\n\r\n{}", 400},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 2, 2\r\n\r\n{}", 400},
        {"POST /things HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n{}", 413},
        {"POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct raw_client client = raw_connect(port);
        raw_send(&client, cases[i].head);
        expect(&client, cases[i].status);
        while (raw_receive(&client))
            continue;
        raw_close(&client);
    }
    assert_true(http_server_idle(server, RAW_TIMEOUT_S * 1000));
}

static void test_unusual_heads_are_understood(void **state)
{
    struct buf many;
    (void)state;
    buf_init(&many, RAW_MAX_BYTES);
    buf_text(&many, "GET /?a=1 HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 150; i++)
        buf_format(&many, "X-%d:%*s%d\r\n", i, i % 5, "", i);
    buf_text(&many, "\r\n");
    const char *const heads[] = {
        "GET / HTTP/1.1\nHost: test\n\n",
        "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
        "GET / HTTP/1.1\r\nHost:test\r\nX:\t tab \t\r\nY: \r\nCookie: a=b; c=\"d\"\r\n\r\n",
        "GET / HTTP/1.1\r\nHOST: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:3003\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: xn--soire-esa.example_1:80\r\n\r\n",
        "GET / HTTP/1.1\r\n" HOST "x!#$%&'*+-.^_`|~9: 1\r\nX: 1\r\nX: 2\r\n\r\n",
        many.data,
    };
    struct raw_client client = raw_connect(port);
    for (size_t i = 0; i < COUNT(heads); i++) {
        raw_send(&client, heads[i]);
        expect(&client, 200);
        for (const char *c = heads[i]; *c; c++) /* however it is cut up */
            raw_send_n(&client, c, 1);
        expect(&client, 200);
    }
    buf_done(&many);
    raw_close(&client);
}

static void test_heads_up_to_a_size_are_taken_and_above_it_refused(void **state)
{
    static const struct {
        size_t size;
        int status_target, status_header;
    } cases[] = {{8000, 200, 200},  {16200, 200, 200}, {24000, 200, 200},  {24600, 400, 400},
                 {32000, 400, 400}, {33000, 414, 431}, {100000, 414, 431}, {1000000, 414, 431}};
    (void)state;
    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        size_t size = cases[i / 2].size;
        char *text = mem_new(size + 1);
        memset(text, 'x', size);
        char *request = mem_format(
            i % 2 ? "GET / HTTP/1.1\r\n" HOST "X: %s\r\n\r\n" : "GET /?a=%s HTTP/1.1\r\n" HOST "\r\n", text);
        struct raw_reply reply = raw_exchange(
            port, request, i % 2 ? cases[i / 2].status_header : cases[i / 2].status_target);
        if (reply.status == 400)
            assert_problem(&reply, "/", "L'en-tête de la requête est trop volumineux");
        raw_reply_done(&reply);
        free(request);
        free(text);
    }
}

/* Sends a byte now and then until the server cuts the connection; returns after how long. */
static int64_t trickle(const char *start)
{
    struct raw_client client = raw_connect(port);
    int64_t began_ms = clock_mono_ms();
    raw_send(&client, start);
    struct pollfd readable = {.fd = client.fd, .events = POLLIN};
    while (poll(&readable, 1, 50) == 0 && clock_mono_ms() - began_ms < RAW_TIMEOUT_S * 1000)
        (void)send(client.fd, "x", 1, MSG_NOSIGNAL);
    assert_false(raw_receive(&client));
    raw_close(&client);
    return clock_mono_ms() - began_ms;
}

static void test_a_request_must_be_complete_in_time(void **state)
{
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\nX: ", "POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: 60000\r\n\r\n",
        "GET /"};
    (void)state;
    reopen((struct http_server_config){.idle_timeout_s = 1, .request_timeout_s = 1});
    for (size_t i = 0; i < COUNT(starts); i++) {
        int64_t took_ms = trickle(starts[i]);
        assert_true(took_ms >= 1000);
        assert_true(took_ms < 10000);
    }
}

static void test_idle_connections_are_closed(void **state)
{
    (void)state;
    reopen((struct http_server_config){.idle_timeout_s = 1});
    struct raw_client fresh = raw_connect(port), used = raw_connect(port), half = raw_connect(port);
    expect_alive(&used);
    raw_send(&half, "GET / HT");
    assert_closed(&fresh);
    assert_closed(&used);
    assert_closed(&half);
    raw_close(&fresh);
    raw_close(&used);
    raw_close(&half);
}

static void test_a_client_that_leaves_in_the_middle_is_forgotten(void **state)
{
    static const char *const starts[] = {
        "GET", "GET / HTTP/1.1\r\nHost",
        "POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: 60000\r\n\r\nabc",
        "POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n5\r\nab"};
    (void)state;
    for (size_t i = 0; i < 20 * COUNT(starts); i++) {
        struct raw_client client = raw_connect(port);
        raw_send(&client, starts[i % COUNT(starts)]);
        raw_close(&client);
    }
    struct raw_client client = raw_connect(port);
    expect_alive(&client);
    raw_close(&client);
    assert_true(http_server_idle(server, RAW_TIMEOUT_S * 1000));
}

static void test_many_idle_connections_leave_the_server_quick(void **state)
{
    enum { WANTED = 2000 };
    struct rlimit files;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    size_t count = files.rlim_cur < 2 * WANTED + 100 ? (size_t)files.rlim_cur / 2 - 100 : WANTED;
    reopen((struct http_server_config){.max_connections = WANTED + 1});
    struct raw_client *idle = mem_new(count * sizeof *idle);
    for (size_t i = 0; i < count; i++)
        idle[i] = raw_connect(port);
    for (size_t i = 0; i < count; i += 100) {
        struct raw_client client = raw_connect(port);
        expect_alive(&client);
        expect_alive(&idle[i]);
        raw_close(&client);
    }
    for (size_t i = 0; i < count; i++)
        raw_close(&idle[i]);
    free(idle);
}

/* Descriptors that a client needs are taken before the limit is lowered: it is one process. */
static void test_running_out_of_descriptors_passes(void **state)
{
    enum { WAITING = 5 };
    struct raw_client clients[WAITING], served = raw_connect(port);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct rlimit before, none;
    (void)state;
    expect_alive(&served);
    for (size_t i = 0; i < WAITING; i++) {
        clients[i] = (struct raw_client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        buf_init(&clients[i].received, RAW_MAX_BYTES);
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (size_t i = 0; i < WAITING; i++) {
        assert_int_equal(connect(clients[i].fd, (struct sockaddr *)&address, sizeof address), 0);
        raw_send(&clients[i], "GET / HTTP/1.1\r\n" HOST "\r\n");
    }
    expect_alive(&served);
    struct pollfd readable = {.fd = clients[0].fd, .events = POLLIN};
    int answered = poll(&readable, 1, 300);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(answered, 0);
    for (size_t i = 0; i < WAITING; i++) {
        expect(&clients[i], 200);
        raw_close(&clients[i]);
    }
    raw_close(&served);
}

static void test_the_longest_idle_makes_room_for_the_next(void **state)
{
    enum { LIMIT = 3 };
    struct raw_client idle[LIMIT];
    (void)state;
    reopen((struct http_server_config){.max_connections = LIMIT, .threads = 2});
    for (size_t i = 0; i < LIMIT; i++)
        idle[i] = raw_connect(port);
    raw_send(&idle[0], "POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: 3\r\n\r\na");
    expect_alive(&idle[1]);
    (void)poll(NULL, 0, 500); /* what makes the difference, also on a busy machine */
    expect_alive(&idle[2]);
    struct raw_client late = raw_connect(port);
    expect_alive(&late);
    raw_close(&late);
    assert_closed(&idle[1]); /* 0 is in the middle of a request, 2 was idle for less long */
    raw_send(&idle[0], "bc");
    expect(&idle[0], 200);
    for (size_t i = 0; i < LIMIT; i++)
        raw_close(&idle[i]);
}

/* Calls that park() was given; the test answers them. */
static atomic_size_t parked_count;
static struct http_call *parked[8];

static void park(struct http_call *call, void *service)
{
    (void)service;
    http_call_park(call);
    parked[atomic_load(&parked_count)] = call;
    atomic_fetch_add(&parked_count, 1);
}

static void test_who_waits_for_an_answer_keeps_the_place(void **state)
{
    enum { LIMIT = 4 };
    struct raw_client holders[LIMIT];
    (void)state;
    reopen((struct http_server_config){.max_connections = LIMIT, .threads = 3});
    atomic_store(&parked_count, 0);
    for (size_t i = 0; i < LIMIT; i++) {
        holders[i] = raw_connect(port);
        raw_send(&holders[i], "GET /parked HTTP/1.1\r\n" HOST "\r\n");
        while (atomic_load(&parked_count) <= i)
            sched_yield();
    }
    struct raw_client waiting = raw_connect(port);
    raw_send(&waiting, "GET / HTTP/1.1\r\n" HOST "\r\n");
    struct pollfd readable = {.fd = waiting.fd, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 1000), 0);
    for (size_t i = 0; i < LIMIT; i++) {
        http_answer_empty(parked[i], 204);
        expect(&holders[i], 204);
    }
    expect(&waiting, 200); /* once one of them is idle for long enough */
    raw_close(&waiting);
    for (size_t i = 0; i < LIMIT; i++)
        raw_close(&holders[i]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_pipelined_requests_are_answered_in_order),
        TEST(test_connections_live_as_the_client_asks),
        TEST(test_heads_that_two_servers_could_read_differently_are_400),
        TEST(test_what_the_library_itself_refuses_ends_the_connection),
        TEST(test_unusual_heads_are_understood),
        TEST(test_heads_up_to_a_size_are_taken_and_above_it_refused),
        TEST(test_a_request_must_be_complete_in_time),
        TEST(test_idle_connections_are_closed),
        TEST(test_a_client_that_leaves_in_the_middle_is_forgotten),
        TEST(test_many_idle_connections_leave_the_server_quick),
        TEST(test_running_out_of_descriptors_passes),
        TEST(test_the_longest_idle_makes_room_for_the_next),
        TEST(test_who_waits_for_an_answer_keeps_the_place),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
