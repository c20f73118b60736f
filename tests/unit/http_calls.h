/* Exchanges of http_client with a server that does all it can do wrong. Callbacks run in the loop's thread and assert
 * nothing: they note, and post. */
#ifndef TESTS_HTTP_CALLS_H
#define TESTS_HTTP_CALLS_H

#include "tiny_http.h"

#include "http_client.h"
#include "ids.h"

/* What the test's server does, by path. */
static inline enum tiny_then answer(void *arg, const char *request, struct buf *reply)
{
    const char *path = strchr(request, ' ') + 1;
    (void)arg;
    if (strncmp(path, "/echo", 5) == 0) {
        tiny_reply(reply, 200, "", request);
    } else if (strncmp(path, "/status/", 8) == 0) {
        tiny_reply(reply, atoi(path + 8), "Location: /echo\r\n", "{}");
    } else if (strncmp(path, "/index/", 7) == 0) {
        CLEANUP(free_text) char *index = mem_format("X-Consul-Index:%.*s\r\n", (int)strcspn(path + 7, " "), path + 7);
        tiny_reply(reply, 200, index, "[]");
    } else if (strncmp(path, "/bytes/", 7) == 0) {
        CLEANUP(free_text) char *body = mem_new(strtoul(path + 7, NULL, 10) + 1);
        memset(body, 'x', strtoul(path + 7, NULL, 10));
        tiny_reply(reply, 200, "", body);
    } else if (strncmp(path, "/untyped", 8) == 0) {
        buf_text(reply, "HTTP/1.1 204 No Content\r\n\r\n");
    } else if (strncmp(path, "/endless", 8) == 0) {
        buf_text(reply, "HTTP/1.1 200 OK\r\n\r\n");
        for (int i = 0; i < 20000; i++)
            buf_text(reply, "a reply without a length, and without an end that anybody waits for");
        return TINY_TRICKLE;
    } else if (strncmp(path, "/trickle", 8) == 0) {
        buf_text(reply, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        return TINY_TRICKLE;
    } else if (strncmp(path, "/half", 5) == 0) {
        buf_text(reply, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        return TINY_CLOSE;
    } else if (strncmp(path, "/garbage", 8) == 0) {
        buf_text(reply, "220 mail.example.org ESMTP\r\n");
        return TINY_CLOSE;
    } else if (strncmp(path, "/closed", 7) == 0) {
        return TINY_CLOSE;
    } else {
        return TINY_SILENT;
    }
    return TINY_KEEP;
}

struct fixture {
    struct tiny_http *server;
    struct http_client *client;
};

static inline int new_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    struct err err = {0};
    fixture->server = tiny_start(answer, NULL);
    if (http_client_start(&fixture->client, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    *state = fixture;
    return 0;
}

static inline int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    http_client_stop(fixture->client);
    http_client_free(fixture->client);
    tiny_stop(fixture->server);
    free(fixture);
    return 0;
}

static inline char *url_of(const struct fixture *fixture, const char *path)
{
    return mem_format("http://127.0.0.1:%u%s", fixture->server->port, path);
}

/* ---- one exchange, waited for ---- */

struct call {
    struct http_exchange exchange;
    struct http_client *client;
    struct http_task task;
    char *url;
    int64_t took_ms;
    atomic_int ends;
    sem_t done;
};

static inline void on_done(struct http_exchange *exchange)
{
    struct call *call = OWNER(exchange, struct call, exchange);
    call->took_ms = clock_mono_ms() - call->took_ms;
    atomic_fetch_add(&call->ends, 1);
    sem_post(&call->done);
}

static inline void send_call(struct http_task *task)
{
    struct call *call = OWNER(task, struct call, task);
    call->took_ms = clock_mono_ms();
    http_client_send(call->client, &call->exchange);
}

static inline struct call *new_call(struct fixture *fixture, const char *path)
{
    struct call *call = mem_new(sizeof *call);
    call->client = fixture->client;
    call->url = url_of(fixture, path);
    call->exchange = (struct http_exchange){
        .method = "GET",
        .url = call->url,
        .timeout_ms = 10000,
        .max_reply_bytes = 64 * 1024,
        .direct = true,
        .done = on_done,
    };
    call->task.run = send_call;
    sem_init(&call->done, 0, 0);
    return call;
}

static inline void drop_call(struct call **call)
{
    if (!*call)
        return;
    http_exchange_done(&(*call)->exchange);
    sem_destroy(&(*call)->done);
    free((*call)->url);
    free(*call);
    *call = NULL;
}

static inline void start_call(struct call *call)
{
    http_client_post(call->client, &call->task);
}

static inline void run_call(struct call *call)
{
    start_call(call);
    wait_for(&call->done);
}

static inline int global_init(void **state)
{
    (void)state;
    http_client_global_init();
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, new_fixture, free_fixture)

#endif
