#include "linker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backoff.h"
#include "cleanup.h"
#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "meters.h"

enum {
    DELIVER_MS = 5000,
    ONE_ADDRESS_MS = 2000, /* while there is another one to try */
    LEASE_MS = 15000,
    POLL_MS = 1000,
    BACKOFF_BASE_MS = 1000,
    BACKOFF_MAX_MS = 30000,
    REPLY_MAX_BYTES = 64 * 1024,
};

struct linker {
    struct linker_config config;
    char *token; /* the loop's thread alone, once it runs */
    struct consul *consul;

    /* The loop's thread alone. */
    struct http_task start, claimed;
    struct http_timer poll;
    struct store_links claim; /* one claim at a time */
    struct store_links hurry; /* one hurry at a time */
    bool claiming, hurrying;  /* their jobs are with the writer */
    bool claim_at_once;       /* hurried while claiming */
    struct http_task hurried;
    struct link_delivery retries[STORE_CLAIM_MAX];
    size_t retrying;
};

/* ---- one delivery ---- */

#define FIELDS(delivery, ...)                                                                                \
    LOG_FIELDS(LOG_TEXT("soireeId", (delivery)->link.soiree_id),                                             \
               LOG_TEXT("playlistId", (delivery)->link.playlist_id),                                         \
               LOG_TEXT("requestId", (delivery)->link.request_id), LOG_TRACE((delivery)->link.traceparent),  \
               __VA_ARGS__)

void link_delivery_done(struct link_delivery *delivery)
{
    http_exchange_done(&delivery->exchange);
    free(delivery->urls);
    free(delivery->url);
    free(delivery->body);
    free(delivery->request_header);
    free(delivery->id_header);
    free(delivery->trace_header);
    free(delivery->token_header);
    delivery->urls = NULL;
    delivery->url = delivery->body = NULL;
    delivery->request_header = delivery->id_header = delivery->trace_header = delivery->token_header = NULL;
}

static void told(struct store_links *links)
{
    FAILPOINT("linker.told");
    free(links); /* a failure mends itself: the lease ends and the link is tried again, to the same effect */
}

/* The store's word on how it went. Nobody waits for it. */
static void tell(struct linker *linker, const struct link_delivery *delivery)
{
    struct store_links *links = mem_grow(NULL, sizeof *links); /* not zeroed: it has room for a whole claim */
    links->kind = delivery->ended ? STORE_LINKS_END : STORE_LINKS_RETRY;
    links->count = 1;
    links->links[0] = delivery->link;
    links->delay_ms = backoff_ms((unsigned)delivery->link.attempts, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
    links->done = told;
    store_links(linker->config.store, links);
}

static void conclude(struct link_delivery *delivery, bool ended)
{
    delivery->ended = ended;
    if (!ended)
        metrics_count(&meters_links, LINK_PENDING);
    if (!ended)
        log_event(delivery->quiet ? LOG_DEBUG : LOG_REPEATED(LOG_ERROR), "link.pending",
                  FIELDS(delivery, LOG_TEXT("reason", delivery->reason)),
                  "❌ Erreur mise à jour soirée %s: %s (nouvel essai plus tard)", delivery->link.soiree_id,
                  delivery->reason);
    tell(delivery->linker, delivery);
    delivery->done(delivery);
}

static void send_request(struct link_delivery *delivery)
{
    struct linker *linker = delivery->linker;
    CLEANUP(buf_done) struct buf url;
    buf_init(&url, 8192);
    const char *base = delivery->urls[delivery->url_index];
    buf_append(&url, base, strlen(base) - (base[strlen(base) - 1] == '/'));
    buf_text(&url, "/api/soirees/");
    http_put_encoded(&url, delivery->link.soiree_id);
    free(delivery->url);
    delivery->url = buf_take(&url);
    delivery->exchange.method = delivery->put ? "PUT" : "PATCH";
    delivery->exchange.url = delivery->url;
    int64_t left_ms = delivery->deadline_ms - clock_mono_ms();
    bool last = delivery->url_index + 1 == delivery->url_count;
    delivery->exchange.timeout_ms = (long)(last || left_ms < ONE_ADDRESS_MS ? left_ms : ONE_ADDRESS_MS);
    FAILPOINT("linker.send.before");
    http_client_send(linker->config.client, &delivery->exchange);
    FAILPOINT("linker.send.after");
}

/* The next address, while there is one and time for it. */
static void try_next(struct link_delivery *delivery)
{
    delivery->url_index++;
    delivery->put = false;
    if (delivery->url_index < delivery->url_count && clock_mono_ms() < delivery->deadline_ms)
        send_request(delivery);
    else
        conclude(delivery, false);
}

static void delivered(struct link_delivery *delivery)
{
    metrics_count(&meters_links, LINK_DELIVERED);
    log_event(LOG_INFO, "link.delivered",
              FIELDS(delivery, LOG_NUMBER("attempts", delivery->link.attempts + 1)),
              "✅ Soirée %s mise à jour avec succès", delivery->link.soiree_id);
    conclude(delivery, true);
}

static void pointless(struct link_delivery *delivery, const char *why)
{
    metrics_count(&meters_links, LINK_POINTLESS);
    log_event(LOG_WARN, "link.ended", FIELDS(delivery, LOG_TEXT("reason", why)),
              "⚠️ Soirée %s non mise à jour: %s", delivery->link.soiree_id, why);
    conclude(delivery, true);
}

/* A stranger on a reused address may say 404 too: another instance is asked, where there is one. */
static void not_found(struct link_delivery *delivery)
{
    bool last = delivery->url_index + 1 == delivery->url_count;
    if (delivery->missing || delivery->url_count == 1) {
        pointless(delivery, "elle n'existe plus");
        return;
    }
    (void)snprintf(delivery->reason, sizeof delivery->reason, "statut 404, non confirmé");
    delivery->missing = true;
    if (last)
        conclude(delivery, false);
    else
        try_next(delivery);
}

static void refused(struct link_delivery *delivery, long http_status)
{
    bool ours = http_status == 401 || http_status == 403 || http_status == 422;
    (void)snprintf(delivery->reason, sizeof delivery->reason, "statut %ld", http_status);
    if (ours)
        log_event(LOG_REPEATED(LOG_ERROR), "link.refused",
                  FIELDS(delivery, LOG_NUMBER("status", http_status)),
                  "❌ Mise à jour de la soirée %s refusée: statut %ld", delivery->link.soiree_id, http_status);
    try_next(delivery);
}

static void on_reply(struct http_exchange *exchange)
{
    struct link_delivery *delivery = OWNER(exchange, struct link_delivery, exchange);
    long http_status = exchange->http_status;
    FAILPOINT("linker.reply");
    bool json = strcasestr(exchange->content_type, "json") != NULL; /* RFC 9110 section 8.3.1 */
    if (exchange->status != STATUS_OK)
        (void)text_copy(delivery->reason, sizeof delivery->reason, exchange->reason);
    http_exchange_done(exchange);
    if (exchange->status != STATUS_OK)
        try_next(delivery);
    else if (http_status >= 200 && http_status < 300)
        delivered(delivery);
    else if (http_status == 409)
        pointless(delivery, "une demande plus récente l'emporte");
    else if (http_status == 404 && json)
        not_found(delivery);
    else if ((http_status == 404 || http_status == 405) && !delivery->put) {
        delivery->put = true;
        send_request(delivery);
    } else
        refused(delivery, http_status);
}

/* The addresses, beginning with a random one: the load spreads. */
static void find_addresses(struct linker *linker, struct link_delivery *delivery)
{
    char known[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE];
    size_t count = consul_instances(linker->consul, known), first = random_below((uint32_t)count);
    char(*urls)[CONSUL_URL_SIZE] = mem_grow(NULL, (count ? count : 1) * sizeof *urls);
    for (size_t i = 0; i < count; i++)
        memcpy(urls[i], known[(first + i) % count], sizeof *urls);
    if (count == 0 && consul_gave_up(linker->consul) &&
        text_copy(urls[0], sizeof *urls, linker->config.fallback_url))
        count = 1;
    delivery->urls = urls;
    delivery->url_count = count;
}

static char *make_body(const char *playlist_id)
{
    CLEANUP(buf_done) struct buf body;
    buf_init(&body, 512);
    buf_text(&body, "{\"playlistId\":");
    json_put_text(&body, playlist_id);
    buf_char(&body, '}');
    return buf_take(&body);
}

void linker_deliver(struct linker *linker, struct link_delivery *delivery)
{
    const struct link *link = &delivery->link;
    delivery->linker = linker;
    delivery->deadline_ms = clock_mono_ms() + DELIVER_MS;
    delivery->ended = delivery->put = delivery->missing = false;
    delivery->url_index = 0;
    delivery->body = make_body(link->playlist_id);
    delivery->trace_header = mem_format("traceparent: %s", link->traceparent);
    delivery->request_header = *link->request_id ? mem_format("Playlist-Request: %s", link->request_id)
                                                 : NULL;
    /* So that the lines of soirees about the call are found by the same id. */
    delivery->id_header = *link->request_id ? mem_format("X-Request-Id: %s", link->request_id) : NULL;
    delivery->token_header = *linker->token ? mem_format("Authorization: Bearer %s", linker->token) : NULL;
    delivery->exchange = (struct http_exchange){
        .body = delivery->body,
        .max_reply_bytes = REPLY_MAX_BYTES,
        .ca_file = linker->config.ca_file,
        .direct = true,
        .done = on_reply,
        .headers = {"Content-Type: application/json", delivery->trace_header},
    };
    size_t next = 2;
    if (delivery->request_header) {
        delivery->exchange.headers[next++] = delivery->request_header;
        delivery->exchange.headers[next++] = delivery->id_header;
    }
    if (delivery->token_header)
        delivery->exchange.headers[next++] = delivery->token_header;
    find_addresses(linker, delivery);
    if (delivery->url_count)
        send_request(delivery);
    if (delivery->started)
        delivery->started(delivery);
    if (delivery->url_count)
        return;
    (void)snprintf(delivery->reason, sizeof delivery->reason, "aucune adresse connue du service soirées");
    conclude(delivery, false);
}

/* ---- what could not be delivered at first ---- */

static void claim(struct linker *linker);

static void retry_done(struct link_delivery *delivery)
{
    struct linker *linker = delivery->linker;
    link_delivery_done(delivery);
    if (--linker->retrying > 0)
        return;
    if (linker->claim.count == STORE_CLAIM_MAX || linker->claim_at_once)
        claim(linker);
    else
        http_client_after(linker->config.client, &linker->poll, POLL_MS);
}

static void on_claimed(struct http_task *task)
{
    struct linker *linker = OWNER(task, struct linker, claimed);
    size_t count = linker->claim.err.status == STATUS_OK ? linker->claim.count : 0;
    linker->claiming = false;
    linker->retrying = count;
    if (count == 0)
        http_client_after(linker->config.client, &linker->poll, linker->claim_at_once ? 0 : POLL_MS);
    for (size_t i = 0; i < count; i++) {
        struct link_delivery *delivery = &linker->retries[i];
        *delivery = (struct link_delivery){.link = linker->claim.links[i], .done = retry_done, .quiet = true};
        linker_deliver(linker, delivery);
    }
}

static void claim_done(struct store_links *links)
{
    struct linker *linker = links->arg;
    http_client_post(linker->config.client, &linker->claimed);
}

static void claim(struct linker *linker)
{
    if (linker->claiming || linker->retrying) {
        linker->claim_at_once = true;
        return;
    }
    http_client_disarm(linker->config.client, &linker->poll);
    linker->claiming = true;
    linker->claim_at_once = false;
    linker->claim.kind = STORE_LINKS_CLAIM;
    linker->claim.lease_ms = LEASE_MS;
    linker->claim.done = claim_done;
    linker->claim.arg = linker;
    store_links(linker->config.store, &linker->claim);
}

static void on_poll(struct http_timer *timer)
{
    claim(OWNER(timer, struct linker, poll));
}

static void on_hurried(struct http_task *task)
{
    struct linker *linker = OWNER(task, struct linker, hurried);
    linker->hurrying = false;
    claim(linker);
}

static void hurry_done(struct store_links *links)
{
    struct linker *linker = links->arg;
    http_client_post(linker->config.client, &linker->hurried);
}

void linker_hurry(void *owner)
{
    struct linker *linker = owner;
    if (linker->hurrying)
        return;
    linker->hurrying = true;
    linker->hurry.kind = STORE_LINKS_HURRY;
    linker->hurry.done = hurry_done;
    linker->hurry.arg = linker;
    store_links(linker->config.store, &linker->hurry);
}

void linker_change_token(struct linker *linker, const char *token)
{
    if (strcmp(linker->token, token) == 0)
        return;
    free(linker->token);
    linker->token = mem_text(token);
    linker_hurry(linker);
}

/* ---- life ---- */

static void on_start(struct http_task *task)
{
    claim(OWNER(task, struct linker, start));
}

struct linker *linker_new(const struct linker_config *config)
{
    struct linker *linker = mem_new(sizeof *linker);
    linker->config = *config;
    linker->token = mem_text(config->token);
    linker->start.run = on_start;
    linker->claimed.run = on_claimed;
    linker->hurried.run = on_hurried;
    linker->poll.fire = on_poll;
    return linker;
}

void linker_start(struct linker *linker, struct consul *consul)
{
    linker->consul = consul;
    http_client_post(linker->config.client, &linker->start);
}

void linker_free(struct linker *linker)
{
    if (!linker)
        return;
    for (size_t i = 0; i < STORE_CLAIM_MAX; i++)
        link_delivery_done(&linker->retries[i]);
    free(linker->token);
    free(linker);
}
