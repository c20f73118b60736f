/* What a Consul agent answers: the list of instances, and any series of replies to the whole state machine,
 * over an http_client that is played here, without a thread. The input: a list up to a NUL, then events, six
 * bytes each and the reply's body up to a NUL. */
#include "consul.h"
#include "fuzz.h"
#include "log.h"

enum { EVENTS_MAX = 64 };

/* ---- the client ---- */

static struct {
    struct http_task *task;
    void *timers[2], *exchanges[2]; /* armed, under way */
} client;

static void put_in(void **slots, void *what)
{
    MUST(slots[0] != what && slots[1] != what && (!slots[0] || !slots[1]));
    slots[slots[0] != NULL] = what;
}

static bool take_out(void **slots, const void *what)
{
    for (int i = 0; i < 2; i++)
        if (what && slots[i] == what) {
            slots[i] = NULL;
            return true;
        }
    return false;
}

void http_client_post(struct http_client *unused, struct http_task *task)
{
    (void)unused;
    MUST(!client.task);
    client.task = task;
}

void http_client_after(struct http_client *unused, struct http_timer *timer, int64_t delay_ms)
{
    MUST(delay_ms >= 0 && delay_ms <= 10000 && timer->fire);
    http_client_disarm(unused, timer);
    put_in(client.timers, timer);
}

void http_client_disarm(struct http_client *unused, struct http_timer *timer)
{
    (void)unused;
    (void)take_out(client.timers, timer);
}

void http_client_send(struct http_client *unused, struct http_exchange *exchange)
{
    (void)unused;
    MUST(strncmp(exchange->url, "http://agent:8500/v1/", 21) == 0 && is_utf8(exchange->url));
    MUST(exchange->timeout_ms > 0 && exchange->max_reply_bytes > 0 && exchange->done);
    for (const char *c = exchange->url; *c; c++)
        MUST(*c > ' ' && *c < 0x7F);
    if (exchange->body) {
        CLEANUP(json_free) cJSON *body = NULL;
        MUST(json_parse(exchange->body, strlen(exchange->body), &body, NULL) == STATUS_OK);
        must_have_text(body, "Name", "service-a");
    }
    buf_init(&exchange->reply, exchange->max_reply_bytes);
    exchange->index = 0;
    put_in(client.exchanges, exchange);
}

void http_client_cancel(struct http_client *unused, struct http_exchange *exchange)
{
    (void)unused;
    (void)take_out(client.exchanges, exchange);
    http_exchange_done(exchange);
}

void http_exchange_done(struct http_exchange *exchange)
{
    buf_done(&exchange->reply);
}

void http_put_encoded(struct buf *out, const char *text)
{
    for (; *text; text++)
        buf_format(out, (*text >= 'a' && *text <= 'z') || *text == '-' ? "%c" : "%%%02X",
                   (unsigned char)*text);
}

/* ---- the list ---- */

static void must_be_urls(char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE], size_t count)
{
    MUST(count <= CONSUL_INSTANCES_MAX);
    for (size_t i = 0; i < count; i++) {
        char host[CONSUL_URL_SIZE], end = 0;
        int port = 0;
        MUST(strnlen(urls[i], CONSUL_URL_SIZE) < CONSUL_URL_SIZE);
        const char *shape = urls[i][7] == '[' ? "http://[%[a-zA-Z0-9.:_-]]:%d%c"
                                              : "http://%[a-zA-Z0-9._-]:%d%c";
        MUST(sscanf(urls[i], shape, host, &port, &end) == 2 && port >= 1 && port <= 65535);
    }
}

static void try_list(const char *text)
{
    char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE] = {{0}};
    size_t count = SIZE_MAX;
    struct err err = {0};
    enum status status = consul_parse(text, strlen(text), urls, &count, &err);
    must_tell(&err, status);
    MUST((count == SIZE_MAX) == (status != STATUS_OK));
    MUST(status == STATUS_OK || status == STATUS_PROTOCOL);
    if (status == STATUS_OK)
        must_be_urls(urls, count);
}

/* ---- the state machine ---- */

static void run_task(void)
{
    struct http_task *task = client.task;
    client.task = NULL;
    if (task)
        task->run(task);
}

/* Answers the exchange in `slot`, if there is one. */
static void answer(size_t slot, const uint8_t *event, const char *body)
{
    static const enum status outcomes[] = {STATUS_OK,      STATUS_OK,      STATUS_OK,
                                           STATUS_NETWORK, STATUS_TIMEOUT, STATUS_TOO_LARGE};
    static const long http_statuses[] = {200, 200, 404, 500, 403, 0};
    struct http_exchange *exchange = client.exchanges[slot];
    if (!exchange)
        return;
    client.exchanges[slot] = NULL;
    exchange->status = outcomes[event[1] % COUNT(outcomes)];
    exchange->http_status = exchange->status == STATUS_OK ? http_statuses[event[2] % COUNT(http_statuses)]
                                                          : 0;
    exchange->index = event[3] < 250 ? event[3] : UINT64_MAX - event[3];
    (void)text_copy(exchange->local_address, sizeof exchange->local_address,
                    event[4] & 1   ? "10.0.0.7"
                    : event[4] & 2 ? "2001:db8::1"
                                   : "");
    (void)text_copy(exchange->reason, sizeof exchange->reason,
                    exchange->status == STATUS_OK ? "" : "no reply");
    buf_text(&exchange->reply, body);
    exchange->done(exchange);
}

static void must_be_sound(struct consul *consul)
{
    char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE] = {{0}};
    int64_t since;
    size_t count = consul_instances(consul, urls);
    must_be_urls(urls, count);
    MUST(!(count > 0 && consul_gave_up(consul)) && consul_state(consul, &since)[0]);
}

static void on_changed(void *arg)
{
    must_be_sound(*(struct consul **)arg);
}

static void fire(size_t slot)
{
    struct http_timer *timer = client.timers[slot];
    client.timers[slot] = NULL;
    if (timer)
        timer->fire(timer);
}

static void try_events(const uint8_t *data, size_t size)
{
    struct consul *consul = NULL;
    const struct consul_config config = {.scheme = "http",
                                         .host = "agent",
                                         .port = 8500,
                                         .token = "t",
                                         .ca_file = "",
                                         .service_name = "service-a",
                                         .service_port = 3003,
                                         .watched = "service b",
                                         .service_address = size > 0 && data[0] & 128 ? "db" : "",
                                         .changed = on_changed,
                                         .arg = &consul};
    consul = consul_new(NULL, &config);
    consul_start(consul);
    run_task();
    for (int i = 0; i < EVENTS_MAX && size >= 6; i++) {
        uint8_t event[6];
        memcpy(event, data, sizeof event);
        data += sizeof event;
        size -= sizeof event;
        CLEANUP(free_text) char *body = next_text(&data, &size, '\0');
        fire(event[0] & 1);
        answer(event[0] >> 1 & 1, event, body);
        must_be_sound(consul);
    }
    int64_t since;
    consul_stop(consul, 0); /* its task comes after it: it does not wait here */
    run_task();
    MUST(!client.timers[0] && !client.timers[1]);
    answer(0, (const uint8_t[6]){0}, "");
    answer(1, (const uint8_t[6]){0}, "");
    MUST(strcmp(consul_state(consul, &since), "stopped") == 0 && !client.exchanges[0] && !client.exchanges[1]);
    consul_free(consul);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_MAX)
        return 0;
    silence_stdout();
    CLEANUP(free_text) char *list = next_text(&data, &size, '\0');
    try_list(list);
    try_events(data, size);
    return 0;
}
