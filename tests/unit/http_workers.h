/* A service with threads behind it, for the tests of calls that are answered later and of the server's end.
 */
#ifndef TESTS_HTTP_WORKERS_H
#define TESTS_HTTP_WORKERS_H

#include "raw_http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { WORKERS = 4, QUEUE_MAX = 4096, LONG_MS = RAW_TIMEOUT_S * 1000 };

static unsigned port;
static struct http_server *server;
static atomic_uint worked; /* calls answered by answer() */

/* What handlers hand over. The workers answer queued calls at once; held ones wait for release(). */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct http_call *queued[QUEUE_MAX], *held[QUEUE_MAX];
    size_t queued_count, held_count;
    bool stopping;
    pthread_t workers[WORKERS];
} work = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void answer(struct http_call *call)
{
    CLEANUP(buf_done) struct buf out;
    const char *n = http_call_query(call, "n");
    atomic_fetch_add(&worked, 1);
    buf_init(&out, 1024);
    buf_char(&out, '{');
    json_put_name(&out, "n");
    json_put_text(&out, n ? n : "");
    buf_char(&out, '}');
    http_call_set(call, "X-Answered", "%s", n ? n : "");
    http_answer_json(call, 200, &out);
}

static inline void push(struct http_call *call, struct http_call **list, size_t *count)
{
    pthread_mutex_lock(&work.mutex);
    assert_true(*count < QUEUE_MAX);
    list[(*count)++] = call;
    pthread_cond_broadcast(&work.changed);
    pthread_mutex_unlock(&work.mutex);
}

static inline void *work_on(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&work.mutex);
    while (!work.stopping || work.queued_count > 0) {
        if (work.queued_count == 0) {
            pthread_cond_wait(&work.changed, &work.mutex);
            continue;
        }
        struct http_call *call = work.queued[--work.queued_count];
        pthread_mutex_unlock(&work.mutex);
        answer(call);
        pthread_mutex_lock(&work.mutex);
    }
    pthread_mutex_unlock(&work.mutex);
    return NULL;
}

static inline void wait_for_held(size_t count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RAW_TIMEOUT_S;
    pthread_mutex_lock(&work.mutex);
    while (work.held_count < count)
        assert_int_equal(pthread_cond_timedwait(&work.changed, &work.mutex, &until), 0);
    pthread_mutex_unlock(&work.mutex);
}

/* Has the workers answer all that is held. */
static inline void release(void)
{
    pthread_mutex_lock(&work.mutex);
    while (work.held_count > 0)
        work.queued[work.queued_count++] = work.held[--work.held_count];
    pthread_cond_broadcast(&work.changed);
    pthread_mutex_unlock(&work.mutex);
}

static inline void now(struct http_call *call, void *service)
{
    (void)service;
    answer(call);
}

static inline void later(struct http_call *call, void *service)
{
    (void)service;
    http_call_park(call);
    push(call, work.queued, &work.queued_count);
}

static inline void hold(struct http_call *call, void *service)
{
    (void)service;
    http_call_park(call);
    push(call, work.held, &work.held_count);
}

static inline void *answer_alone(void *call)
{
    answer(call);
    return NULL;
}

/* Answered for certain before the handler returns, by another thread. */
static inline void overtaken(struct http_call *call, void *service)
{
    pthread_t thread;
    (void)service;
    http_call_park(call);
    assert_int_equal(pthread_create(&thread, NULL, answer_alone, call), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* The queue was full, say. */
static inline void changes_its_mind(struct http_call *call, void *service)
{
    (void)service;
    http_call_park(call);
    http_answer_problem(call, STATUS_BUSY, "plus tard", NULL);
}

static const struct http_route routes[] = {
    {"GET", "/now", now, 0},
    {"GET", "/later", later, 0},
    {"POST", "/later", later, HTTP_TAKES_JSON},
    {"GET", "/hold", hold, 0},
    {"GET", "/overtaken", overtaken, 0},
    {"GET", "/changes-its-mind", changes_its_mind, 0},
};

static inline void open_server(struct http_server_config config)
{
    config.routes = routes;
    config.route_count = COUNT(routes);
    config.max_connections = QUEUE_MAX;
    server = raw_server(config, &port);
}

static inline int setup(void **state)
{
    (void)state;
    work.stopping = false;
    work.queued_count = work.held_count = 0;
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&work.workers[i], NULL, work_on, NULL), 0);
    open_server((struct http_server_config){.threads = 2});
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    release();
    pthread_mutex_lock(&work.mutex);
    work.stopping = true;
    pthread_cond_broadcast(&work.changed);
    pthread_mutex_unlock(&work.mutex);
    for (size_t i = 0; i < WORKERS; i++)
        pthread_join(work.workers[i], NULL);
    http_server_close(server);
    return 0;
}

static inline void ask(struct raw_client *client, const char *path, unsigned n)
{
    char *request = mem_format("GET %s?n=%u HTTP/1.1\r\n" HOST "X-Request-Id: r%u\r\n\r\n", path, n, n);
    raw_send(client, request);
    free(request);
}

static inline void assert_answers(const struct raw_reply *reply, unsigned n)
{
    char number[16], id[16], body[32];
    snprintf(number, sizeof number, "%u", n);
    snprintf(id, sizeof id, "r%u", n);
    snprintf(body, sizeof body, "{\"n\":\"%u\"}", n);
    assert_int_equal(reply->status, 200);
    assert_header(reply, "X-Answered", number);
    assert_header(reply, "X-Request-Id", id);
    assert_string_equal(reply->body, body);
}

/* Reads the reply to ask(…, n). */
static inline void expect(struct raw_client *client, unsigned n)
{
    struct raw_reply reply = raw_expect(client, 200);
    assert_answers(&reply, n);
    raw_reply_done(&reply);
}

#endif
