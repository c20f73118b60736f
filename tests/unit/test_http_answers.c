/* The HTTP server's answers: headers, problem bodies, the access log; and the addresses it listens on. */
#include "raw_http.h"

#include <fcntl.h>

#include "log.h"

static unsigned port;
static struct http_server *server;

/* ---- a service ---- */

static void change(struct http_call *call, void *service)
{
    char longer[700];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    http_call_set(call, "Location", "%s/%d", http_call_path(call), 7);
    http_call_set(call, "X-Long", "%s", longer);
    http_call_set(call, "X-Broken", "a\r\nX-Injected: b");
    http_call_set(call, "X-Empty", "%s", "");
    raw_echo(call, service);
}

static void cached(struct http_call *call, void *service)
{
    (void)service;
    http_call_set(call, "Cache-Control", "max-age=60");
    http_call_set(call, "ETag", "\"%d\"", 3);
    http_answer_empty(call, 304);
}

static void invalid(struct http_call *call, void *service)
{
    static struct problems problems;
    (void)service;
    problems.count = 0;
    problems_add(&problems, "/date", "pas une date : %s", "\"");
    problems_add(&problems, "", "autre");
    http_answer_problem(call, STATUS_INVALID, "deux \"erreurs\"", &problems);
}

static void busy(struct http_call *call, void *service)
{
    (void)service;
    http_answer_problem(call, STATUS_BUSY, NULL, NULL);
}

static void removed(struct http_call *call, void *service)
{
    (void)service;
    http_answer_empty(call, 204);
}

static void silent(struct http_call *call, void *service)
{
    (void)call;
    (void)service;
}

static void overflowing(struct http_call *call, void *service)
{
    (void)service;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 10);
    buf_text(&out, "[\"longer than ten\"]");
    http_answer_json(call, 200, &out);
}

static const struct http_route routes[] = {
    {"GET", "/", raw_echo, 0},       {"POST", "/things", change, HTTP_TAKES_JSON},
    {"GET", "/cached", cached, 0},   {"DELETE", "/removed", removed, 0},
    {"GET", "/invalid", invalid, 0}, {"GET", "/busy", busy, 0},
    {"GET", "/silent", silent, 0},   {"GET", "/overflowing", overflowing, 0},
};

static int setup(void **state)
{
    (void)state;
    server = raw_server((struct http_server_config){.routes = routes, .route_count = COUNT(routes)}, &port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(server);
    return 0;
}

/* ---- answers ---- */

static void test_a_request_id_is_kept_when_well_formed(void **state)
{
    char longest[129], too_long[130];
    memset(longest, 'z', sizeof longest);
    memset(too_long, 'z', sizeof too_long);
    longest[128] = too_long[129] = '\0';
    const char *const good[] = {"abc", "A.b_c:d-9", longest}, *const bad[] = {"", "a b", "é", "a;b",
                                                                              too_long};
    (void)state;
    for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
        const char *id = i < COUNT(good) ? good[i] : bad[i - COUNT(good)];
        char *request = mem_format("GET / HTTP/1.1\r\n" HOST "X-Request-Id: %s\r\n\r\n", id);
        struct raw_reply reply = raw_exchange(port, request, 200);
        cJSON *seen = cJSON_Parse(reply.body);
        if (i < COUNT(good))
            assert_header(&reply, "X-Request-Id", id);
        else
            assert_int_equal(strlen(raw_header(&reply, "X-Request-Id")), 36);
        assert_member(seen, "requestId", raw_header(&reply, "X-Request-Id"));
        cJSON_Delete(seen);
        raw_reply_done(&reply);
        free(request);
    }
}

static void test_two_request_ids_are_none(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(
        port, "GET / HTTP/1.1\r\n" HOST "X-Request-Id: a\r\nX-Request-Id: b\r\n\r\n", 200);
    assert_int_equal(strlen(raw_header(&reply, "X-Request-Id")), 36);
    raw_reply_done(&reply);
}

static void test_handlers_set_headers(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(port,
                                          "POST /things HTTP/1.1\r\n" HOST
                                          "Content-Type: application/json\r\n"
                                          "Content-Length: 2\r\n\r\n{}",
                                          200);
    assert_header(&reply, "Location", "/things/7");
    assert_int_equal(strlen(raw_header(&reply, "X-Long")), 699);
    assert_header(&reply, "X-Broken", NULL);
    assert_header(&reply, "X-Injected", NULL);
    assert_header(&reply, "X-Empty", NULL);
    assert_header(&reply, "Cache-Control", "no-store");
    assert_non_null(raw_header(&reply, "Date"));
    raw_reply_done(&reply);
}

static void test_cache_control_is_the_handlers_or_ours(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(port, "GET / HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_header(&reply, "Cache-Control", "no-cache");
    raw_reply_done(&reply);
    reply = raw_exchange(port, "GET /cached HTTP/1.1\r\n" HOST "\r\n", 304);
    assert_header(&reply, "Cache-Control", "max-age=60");
    assert_header(&reply, "ETag", "\"3\"");
    assert_header(&reply, "Content-Type", NULL);
    raw_reply_done(&reply);
    reply = raw_exchange(port, "DELETE /removed HTTP/1.1\r\n" HOST "\r\n", 204);
    assert_header(&reply, "Cache-Control", "no-store");
    assert_header(&reply, "Content-Length", NULL);
    raw_reply_done(&reply);
}

static void test_a_problem_names_every_error(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(port, "GET /invalid HTTP/1.1\r\n" HOST "\r\n", 422);
    assert_problem(&reply, "/invalid", "deux \"erreurs\"");
    cJSON *problem = cJSON_Parse(reply.body);
    assert_member(problem, "title", "Données invalides");
    const cJSON *errors = cJSON_GetObjectItemCaseSensitive(problem, "errors");
    assert_int_equal(cJSON_GetArraySize(errors), 2);
    assert_member(cJSON_GetArrayItem(errors, 0), "pointer", "/date");
    assert_member(cJSON_GetArrayItem(errors, 0), "detail", "pas une date : \"");
    assert_member(cJSON_GetArrayItem(errors, 1), "pointer", "");
    assert_header(&reply, "Retry-After", NULL);
    cJSON_Delete(problem);
    raw_reply_done(&reply);
}

static void test_503_says_when_to_come_back(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(port, "GET /busy HTTP/1.1\r\n" HOST "\r\n", 503);
    assert_problem(&reply, "/busy", "Service momentanément indisponible");
    assert_header(&reply, "Retry-After", "5");
    raw_reply_done(&reply);
}

static void test_a_handlers_mistakes_are_500(void **state)
{
    static const char *const targets[] = {"/silent", "/overflowing"};
    (void)state;
    for (size_t i = 0; i < COUNT(targets); i++) {
        char *request = mem_format("GET %s HTTP/1.1\r\n" HOST "\r\n", targets[i]);
        struct raw_reply reply = raw_exchange(port, request, 500);
        assert_problem(&reply, targets[i], NULL);
        raw_reply_done(&reply);
        free(request);
    }
}

static void test_each_call_is_logged_for_debugging(void **state)
{
    char name[] = "/tmp/http-log-XXXXXX", text[4096];
    int file = mkstemp(name), stdout_fd = dup(STDOUT_FILENO);
    (void)state;
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    log_init("test", "json", "debug");
    struct raw_reply reply = raw_exchange(
        port, "GET /nothing?secret=1 HTTP/1.1\r\n" HOST "X-Request-Id: r1\r\n\r\n", 404);
    assert_true(http_server_idle(server, RAW_TIMEOUT_S * 1000));
    http_server_close(server); /* its threads write no more */
    server = NULL;
    log_init("test", "pretty", "info");
    dup2(stdout_fd, STDOUT_FILENO);
    ssize_t len = pread(file, text, sizeof text - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    close(file);
    close(stdout_fd);
    unlink(name);
    raw_reply_done(&reply);

    char *line = strstr(text, "{\"time\"");
    while (line && !strstr(line, "http.request"))
        line = strstr(line + 1, "{\"time\"");
    assert_non_null(line);
    cJSON *entry = cJSON_ParseWithOpts(line, NULL, false);
    assert_member(entry, "event", "http.request");
    assert_member(entry, "method", "GET");
    assert_member(entry, "path", "/nothing");
    assert_member(entry, "requestId", "r1");
    assert_int_equal(cJSON_GetObjectItemCaseSensitive(entry, "status")->valueint, 404);
    assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(entry, "durationMs")));
    assert_null(strstr(text, "secret"));
    cJSON_Delete(entry);
}

/* ---- addresses ---- */

static void test_a_busy_port_is_named(void **state)
{
    struct http_server_config config = {.bind = "127.0.0.1",
                                        .port = port,
                                        .threads = 2,
                                        .max_body_bytes = 1024,
                                        .max_connections = 10,
                                        .idle_timeout_s = 5,
                                        .cors_origin = ""};
    struct http_server *second = NULL;
    struct err err;
    char number[8];
    (void)state;
    assert_int_equal(http_server_open(&second, &config, &err), STATUS_NETWORK);
    snprintf(number, sizeof number, "%u", port);
    assert_non_null(strstr(err.text, number));
    assert_non_null(strstr(err.text, "in use"));
    config.bind = "not an address";
    assert_int_equal(http_server_open(&second, &config, &err), STATUS_NETWORK);
    assert_non_null(strstr(err.text, "not an address"));
    assert_null(second);
}

static void test_no_address_means_ipv4_and_ipv6(void **state)
{
    (void)state;
    http_server_close(server);
    server = raw_server(
        (struct http_server_config){
            .bind = "",
            .threads = 1,
            .routes = routes,
            .route_count = COUNT(routes),
        },
        &port);
    struct raw_reply reply = raw_exchange(port, "GET / HTTP/1.1\r\n" HOST "\r\n", 200);
    raw_reply_done(&reply);

    struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct raw_client client = {.fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    buf_init(&client.received, RAW_MAX_BYTES);
    if (client.fd < 0 || connect(client.fd, (struct sockaddr *)&address, sizeof address) != 0) {
        raw_close(&client);
        skip(); /* no IPv6 here */
    }
    raw_send(&client, "GET / HTTP/1.1\r\n" HOST "\r\n");
    reply = raw_expect(&client, 200);
    raw_reply_done(&reply);
    raw_close(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_id_is_kept_when_well_formed),
        TEST(test_two_request_ids_are_none),
        TEST(test_handlers_set_headers),
        TEST(test_cache_control_is_the_handlers_or_ours),
        TEST(test_a_problem_names_every_error),
        TEST(test_503_says_when_to_come_back),
        TEST(test_a_handlers_mistakes_are_500),
        TEST(test_each_call_is_logged_for_debugging),
        TEST(test_a_busy_port_is_named),
        TEST(test_no_address_means_ipv4_and_ipv6),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
