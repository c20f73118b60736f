#include "http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_client_internal.h"
#include "ids.h"
#include "mem.h"

enum { TURN_MS = 1000, CONNECT_TIMEOUT_MS = 5000, KEEP_CONNECTION_S = 10, RECEIVE_BYTES = 4096 };
enum { IDLE_HANDLES_MAX = 32, KEPT_CONNECTIONS_MAX = 64 };

struct http_client {
    CURLM *multi;
    pthread_t thread;
    bool running;

    pthread_mutex_t mutex; /* guards the tasks and stopping */
    struct http_task *first_task, *last_task;
    bool stopping;

    /* The loop's thread alone. */
    struct http_timer *first_timer, *last_timer; /* by at_ms */
    CURL *idle[IDLE_HANDLES_MAX];
    size_t idle_count;
    struct http_exchange *active;
};

/* ---- tasks ---- */

void http_client_post(struct http_client *client, struct http_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&client->mutex);
    if (client->last_task)
        client->last_task->next = task;
    else
        client->first_task = task;
    client->last_task = task;
    pthread_mutex_unlock(&client->mutex);
    (void)curl_multi_wakeup(client->multi);
}

/* Returns false when the loop is to end. */
static bool run_tasks(struct http_client *client)
{
    pthread_mutex_lock(&client->mutex);
    struct http_task *task = client->first_task;
    client->first_task = client->last_task = NULL;
    bool stopping = client->stopping;
    pthread_mutex_unlock(&client->mutex);
    while (task) {
        struct http_task *next = task->next;
        task->run(task);
        task = next;
    }
    return !stopping;
}

/* ---- timers: a list sorted by time, searched from its end, since most delays are the longest yet ---- */

void http_client_disarm(struct http_client *client, struct http_timer *timer)
{
    if (!timer->armed)
        return;
    if (timer->previous)
        timer->previous->next = timer->next;
    else
        client->first_timer = timer->next;
    if (timer->next)
        timer->next->previous = timer->previous;
    else
        client->last_timer = timer->previous;
    timer->armed = false;
}

void http_client_after(struct http_client *client, struct http_timer *timer, int64_t delay_ms)
{
    http_client_disarm(client, timer);
    timer->at_ms = clock_mono_ms() + delay_ms;
    timer->armed = true;
    struct http_timer *before = client->last_timer;
    while (before && before->at_ms > timer->at_ms)
        before = before->previous;
    timer->previous = before;
    timer->next = before ? before->next : client->first_timer;
    if (timer->next)
        timer->next->previous = timer;
    else
        client->last_timer = timer;
    if (before)
        before->next = timer;
    else
        client->first_timer = timer;
}

static void fire_timers(struct http_client *client)
{
    int64_t now = clock_mono_ms();
    while (client->first_timer && client->first_timer->at_ms <= now) {
        struct http_timer *timer = client->first_timer;
        http_client_disarm(client, timer);
        timer->fire(timer);
    }
}

static int wait_ms(const struct http_client *client)
{
    if (!client->first_timer)
        return TURN_MS;
    int64_t left = client->first_timer->at_ms - clock_mono_ms();
    return left < 0 ? 0 : left < TURN_MS ? (int)left : TURN_MS;
}

/* ---- exchanges ---- */

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_exchange *exchange = arg;
    buf_append(&exchange->reply, bytes, size * count);
    return buf_ok(&exchange->reply) ? size * count : 0; /* 0: libcurl gives up with CURLE_WRITE_ERROR */
}

void http_exchange_take_header(struct http_exchange *exchange, const char *bytes, size_t len)
{
    static const char name[] = "X-Consul-Index:";
    if (len < sizeof name || strncasecmp(bytes, name, sizeof name - 1) != 0)
        return;
    char value[32];
    size_t rest = len - (sizeof name - 1);
    rest = rest < sizeof value ? rest : sizeof value - 1;
    memcpy(value, bytes + sizeof name - 1, rest);
    value[rest] = '\0';
    const char *digits = value + strspn(value, " \t");
    /* strtoull would take "-1" for the largest number */
    exchange->index = *digits >= '0' && *digits <= '9' ? strtoull(digits, NULL, 10) : 0;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    http_exchange_take_header(arg, bytes, size * count);
    return size * count;
}

static void set_request(CURL *easy, struct http_exchange *exchange)
{
    for (size_t i = 0; i < HTTP_HEADERS_MAX && exchange->headers[i]; i++)
        exchange->header_list = curl_slist_append(exchange->header_list, exchange->headers[i]);
    curl_easy_setopt(easy, CURLOPT_URL, exchange->url);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, exchange->method);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->header_list);
    if (exchange->body) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, exchange->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(exchange->body));
    }
    if (exchange->ca_file && *exchange->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, exchange->ca_file);
    if (exchange->direct)
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (exchange->once) {
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    }
}

static void set_limits(CURL *easy, const struct http_exchange *exchange)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    long timeout_ms = exchange->timeout_ms > 0 ? exchange->timeout_ms : 1; /* for curl 0 means no end */
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)KEEP_CONNECTION_S);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "soirees/" PROJECT_VERSION);
}

void http_client_send(struct http_client *client, struct http_exchange *exchange)
{
    CURL *easy = client->idle_count ? client->idle[--client->idle_count] : curl_easy_init();
    if (!easy)
        abort();
    buf_init(&exchange->reply, exchange->max_reply_bytes);
    exchange->easy = easy;
    exchange->header_list = NULL;
    exchange->index = 0;
    exchange->http_status = 0;
    exchange->reason[0] = exchange->content_type[0] = exchange->local_address[0] = '\0';

    set_limits(easy, exchange);
    set_request(easy, exchange);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    exchange->previous = NULL;
    exchange->next = client->active;
    if (client->active)
        client->active->previous = exchange;
    client->active = exchange;
    (void)curl_multi_add_handle(client->multi, easy);
}

static void detach(struct http_client *client, struct http_exchange *exchange)
{
    CURL *easy = exchange->easy;
    exchange->easy = NULL;
    if (exchange->previous)
        exchange->previous->next = exchange->next;
    else
        client->active = exchange->next;
    if (exchange->next)
        exchange->next->previous = exchange->previous;
    (void)curl_multi_remove_handle(client->multi, easy);
    curl_slist_free_all(exchange->header_list);
    exchange->header_list = NULL;
    curl_easy_reset(easy);
    if (client->idle_count < IDLE_HANDLES_MAX)
        client->idle[client->idle_count++] = easy;
    else
        curl_easy_cleanup(easy);
}

void http_client_cancel(struct http_client *client, struct http_exchange *exchange)
{
    if (exchange->easy)
        detach(client, exchange);
    http_exchange_done(exchange);
}

void http_exchange_done(struct http_exchange *exchange)
{
    buf_done(&exchange->reply);
}

static enum status translate(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return STATUS_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return STATUS_TIMEOUT;
    case CURLE_WRITE_ERROR:
        return STATUS_TOO_LARGE; /* on_body alone refuses bytes */
    default:
        return STATUS_NETWORK;
    }
}

static void finish(struct http_client *client, CURL *easy, CURLcode code)
{
    struct http_exchange *exchange = NULL;
    const char *type = NULL, *address = NULL;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &exchange);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &exchange->http_status);
    (void)curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
    (void)text_copy(exchange->content_type, sizeof exchange->content_type, type ? type : "");
    (void)curl_easy_getinfo(easy, CURLINFO_LOCAL_IP, &address);
    (void)text_copy(exchange->local_address, sizeof exchange->local_address, address ? address : "");
    exchange->status = translate(code);
    if (exchange->status == STATUS_TOO_LARGE)
        (void)snprintf(exchange->reason, sizeof exchange->reason, "réponse de plus de %zu octets",
                       exchange->max_reply_bytes);
    else if (code != CURLE_OK)
        (void)text_copy(exchange->reason, sizeof exchange->reason, curl_easy_strerror(code));
    detach(client, exchange);
    exchange->done(exchange);
}

/* ---- the loop ---- */

static void *client_main(void *arg)
{
    struct http_client *client = arg;
    while (run_tasks(client)) {
        int running = 0, left = 0;
        fire_timers(client);
        (void)curl_multi_perform(client->multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left));)
            if (message->msg == CURLMSG_DONE)
                finish(client, message->easy_handle, message->data.result);
        (void)curl_multi_poll(client->multi, NULL, 0, wait_ms(client), NULL);
    }
    return NULL;
}

void http_client_global_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_ALL);
}

enum status http_client_start(struct http_client **ret_client, struct err *err)
{
    struct http_client *client = mem_new(sizeof *client);
    pthread_mutex_init(&client->mutex, NULL);
    client->multi = curl_multi_init();
    if (!client->multi)
        abort();
    (void)curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)KEPT_CONNECTIONS_MAX);
    int failed = pthread_create(&client->thread, NULL, client_main, client);
    client->running = failed == 0;
    if (failed) {
        http_client_free(client);
        return err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed));
    }
    *ret_client = client;
    return STATUS_OK;
}

void http_client_stop(struct http_client *client)
{
    if (!client || !client->running)
        return;
    pthread_mutex_lock(&client->mutex);
    client->stopping = true;
    pthread_mutex_unlock(&client->mutex);
    (void)curl_multi_wakeup(client->multi);
    pthread_join(client->thread, NULL);
    client->running = false;
    while (client->active)
        http_client_cancel(client, client->active);
}

void http_client_free(struct http_client *client)
{
    if (!client)
        return;
    while (client->idle_count)
        curl_easy_cleanup(client->idle[--client->idle_count]);
    (void)curl_multi_cleanup(client->multi);
    pthread_mutex_destroy(&client->mutex);
    free(client);
}

/* ---- helpers ---- */

void http_put_encoded(struct buf *out, const char *text)
{
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++) {
        if (strchr(unreserved, *text))
            buf_char(out, *text);
        else
            buf_format(out, "%%%02X", (unsigned char)*text);
    }
}

static size_t discard(char *bytes, size_t size, size_t count, void *arg)
{
    (void)bytes;
    (void)arg;
    return size * count;
}

enum status http_get(const char *url, long timeout_ms, long *ret_http_status, struct err *err)
{
    CURL *easy = curl_easy_init();
    if (!easy)
        abort();
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
    CURLcode code = curl_easy_perform(easy);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, ret_http_status);
    curl_easy_cleanup(easy);
    return code == CURLE_OK ? STATUS_OK
                            : err_set(err, translate(code), "%s: %s", url, curl_easy_strerror(code));
}
