/* The HTTP server's routes, methods, paths, queries and CORS, over raw sockets. */
#include "raw_http.h"

#include "log.h"

static int service_marker;
static unsigned port;
static struct http_server *server;

/* ---- a service ---- */

static void echo(struct http_call *call, void *service)
{
    assert_ptr_equal(service, &service_marker);
    raw_echo(call, service);
}

static void special(struct http_call *call, void *service)
{
    (void)service;
    http_answer_empty(call, 204);
}

enum { LARGE_BYTES = 1024 * 1024 };

static void large(struct http_call *call, void *service)
{
    (void)service;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, LARGE_BYTES);
    for (size_t i = 0; i < LARGE_BYTES / 8; i++)
        buf_format(&out, "%08zu", i);
    http_answer_bytes(call, 200, "text/plain; version=0.0.4", &out);
}

static const struct http_route routes[] = {
    {"GET", "/api/things", echo, 0},
    {"POST", "/api/things", echo, HTTP_TAKES_JSON},
    {"GET", "/api/things/special", special, 0},
    {"GET", "/api/things/{id}", echo, 0},
    {"PATCH", "/api/things/{id}", echo, HTTP_TAKES_JSON},
    {"DELETE", "/api/things/{id}", echo, 0},
    {"GET", "/large", large, 0},
    {"POST", "/only-post", echo, 0},
    {"GET", "/", echo, 0},
};

static struct http_server *open_server(const char *cors_origin)
{
    struct http_server_config config = {.cors_origin = cors_origin,
                                        .routes = routes,
                                        .route_count = COUNT(routes),
                                        .service = &service_marker};
    return raw_server(config, &port);
}

static int setup(void **state)
{
    (void)state;
    server = open_server("*");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(server);
    return 0;
}

/* What echo saw of a request whose head is complete. */
static cJSON *echoed(const char *request)
{
    struct raw_reply reply = raw_exchange(port, request, 200);
    assert_header(&reply, "Content-Type", "application/json; charset=utf-8");
    cJSON *seen = cJSON_Parse(reply.body);
    assert_non_null(seen);
    raw_reply_done(&reply);
    return seen;
}

static void assert_echoes(const char *request, const char *member, const char *text)
{
    cJSON *seen = echoed(request);
    assert_member(seen, member, text);
    cJSON_Delete(seen);
}

static void test_several_lines_of_a_header_are_one_list(void **state)
{
    (void)state;
    assert_echoes("GET / HTTP/1.1\r\n" HOST "If-Match: \"1\"\r\nX: 1\r\nIF-MATCH:\"2\"\r\nif-match:\r\n"
                  "If-Match: \"3\", W/\"4\"\r\nIf-Matches: 5\r\n\r\n",
                  "ifMatch", "\"1\", \"2\", , \"3\", W/\"4\"");
    assert_echoes("GET / HTTP/1.1\r\n" HOST "If-Match: \"1\"\r\n\r\n", "ifMatch", "\"1\"");
}

/* ---- routing ---- */

static void test_a_get_reaches_its_handler(void **state)
{
    (void)state;
    cJSON *seen = echoed("GET /api/things?a=1&b=deux HTTP/1.1\r\n" HOST "If-Match: \"v1\"\r\n\r\n");
    assert_member(seen, "method", "GET");
    assert_member(seen, "path", "/api/things");
    assert_member(seen, "param", "");
    assert_member(seen, "queryText", "a=1&b=deux");
    assert_member(seen, "a", "1");
    assert_member(seen, "b", "deux");
    assert_member(seen, "ifMatch", "\"v1\"");
    assert_member(seen, "body", "");
    cJSON_Delete(seen);
}

static void test_paths_are_decoded_after_they_are_split(void **state)
{
    static const struct {
        const char *path, *param;
    } cases[] = {
        {"/api/things/a%20b", "a b"},
        {"/api/things/%C3%A9t%C3%a9", "été"},
        {"/api/things/été", "été"},
        {"/api/things/a+b", "a+b"},
        {"/api/things/42/", "42"},
        {"/api/thing%73/42", "42"},
        {"/api/things/%7Bid%7D", "{id}"},
        {"/api/things/..", ".."},
        {"/api/things/%25", "%"},
        {"/api/things/", ""},
        {"/", ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *request = mem_format("GET %s HTTP/1.1\r\n" HOST "\r\n", cases[i].path);
        cJSON *seen = echoed(request);
        assert_member(seen, "param", cases[i].param);
        assert_member(seen, "path", cases[i].path);
        cJSON_Delete(seen);
        free(request);
    }
}

static void test_unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {
        "/nothing",          "/api/things/1/2",  "/api//things",    "/api/things//",   "/API/things",
        "/api/things/a%2Fb", "/api/things/%00",  "/api/things/%",   "/api/things/%2",  "/api/things/%zz",
        "/api/things/%ff",   "/api/things/\xC3", "/api/things%2F1", "/api/thingsmore", "//",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(paths); i++) {
        char *request = mem_format("GET %s HTTP/1.1\r\n" HOST "\r\n", paths[i]);
        struct raw_reply reply = raw_exchange(port, request, 404);
        if (!strchr(paths[i], '\xC3'))
            assert_problem(&reply, paths[i], "Aucune ressource à ce chemin");
        assert_header(&reply, "Connection", NULL);
        raw_reply_done(&reply);
        free(request);
    }
}

static void test_the_absolute_form_of_a_target_is_understood(void **state)
{
    (void)state;
    assert_echoes("GET http://test:1/api/things/7?a=b HTTP/1.1\r\n" HOST "\r\n", "param", "7");
    assert_echoes("GET HTTPS://test?a=b HTTP/1.1\r\n" HOST "\r\n", "path", "/");
    assert_echoes("GET http://test HTTP/1.1\r\n" HOST "\r\n", "path", "/");
}

static void test_queries_are_decoded(void **state)
{
    (void)state;
    assert_echoes("GET /?a=x+y%2Bz%26%C3%A9 HTTP/1.1\r\n" HOST "\r\n", "a", "x y+z&é");
    assert_echoes("GET /?%61=1 HTTP/1.1\r\n" HOST "\r\n", "a", "1");
    assert_echoes("GET /?a&b=2 HTTP/1.1\r\n" HOST "\r\n", "a", "");
    assert_echoes("GET /?&&a=1=2&& HTTP/1.1\r\n" HOST "\r\n", "a", "1=2");
    assert_echoes("GET /?a=%2F%3f HTTP/1.1\r\n" HOST "\r\n", "queryText", "a=%2F%3f");
    assert_echoes("GET /? HTTP/1.1\r\n" HOST "\r\n", "queryText", "");
}

/* Each of them once had a NUL of its own written, behind the room for what is decoded. */
static void test_parameters_without_a_value_fit_into_a_long_target(void **state)
{
    char filler[600] = "";
    (void)state;
    memset(filler, 'x', sizeof filler - 1);
    for (size_t len = 430; len < sizeof filler; len += 13) {
        char *request = mem_format("GET /?c1&c2&c3&c4&c5&c6&c7&c8&c9&c10&c11&c12&c13&%.*s&a HTTP/1.1\r\n" HOST
                                   "\r\n",
                                   (int)len, filler);
        assert_echoes(request, "a", "");
        free(request);
    }
}

static void test_wrong_queries_are_422(void **state)
{
    static const struct {
        const char *query, *detail;
    } cases[] = {
        {"a=1&a=2", "Paramètre de requête donné deux fois : a"},
        {"a=1&%61=2", "Paramètre de requête donné deux fois : a"},
        {"a=%00", "Paramètre de requête mal encodé"},
        {"a=%ff", "Paramètre de requête mal encodé"},
        {"%=1", "Paramètre de requête mal encodé"},
        {"c1&c2&c3&c4&c5&c6&c7&c8&c9&c10&c11&c12&c13&c14&c15&c16&c17", "Trop de paramètres de requête"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *request = mem_format("GET /?%s HTTP/1.1\r\n" HOST "\r\n", cases[i].query);
        struct raw_reply reply = raw_exchange(port, request, 422);
        assert_problem(&reply, "/", cases[i].detail);
        raw_reply_done(&reply);
        free(request);
    }
}

static void test_another_method_is_405_with_allow(void **state)
{
    static const struct {
        const char *method, *path, *allow;
    } cases[] = {
        {"PUT", "/api/things", "GET, HEAD, POST, OPTIONS"},
        {"POST", "/api/things/1", "GET, HEAD, PATCH, DELETE, OPTIONS"},
        {"GET", "/only-post", "POST, OPTIONS"},
        {"TRACE", "/only-post/", "POST, OPTIONS"},
        {"BREW", "/only-post", "POST, OPTIONS"},
        {"get", "/", "GET, HEAD, OPTIONS"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *request = mem_format("%s %s HTTP/1.1\r\n" HOST "\r\n", cases[i].method, cases[i].path);
        struct raw_reply reply = raw_exchange(port, request, 405);
        assert_problem(&reply, cases[i].path, NULL);
        assert_header(&reply, "Allow", cases[i].allow);
        raw_reply_done(&reply);
        free(request);
    }
    struct raw_client client = raw_connect(port); /* HEAD is served by GET's row alone */
    raw_send(&client, "HEAD /only-post HTTP/1.1\r\n" HOST "\r\n");
    struct raw_reply reply;
    assert_true(raw_read_reply(&client, true, &reply));
    assert_int_equal(reply.status, 405);
    raw_reply_done(&reply);
    raw_close(&client);
}

static void test_head_is_get_without_the_body(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    struct raw_reply get, head, after;
    raw_send(&client, "GET /large HTTP/1.1\r\n" HOST "\r\n");
    get = raw_expect(&client, 200);
    assert_int_equal(get.body_len, LARGE_BYTES);
    raw_send(&client, "HEAD /large HTTP/1.1\r\n" HOST "\r\n");
    assert_true(raw_read_reply(&client, true, &head));
    assert_int_equal(head.status, 200);
    assert_header(&head, "Content-Length", "1048576");
    assert_header(&head, "Content-Type", "text/plain; version=0.0.4");
    raw_send(&client, "GET / HTTP/1.1\r\n" HOST "\r\n");
    after = raw_expect(&client, 200);
    raw_reply_done(&get);
    raw_reply_done(&head);
    raw_reply_done(&after);
    raw_close(&client);
}

static void test_options_lists_the_methods(void **state)
{
    static const struct {
        const char *path, *allow;
    } cases[] = {
        {"/api/things", "GET, HEAD, POST, OPTIONS"},
        {"/api/things/1", "GET, HEAD, PATCH, DELETE, OPTIONS"},
        {"*", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *request = mem_format("OPTIONS %s HTTP/1.1\r\n" HOST "\r\n", cases[i].path);
        struct raw_reply reply = raw_exchange(port, request, 204);
        assert_header(&reply, "Allow", cases[i].allow);
        assert_header(&reply, "Access-Control-Allow-Origin", "*");
        assert_header(&reply, "Access-Control-Allow-Methods", NULL);
        assert_header(&reply, "Content-Length", NULL);
        assert_non_null(raw_header(&reply, "X-Request-Id"));
        raw_reply_done(&reply);
        free(request);
    }
    struct raw_reply reply = raw_exchange(port, "OPTIONS /nothing HTTP/1.1\r\n" HOST "\r\n", 404);
    raw_reply_done(&reply);
}

static void test_a_fixed_path_comes_before_a_parameter(void **state)
{
    (void)state;
    struct raw_reply reply = raw_exchange(port, "GET /api/things/special HTTP/1.1\r\n" HOST "\r\n", 204);
    raw_reply_done(&reply);
}

/* ---- CORS ---- */

#define PREFLIGHT                                                                                            \
    "OPTIONS /api/things/1 HTTP/1.1\r\n" HOST "Origin: %s\r\nAccess-Control-Request-Method: PATCH\r\n\r\n"

static struct raw_reply preflight(const char *origin)
{
    char *request = mem_format(PREFLIGHT, origin);
    struct raw_reply reply = raw_exchange(port, request, 204);
    free(request);
    return reply;
}

static void test_a_preflight_names_methods_and_headers(void **state)
{
    (void)state;
    struct raw_reply reply = preflight("https://example.org");
    assert_header(&reply, "Access-Control-Allow-Origin", "*");
    assert_header(&reply, "Access-Control-Allow-Methods", "GET, HEAD, PATCH, DELETE, OPTIONS");
    assert_header(
        &reply, "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id, traceparent, "
        "Playlist-Request");
    assert_header(&reply, "Access-Control-Max-Age", "7200");
    assert_header(&reply, "Access-Control-Allow-Credentials", NULL);
    assert_header(&reply, "Vary", NULL);
    raw_reply_done(&reply);
}

static void test_every_answer_carries_cors_headers(void **state)
{
    static const char *const targets[] = {"/", "/api/things/special", "/nothing", "/?a&a"};
    (void)state;
    for (size_t i = 0; i < COUNT(targets); i++) {
        struct raw_client client = raw_connect(port);
        struct raw_reply reply;
        char *request = mem_format("GET %s HTTP/1.1\r\n" HOST "\r\n", targets[i]);
        raw_send(&client, request);
        assert_true(raw_read_reply(&client, false, &reply));
        assert_header(&reply, "Access-Control-Allow-Origin", "*");
        assert_header(&reply, "Access-Control-Expose-Headers",
                      "ETag, Link, Location, Retry-After, X-Request-Id");
        raw_reply_done(&reply);
        raw_close(&client);
        free(request);
    }
}

static void test_one_origin_is_told_only_to_itself(void **state)
{
    (void)state;
    http_server_close(server);
    server = open_server("https://example.org");
    struct raw_reply ours = preflight("https://example.org"), other = preflight("https://example.org.evil");
    struct raw_reply none = raw_exchange(port, "GET / HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_header(&ours, "Access-Control-Allow-Origin", "https://example.org");
    assert_header(&ours, "Vary", "Origin");
    assert_non_null(raw_header(&ours, "Access-Control-Allow-Methods"));
    assert_header(&other, "Access-Control-Allow-Origin", NULL);
    assert_header(&other, "Access-Control-Allow-Methods", NULL);
    assert_header(&other, "Vary", "Origin");
    assert_header(&none, "Access-Control-Allow-Origin", NULL);
    assert_header(&none, "Access-Control-Expose-Headers", NULL);
    assert_header(&none, "Vary", "Origin");
    raw_reply_done(&ours);
    raw_reply_done(&other);
    raw_reply_done(&none);
}

static void test_cors_can_be_off(void **state)
{
    (void)state;
    http_server_close(server);
    server = open_server("");
    struct raw_reply reply = preflight("https://example.org");
    assert_header(&reply, "Access-Control-Allow-Origin", NULL);
    assert_header(&reply, "Access-Control-Allow-Methods", NULL);
    assert_header(&reply, "Vary", NULL);
    assert_header(&reply, "Allow", "GET, HEAD, PATCH, DELETE, OPTIONS");
    raw_reply_done(&reply);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_get_reaches_its_handler),
        TEST(test_paths_are_decoded_after_they_are_split),
        TEST(test_unknown_paths_are_404),
        TEST(test_the_absolute_form_of_a_target_is_understood),
        TEST(test_queries_are_decoded),
        TEST(test_several_lines_of_a_header_are_one_list),
        TEST(test_parameters_without_a_value_fit_into_a_long_target),
        TEST(test_wrong_queries_are_422),
        TEST(test_another_method_is_405_with_allow),
        TEST(test_head_is_get_without_the_body),
        TEST(test_options_lists_the_methods),
        TEST(test_a_fixed_path_comes_before_a_parameter),
        TEST(test_a_preflight_names_methods_and_headers),
        TEST(test_every_answer_carries_cors_headers),
        TEST(test_one_origin_is_told_only_to_itself),
        TEST(test_cors_can_be_off),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
