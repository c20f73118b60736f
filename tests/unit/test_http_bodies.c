/* Request bodies at the HTTP server: their types, sizes and encodings, and what happens to those it does not
 * want. */
#include "raw_http.h"

#include "log.h"

#define JSON "Content-Type: application/json\r\n"

enum { MAX_BODY = 64 * 1024 };

static unsigned port;
static struct http_server *server;

static const struct http_route routes[] = {
    {"GET", "/", raw_echo, 0},
    {"POST", "/things", raw_echo, HTTP_TAKES_JSON},
    {"PATCH", "/things", raw_echo, HTTP_TAKES_JSON},
    {"POST", "/anything", raw_echo, 0},
};

static int setup(void **state)
{
    (void)state;
    server = raw_server((struct http_server_config){.max_body_bytes = MAX_BODY,
                                                    .routes = routes,
                                                    .route_count = COUNT(routes)},
                        &port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(server);
    return 0;
}

static void expect(struct raw_client *client, int status)
{
    struct raw_reply reply = raw_expect(client, status);
    raw_reply_done(&reply);
}

/* A 200 of raw_echo that saw this body. */
static void expect_body(struct raw_client *client, const char *body, size_t len)
{
    struct raw_reply reply = raw_expect(client, 200);
    cJSON *seen = cJSON_Parse(reply.body);
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(seen, "body");
    assert_true(cJSON_IsString(found));
    assert_int_equal(strlen(found->valuestring), len);
    assert_memory_equal(found->valuestring, body, len);
    cJSON_Delete(seen);
    raw_reply_done(&reply);
}

static void expect_alive(struct raw_client *client)
{
    raw_send(client, "GET / HTTP/1.1\r\n" HOST "\r\n");
    expect(client, 200);
}

static char *letters(size_t len)
{
    char *text = mem_new(len + 1);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + i % 26);
    return text;
}

static void test_only_json_is_taken_where_json_is_asked_for(void **state)
{
    static const struct {
        const char *method, *type;
        int status;
    } cases[] = {
        {"POST", "application/json", 200},
        {"POST", "Application/JSON", 200},
        {"POST", "application/json; charset=utf-8", 200},
        {"POST", "application/json;charset=\"UTF-8\"", 200},
        {"POST", "application/json ; version=1 ; charset=UTF-8 ", 200},
        {"POST", "application/json;", 200},
        {"PATCH", "application/merge-patch+json", 200},
        {"PATCH", "application/json", 200},
        {"POST", "application/merge-patch+json", 415},
        {"POST", "application/json; charset=iso-8859-1", 415},
        {"POST", "application/json; charset=\"utf-8", 415},
        {"POST", "application/json; charset=utf-8; charset=latin1", 415},
        {"POST", "application/json charset=utf-8", 415},
        {"POST", "application/jsonp", 415},
        {"POST", "application/x-www-form-urlencoded", 415},
        {"POST", "text/plain", 415},
        {"POST", "", 415},
    };
    (void)state;
    struct raw_client client = raw_connect(port);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *request = mem_format("%s /things HTTP/1.1\r\n" HOST
                                   "Content-Type: %s\r\nContent-Length: 2\r\n\r\n{}",
                                   cases[i].method, cases[i].type);
        raw_send(&client, request);
        struct raw_reply reply = raw_expect(&client, cases[i].status);
        if (cases[i].status == 415)
            assert_problem(&reply, "/things", NULL);
        raw_reply_done(&reply);
        free(request);
    }
    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
    expect(&client, 415); /* no type at all */
    raw_send(&client, "POST /anything HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
    expect_body(&client, "{}", 2);
    raw_close(&client);
}

static void test_an_empty_body_is_the_handlers_business(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST "\r\n");
    expect_body(&client, "", 0);
    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    expect_body(&client, "", 0);
    raw_close(&client);
}

static void test_bodies_of_every_size_arrive_whole(void **state)
{
    static const size_t sizes[] = {1, 1022, 1023, 1024, 1025, 16 * 1024, MAX_BODY - 1, MAX_BODY};
    (void)state;
    struct raw_client client = raw_connect(port);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        char *body = letters(sizes[i]);
        char *head = mem_format("POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: %zu\r\n\r\n",
                                sizes[i]);
        raw_send(&client, head);
        raw_send(&client, body);
        expect_body(&client, body, sizes[i]);
        free(head);
        free(body);
    }
    raw_close(&client);
}

static void send_chunk(struct raw_client *client, const char *bytes, size_t len)
{
    char size[16];
    snprintf(size, sizeof size, "%zx\r\n", len);
    raw_send(client, size);
    raw_send_n(client, bytes, len);
    raw_send(client, "\r\n");
}

static void test_chunked_bodies_arrive_whole(void **state)
{
    static const size_t chunks[] = {1, 7, 1000, 5000, MAX_BODY};
    (void)state;
    struct raw_client client = raw_connect(port);
    char *body = letters(MAX_BODY);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        size_t total = chunks[i] == 1 ? 3000 : MAX_BODY;
        raw_send(&client, "POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: Chunked\r\n\r\n");
        for (size_t at = 0; at < total; at += chunks[i])
            send_chunk(&client, body + at, total - at < chunks[i] ? total - at : chunks[i]);
        raw_send(&client, "0\r\n\r\n");
        expect_body(&client, body, total);
    }
    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n"
                      "2;ext=1\r\n{}\r\n0;last\r\nX-Trailer: 1\r\n\r\n");
    expect_body(&client, "{}", 2);
    free(body);
    raw_close(&client);
}

static void test_a_length_over_the_limit_is_413_at_once(void **state)
{
    static const char *const lengths[] = {"65537", "1000000", "9223372036854775807", "18446744073709551614"};
    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct raw_client client = raw_connect(port);
        char *request = mem_format("POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: %s\r\n\r\n",
                                   lengths[i]);
        raw_send(&client, request);
        struct raw_reply reply = raw_expect(&client, 413);
        assert_problem(&reply, "/things", "Le corps de la requête est trop volumineux");
        assert_header(&reply, "Connection", "close");
        assert_closed(&client);
        raw_reply_done(&reply);
        raw_close(&client);
        free(request);
    }
}

static void test_what_is_wrong_with_the_path_is_said_before_the_length(void **state)
{
    static const struct {
        const char *line;
        int status;
    } cases[] = {{"POST /nothing", 404}, {"PUT /things", 405}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct raw_client client = raw_connect(port);
        char *request = mem_format("%s HTTP/1.1\r\n" HOST "Content-Length: 70000\r\n\r\n", cases[i].line);
        raw_send(&client, request);
        expect(&client, cases[i].status);
        assert_closed(&client);
        raw_close(&client);
        free(request);
    }
}

static void test_who_sends_it_all_the_same_still_reads_the_413(void **state)
{
    enum { LARGE = 8 * 1024 * 1024 };
    (void)state;
    struct raw_client client = raw_connect(port);
    char *body = letters(LARGE);
    char *head = mem_format("POST /things HTTP/1.1\r\n" HOST JSON "Content-Length: %d\r\n\r\n", LARGE);
    raw_send(&client, head);
    raw_send_n(&client, body, LARGE);
    expect(&client, 413);
    assert_closed(&client);
    free(head);
    free(body);
    raw_close(&client);
}

static void test_a_chunked_body_over_the_limit_is_413_at_its_end(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    char *body = letters(MAX_BODY);
    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++)
        send_chunk(&client, body, MAX_BODY);
    raw_send(&client, "0\r\n\r\n");
    struct raw_reply reply = raw_expect(&client, 413);
    assert_problem(&reply, "/things", NULL);
    raw_reply_done(&reply);
    expect_alive(&client);

    raw_send(&client, "POST /things HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 4; i++)
        send_chunk(&client, body, MAX_BODY);
    (void)send(client.fd, "1\r\nx\r\n", 6, MSG_NOSIGNAL); /* one byte beyond four times the limit */
    assert_closed(&client);
    free(body);
    raw_close(&client);
}

static void test_a_refused_body_is_read_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct raw_client client = raw_connect(port);
    raw_send(&client, "POST /nothing HTTP/1.1\r\n" HOST
                      "Content-Length: 30\r\n\r\nGET / HTTP/1.1\r\nHost: hidden\r\n\r\n");
    expect(&client, 404);
    raw_send(&client,
             "PUT /things HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    expect(&client, 405);
    raw_send(&client, "GET / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
    expect_body(&client, "abc", 3);
    raw_close(&client);
}

static void test_100_continue_comes_only_when_the_body_is_wanted(void **state)
{
    static const struct {
        const char *path, *headers;
        int status;
    } cases[] = {{"/nothing", JSON "Content-Length: 2\r\n", 404},
                 {"/things", "Content-Type: text/plain\r\nContent-Length: 2\r\n", 415},
                 {"/things", "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n", 415},
                 {"/things", JSON "Content-Length: 70000\r\n", 413}};
    (void)state;
    struct raw_client client = raw_connect(port);
    raw_send(&client,
             "POST /things HTTP/1.1\r\n" HOST JSON "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    expect(&client, 100);
    raw_send(&client, "{}");
    expect_body(&client, "{}", 2);
    raw_close(&client);
    for (size_t i = 0; i < COUNT(cases); i++) {
        client = raw_connect(port);
        char *request = mem_format("POST %s HTTP/1.1\r\n" HOST "%sExpect: 100-continue\r\n\r\n",
                                   cases[i].path, cases[i].headers);
        raw_send(&client, request);
        expect(&client, cases[i].status);
        assert_closed(&client);
        raw_close(&client);
        free(request);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_only_json_is_taken_where_json_is_asked_for),
        TEST(test_an_empty_body_is_the_handlers_business),
        TEST(test_bodies_of_every_size_arrive_whole),
        TEST(test_chunked_bodies_arrive_whole),
        TEST(test_a_length_over_the_limit_is_413_at_once),
        TEST(test_what_is_wrong_with_the_path_is_said_before_the_length),
        TEST(test_who_sends_it_all_the_same_still_reads_the_413),
        TEST(test_a_chunked_body_over_the_limit_is_413_at_its_end),
        TEST(test_a_refused_body_is_read_and_the_connection_goes_on),
        TEST(test_100_continue_comes_only_when_the_body_is_wanted),
    };
    log_init("test", "pretty", "info");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
