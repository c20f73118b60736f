/* Tokens at the HTTP server: what a route's flags say, and when the answer comes. */
#include "raw_http.h"

#include <string.h>

#include "temp_folder.h"

#define JSON "Content-Type: application/json\r\n"
/* printf %s reader-token | sha256sum */
#define FILE_TEXT                                                                                            \
    "r read sha256:ba5005a40cf5212e4ac0190104cc127edab013294bb71279a975b27a80982d45\n"                       \
    "w write sha256:3590c0a59f72ce02700194a05f228a725c1f135a6dcb3ded9b2d86ab6a6f52cb\n"
#define READER "Authorization: Bearer reader-token\r\n"
#define WRITER "Authorization: Bearer writer-token\r\n"

static unsigned port;
static struct http_server *server;
static struct tokens *tokens;

static void whose(struct http_call *call, void *service)
{
    struct buf body;
    (void)service;
    buf_init(&body, 256);
    buf_format(&body, "{\"token\":\"%s\"}", http_call_token_name(call));
    http_answer_json(call, 200, &body);
}

static const struct http_route routes[] = {
    {"GET", "/", whose, 0},
    {"POST", "/", whose, HTTP_TAKES_JSON},
    {"DELETE", "/{id}", whose, 0},
    {"GET", "/open", whose, HTTP_OPEN},
    {"POST", "/open", whose, HTTP_OPEN | HTTP_TAKES_JSON},
    {"GET", "/metrics", whose, HTTP_METRICS},
};

static void open_server(bool with_tokens, bool metrics_open)
{
    if (with_tokens) {
        CLEANUP(drop_folder) char *folder = temp_folder();
        CLEANUP(free_text) char *path = mem_format("%s/tokens", folder);
        CLEANUP(buf_done) struct buf problems;
        buf_init(&problems, 4096);
        write_file(path, FILE_TEXT, strlen(FILE_TEXT));
        assert_int_equal(tokens_open(&tokens, path, &problems), STATUS_OK);
    }
    server = raw_server(
        (struct http_server_config){
            .tokens = tokens, .metrics_open = metrics_open, .routes = routes, .route_count = COUNT(routes)},
        &port);
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(server);
    tokens_close(tokens);
    server = NULL;
    tokens = NULL;
    return 0;
}

/* The answer to a request with these headers and no body; where it is 200, it names the token. */
static void expect(const char *line, const char *headers, int status, const char *name)
{
    CLEANUP(free_text) char *request = mem_format("%s HTTP/1.1\r\nHost: x\r\n%s\r\n", line, headers);
    struct raw_reply reply = raw_exchange(port, request, status);
    if (status == 200) {
        cJSON *body = cJSON_Parse(reply.body);
        assert_member(body, "token", name);
        cJSON_Delete(body);
    }
    raw_reply_done(&reply);
}

static void test_without_tokens_everything_is_open(void **state)
{
    (void)state;
    open_server(false, false);
    expect("GET /", "", 200, "");
    expect("GET /", WRITER, 200, "");
    expect("POST /", "", 200, "");
    expect("GET /metrics", "", 200, "");
}

static void test_get_asks_for_a_reader_and_the_rest_for_a_writer(void **state)
{
    (void)state;
    open_server(true, true);
    expect("GET /", "", 401, NULL);
    expect("GET /", READER, 200, "r");
    expect("GET /", WRITER, 200, "w");
    expect("POST /", "", 401, NULL);
    expect("POST /", READER, 403, NULL);
    expect("POST /", WRITER, 200, "w");
    expect("DELETE /x", READER, 403, NULL);
    expect("DELETE /x", WRITER, 200, "w");
}

static void test_an_open_route_asks_nobody(void **state)
{
    (void)state;
    open_server(true, false);
    expect("GET /open", "", 200, "");
    expect("POST /open", "", 200, "");
    expect("GET /open", "Authorization: Bearer nonsense\r\n", 200, "");
    expect("OPTIONS /", "", 204, NULL);
    expect("GET /nowhere/at/all", "", 404, NULL);
    expect("BREW /", "", 405, NULL);
}

static void test_metrics_are_open_or_not(void **state)
{
    (void)state;
    open_server(true, true);
    expect("GET /metrics", "", 200, "");
    (void)teardown(NULL);
    open_server(true, false);
    expect("GET /metrics", "", 401, NULL);
    expect("GET /metrics", READER, 200, "r");
}

static void test_a_challenge_says_what_is_missing(void **state)
{
    (void)state;
    static const struct {
        const char *headers, *challenge;
        int status;
    } cases[] = {
        {"", "Bearer realm=\"soirees\"", 401},
        {"Authorization: Bearer x\r\n", "Bearer realm=\"soirees\", error=\"invalid_token\"", 401},
        {WRITER WRITER, "Bearer realm=\"soirees\", error=\"invalid_token\"", 401},
        {READER, "Bearer realm=\"soirees\", error=\"insufficient_scope\", scope=\"write\"", 403},
    };
    open_server(true, true);
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text)
        char *request = mem_format("POST / HTTP/1.1\r\nHost: x\r\n%s\r\n", cases[i].headers);
        struct raw_reply reply = raw_exchange(port, request, cases[i].status);
        assert_header(&reply, "WWW-Authenticate", cases[i].challenge);
        assert_header(&reply, "Cache-Control", "no-store");
        raw_reply_done(&reply);
    }
}

/* Who may not send a body is told so before sending it. */
static void test_no_body_is_waited_for(void **state)
{
    (void)state;
    open_server(true, true);
    struct raw_client client = raw_connect(port);
    raw_send(&client,
             "POST / HTTP/1.1\r\nHost: x\r\n" JSON "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    struct raw_reply reply = raw_expect(&client, 401);
    raw_reply_done(&reply);
    raw_close(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_without_tokens_everything_is_open),
        TEST(test_get_asks_for_a_reader_and_the_rest_for_a_writer),
        TEST(test_an_open_route_asks_nobody),
        TEST(test_metrics_are_open_or_not),
        TEST(test_a_challenge_says_what_is_missing),
        TEST(test_no_body_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
