#include "consul.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backoff.h"
#include "cleanup.h"
#include "ids.h"
#include "json.h"
#include "log.h"
#include "mem.h"
#include "metrics.h"
#include "since.h"

enum {
    CALL_TIMEOUT_MS = 5000,
    PROBE_MS = 10000,
    WATCH_S = 55, /* + wait/16 of jitter by the agent (api-docs, "Blocking Queries") */
    WATCH_TIMEOUT_MS = (WATCH_S + 10) * 1000,
    EMPTY_LIST_MS = 30000,
    BACKOFF_BASE_MS = 500,
    BACKOFF_MAX_MS = 10000,
    REPLY_MAX_BYTES = 1 << 20,
};

enum state { STATE_OFF, STATE_STARTING, STATE_REGISTERED, STATE_UNREACHABLE, STATE_REFUSED, STATE_STOPPED };
static const char *const state_names[] = {"off",     "starting", "registered", "unreachable",
                                          "refused", "stopped",  NULL};

enum call { CALL_REGISTRATION, CALL_WATCH };
static struct metrics_counter registrations = {
    .name = "consul_registrations_total",
    .help = "Registrations at the Consul agent: more than one when it has forgotten us or was away.",
};
static struct metrics_counter failures = {
    .name = "consul_failures_total",
    .help = "Calls of the Consul agent that failed.",
    .label = "call",
    .values = {"registration", "watch"},
};

struct consul {
    struct http_client *client;
    struct consul_config config;
    char *base_url, *token_header;

    /* The loop's thread alone. */
    struct http_task start, stop;
    struct http_timer probe_timer, watch_timer;
    struct http_exchange call, watch; /* one registration call and one blocking query at a time */
    char *call_url, *call_body, *watch_url;
    char address[64], id[256];
    unsigned call_failures, watch_failures;
    uint64_t index;
    bool stopping;

    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t stopped;
    enum state state;
    struct since since; /* of the state */
    char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE];
    size_t count;
    int64_t empty_since_ms; /* -1: the list is good */
};

static void call(struct consul *consul, const char *method, char *url, char *body,
                 void (*done)(struct http_exchange *exchange))
{
    free(consul->call_url);
    free(consul->call_body);
    consul->call_url = url;
    consul->call_body = body;
    consul->call = (struct http_exchange){
        .method = method,
        .url = url,
        .body = body,
        .headers = {consul->token_header},
        .ca_file = consul->config.ca_file,
        .timeout_ms = CALL_TIMEOUT_MS,
        .max_reply_bytes = REPLY_MAX_BYTES,
        .direct = true,
        .done = done,
    };
    http_client_send(consul->client, &consul->call);
}

static void set_state(struct consul *consul, enum state state, const char *reason)
{
    pthread_mutex_lock(&consul->mutex);
    bool changed = consul->state != state;
    consul->state = state;
    since_set(&consul->since, (int)state);
    pthread_mutex_unlock(&consul->mutex);
    const char *name = consul->config.service_name;
    if (!changed)
        return;
    if (state == STATE_REGISTERED)
        log_event(LOG_REPEATED(LOG_INFO), "consul.registered", LOG_FIELDS(LOG_TEXT("id", consul->id)),
                  "✅ Service %s enregistré dans Consul", name);
    else if (state == STATE_UNREACHABLE || state == STATE_REFUSED)
        log_event(LOG_REPEATED(LOG_WARN), "consul.failed", LOG_FIELDS(LOG_TEXT("reason", reason)),
                  "⚠️ Consul non disponible : %s", reason);
}

/* ---- registration: learn our address, register, look every PROBE_MS whether the agent still knows us ----
 */

static void probe_after(struct consul *consul, int64_t delay_ms)
{
    if (!consul->stopping)
        http_client_after(consul->client, &consul->probe_timer, delay_ms);
}

static void registration_failed(struct consul *consul, const struct http_exchange *exchange)
{
    char reason[192];
    metrics_count(&failures, CALL_REGISTRATION);
    if (exchange->status == STATUS_OK)
        (void)snprintf(reason, sizeof reason, "statut %ld", exchange->http_status);
    else
        (void)snprintf(reason, sizeof reason, "%s", exchange->reason);
    set_state(consul, exchange->status == STATUS_OK ? STATE_REFUSED : STATE_UNREACHABLE, reason);
    consul->address[0] = '\0'; /* the network may be another when the agent answers again */
    probe_after(consul, backoff_ms(consul->call_failures++, BACKOFF_BASE_MS, BACKOFF_MAX_MS));
}

static void on_registered(struct http_exchange *exchange)
{
    struct consul *consul = OWNER(exchange, struct consul, call);
    if (exchange->status == STATUS_OK && exchange->http_status == 200) {
        consul->call_failures = 0;
        metrics_count(&registrations, 0);
        set_state(consul, STATE_REGISTERED, "");
        probe_after(consul, PROBE_MS);
    } else {
        registration_failed(consul, exchange);
    }
    http_exchange_done(exchange);
}

static char *registration_body(const struct consul *consul)
{
    const struct consul_config *config = &consul->config;
    bool ipv6 = strchr(consul->address, ':') != NULL;
    CLEANUP(buf_done) struct buf body, check;
    buf_init(&body, 4096);
    buf_init(&check, 512);
    buf_format(&check, ipv6 ? "http://[%s]:%u/health" : "http://%s:%u/health", consul->address,
               config->service_port);
    buf_text(&body, "{\"Name\":");
    json_put_text(&body, config->service_name);
    json_put_name(&body, "ID");
    json_put_text(&body, consul->id);
    json_put_name(&body, "Address");
    json_put_text(&body, consul->address);
    buf_format(&body, ",\"Port\":%u,\"Tags\":[\"api\",\"microservice\",\"dj-marcel\"],\"Check\":{\"HTTP\":",
               config->service_port);
    json_put_text(&body, buf_get(&check));
    buf_text(&body, ",\"Interval\":\"10s\",\"Timeout\":\"5s\",\"DeregisterCriticalServiceAfter\":\"1m\"}}");
    return buf_take(&body);
}

static void register_service(struct consul *consul)
{
    (void)snprintf(consul->id, sizeof consul->id, "%s-%s-%u", consul->config.service_name, consul->address,
                   consul->config.service_port);
    call(consul, "PUT",
         mem_format("%s/v1/agent/service/register?replace-existing-checks=true", consul->base_url),
         registration_body(consul), on_registered);
}

static void on_address(struct http_exchange *exchange)
{
    struct consul *consul = OWNER(exchange, struct consul, call);
    if (exchange->status == STATUS_OK && exchange->local_address[0]) {
        (void)text_copy(consul->address, sizeof consul->address, exchange->local_address);
        http_exchange_done(exchange);
        register_service(consul);
        return;
    }
    registration_failed(consul, exchange);
    http_exchange_done(exchange);
}

static void on_probed(struct http_exchange *exchange)
{
    struct consul *consul = OWNER(exchange, struct consul, call);
    bool forgotten = exchange->status == STATUS_OK && exchange->http_status == 404;
    bool known = exchange->status == STATUS_OK && exchange->http_status == 200;
    if (known)
        probe_after(consul, PROBE_MS);
    else if (!forgotten)
        registration_failed(consul, exchange);
    http_exchange_done(exchange);
    if (forgotten) {
        set_state(consul, STATE_STARTING, "");
        register_service(consul);
    }
}

static void put_path(struct buf *url, const char *base, const char *path, const char *name)
{
    buf_text(url, base);
    buf_text(url, path);
    http_put_encoded(url, name);
}

static char *make_url(const struct consul *consul, const char *path, const char *name)
{
    CLEANUP(buf_done) struct buf url;
    buf_init(&url, 4096);
    put_path(&url, consul->base_url, path, name);
    return buf_take(&url);
}

static void on_probe_timer(struct http_timer *timer)
{
    struct consul *consul = OWNER(timer, struct consul, probe_timer);
    bool registered = consul->state == STATE_REGISTERED;
    if (!consul->address[0] && consul->config.service_address[0])
        (void)text_copy(consul->address, sizeof consul->address, consul->config.service_address);
    if (!consul->address[0]) /* any call will do: its source address is the one the agent can reach */
        call(consul, "GET", mem_format("%s/v1/status/leader", consul->base_url), NULL, on_address);
    else if (!registered)
        register_service(consul);
    else
        call(consul, "GET", make_url(consul, "/v1/agent/service/", consul->id), NULL, on_probed);
}

/* ---- discovery ---- */

/* "10.0.0.7" or "service.local", nothing that could change the meaning of a URL. */
static bool is_host(const char *text)
{
    return *text &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:") == strlen(text);
}

static const cJSON *member(const cJSON *entry, const char *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(entry, object), name);
}

enum status consul_parse(const char *reply, size_t len, char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE],
                         size_t *ret_count, struct err *err)
{
    CLEANUP(json_free) cJSON *list = NULL;
    if (json_parse(reply, len, &list, err) != STATUS_OK || !cJSON_IsArray(list))
        return err_set(err, STATUS_PROTOCOL, "Consul: not a list of services");
    size_t count = 0;
    const cJSON *entry = NULL;
    cJSON_ArrayForEach (entry, list) {
        const cJSON *address = member(entry, "Service", "Address"), *port = member(entry, "Service", "Port");
        if (!cJSON_IsString(address) || !*address->valuestring)
            address = member(entry, "Node", "Address"); /* "" means the node's (agent/service, "Address") */
        if (count == CONSUL_INSTANCES_MAX || !cJSON_IsString(address) || !is_host(address->valuestring) ||
            !cJSON_IsNumber(port) || port->valuedouble < 1 || port->valuedouble > 65535)
            continue;
        bool ipv6 = strchr(address->valuestring, ':') != NULL;
        int written = snprintf(urls[count], CONSUL_URL_SIZE, ipv6 ? "http://[%s]:%d" : "http://%s:%d",
                               address->valuestring, port->valueint);
        if (written > 0 && written < CONSUL_URL_SIZE)
            count++;
    }
    *ret_count = count;
    return STATUS_OK;
}

/* Keeps the last good list while an empty one is young. */
static bool take_list(struct consul *consul, char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE], size_t count)
{
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&consul->mutex);
    bool was_good = consul->empty_since_ms < 0, changed = false;
    if (count) {
        changed = !was_good || count != consul->count ||
                  memcmp(urls, consul->urls, sizeof urls[0] * count) != 0;
        memcpy(consul->urls, urls, sizeof consul->urls);
        consul->count = count;
        consul->empty_since_ms = -1;
    } else if (was_good) {
        consul->empty_since_ms = now;
    }
    pthread_mutex_unlock(&consul->mutex);
    return changed;
}

static void watch_after(struct consul *consul, int64_t delay_ms)
{
    if (!consul->stopping)
        http_client_after(consul->client, &consul->watch_timer, delay_ms);
}

static void on_watched(struct http_exchange *exchange)
{
    struct consul *consul = OWNER(exchange, struct consul, watch);
    char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE] = {{0}};
    size_t count = 0;
    bool ok = exchange->status == STATUS_OK && exchange->http_status == 200 &&
              consul_parse(buf_get(&exchange->reply), exchange->reply.len, urls, &count, NULL) == STATUS_OK;
    if (ok) {
        /* An index that went backwards means another history: start over (api-docs, "Blocking Queries"). */
        consul->index = exchange->index < consul->index ? 0 : exchange->index;
        consul->watch_failures = 0;
    } else {
        consul->index = 0;
        metrics_count(&failures, CALL_WATCH);
    }
    bool changed = ok && take_list(consul, urls, count);
    http_exchange_done(exchange);
    /* The agent paces blocking queries itself, but for an index of 0. */
    watch_after(consul, !ok ? backoff_ms(consul->watch_failures++, BACKOFF_BASE_MS, BACKOFF_MAX_MS)
                        : consul->index > 0 ? 0
                                            : 1000);
    if (changed && consul->config.changed)
        consul->config.changed(consul->config.arg);
}

static void on_watch_timer(struct http_timer *timer)
{
    struct consul *consul = OWNER(timer, struct consul, watch_timer);
    CLEANUP(buf_done) struct buf url;
    buf_init(&url, 4096);
    put_path(&url, consul->base_url, "/v1/health/service/", consul->config.watched);
    buf_format(&url, "?passing=1&index=%llu&wait=%ds", (unsigned long long)consul->index, WATCH_S);
    free(consul->watch_url);
    consul->watch_url = buf_take(&url);
    consul->watch = (struct http_exchange){
        .method = "GET",
        .url = consul->watch_url,
        .headers = {consul->token_header},
        .ca_file = consul->config.ca_file,
        .timeout_ms = WATCH_TIMEOUT_MS,
        .max_reply_bytes = REPLY_MAX_BYTES,
        .direct = true,
        .done = on_watched,
    };
    http_client_send(consul->client, &consul->watch);
}

size_t consul_instances(struct consul *consul, char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE])
{
    if (consul_gave_up(consul))
        return 0;
    pthread_mutex_lock(&consul->mutex);
    size_t count = consul->count;
    memcpy(urls, consul->urls, sizeof consul->urls[0] * count);
    pthread_mutex_unlock(&consul->mutex);
    return count;
}

bool consul_gave_up(struct consul *consul)
{
    pthread_mutex_lock(&consul->mutex);
    int64_t since = consul->empty_since_ms;
    bool off = consul->state == STATE_OFF;
    pthread_mutex_unlock(&consul->mutex);
    return off || (since >= 0 && clock_mono_ms() - since > EMPTY_LIST_MS);
}

const char *consul_state(struct consul *consul, int64_t *ret_since_ms)
{
    *ret_since_ms = since_ms(&consul->since);
    return state_names[since_state(&consul->since)];
}

void consul_put_metrics(struct consul *consul, struct buf *out)
{
    int64_t since;
    metrics_put_state(out, "consul_state", "Registration at the Consul agent: 1 for the present state.",
                      state_names, consul_state(consul, &since));
    metrics_put_counter(out, &registrations);
    metrics_put_counter(out, &failures);
    if (!*consul->config.watched)
        return;
    char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE];
    metrics_put_gauge(out, "consul_instances", "Passing instances of the other service that are known.",
                      (double)consul_instances(consul, urls));
}

/* ---- life ---- */

static void on_start(struct http_task *task)
{
    struct consul *consul = OWNER(task, struct consul, start);
    probe_after(consul, 0);
    if (*consul->config.watched)
        watch_after(consul, 0);
}

struct consul *consul_new(struct http_client *client, const struct consul_config *config)
{
    struct consul *consul = mem_new(sizeof *consul);
    bool ipv6 = strchr(config->host, ':') != NULL;
    *consul = (struct consul){
        .client = client,
        .config = *config,
        .base_url = mem_format(ipv6 ? "%s://[%s]:%u" : "%s://%s:%u", config->scheme, config->host,
                               config->port),
        .token_header = *config->token ? mem_format("X-Consul-Token: %s", config->token) : NULL,
        .start.run = on_start,
        .probe_timer.fire = on_probe_timer,
        .watch_timer.fire = on_watch_timer,
        .state = *config->host ? STATE_STARTING : STATE_OFF,
        .empty_since_ms = clock_mono_ms(),
    };
    since_set(&consul->since, (int)consul->state);
    pthread_mutex_init(&consul->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&consul->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return consul;
}

void consul_start(struct consul *consul)
{
    if (*consul->config.host)
        http_client_post(consul->client, &consul->start);
}

static void tell_stopped(struct consul *consul)
{
    pthread_mutex_lock(&consul->mutex);
    consul->state = STATE_STOPPED;
    since_set(&consul->since, STATE_STOPPED);
    pthread_cond_signal(&consul->stopped);
    pthread_mutex_unlock(&consul->mutex);
}

static void on_deregistered(struct http_exchange *exchange)
{
    struct consul *consul = OWNER(exchange, struct consul, call);
    if (exchange->status == STATUS_OK && exchange->http_status == 200)
        log_event(LOG_INFO, "consul.deregistered", LOG_FIELDS(LOG_TEXT("id", consul->id)),
                  "✅ Service %s désenregistré de Consul", consul->config.service_name);
    http_exchange_done(exchange);
    tell_stopped(consul);
}

static void on_stop(struct http_task *task)
{
    struct consul *consul = OWNER(task, struct consul, stop);
    consul->stopping = true;
    http_client_disarm(consul->client, &consul->probe_timer);
    http_client_disarm(consul->client, &consul->watch_timer);
    http_client_cancel(consul->client, &consul->call);
    http_client_cancel(consul->client, &consul->watch);
    if (consul->id[0]) /* registered, or a registration was under way: the call is idempotent */
        call(consul, "PUT", make_url(consul, "/v1/agent/service/deregister/", consul->id), NULL,
             on_deregistered);
    else
        tell_stopped(consul);
}

void consul_stop(struct consul *consul, int timeout_ms)
{
    if (!consul)
        return;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&consul->mutex);
    if (consul->state != STATE_OFF) {
        consul->stop.run = on_stop;
        http_client_post(consul->client, &consul->stop);
        while (consul->state != STATE_STOPPED &&
               pthread_cond_timedwait(&consul->stopped, &consul->mutex, &until) != ETIMEDOUT)
            continue;
    }
    pthread_mutex_unlock(&consul->mutex);
}

void consul_free(struct consul *consul)
{
    if (!consul)
        return;
    http_exchange_done(&consul->call);
    http_exchange_done(&consul->watch);
    pthread_cond_destroy(&consul->stopped);
    pthread_mutex_destroy(&consul->mutex);
    free(consul->call_url);
    free(consul->call_body);
    free(consul->watch_url);
    free(consul->base_url);
    free(consul->token_header);
    free(consul);
}
