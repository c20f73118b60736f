#include "routes.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "document.h"
#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "meters.h"
#include "service.h"

enum { ITEM_MAX_BYTES = 32 * 1024 };

static void answer_item(struct http_call *call, int http_status, const struct soiree *soiree)
{
    struct buf body;
    buf_init(&body, ITEM_MAX_BYTES);
    soiree_put_json(&body, soiree);
    http_answer_json(call, http_status, &body);
}

static void answer_error(struct http_call *call, const struct err *err)
{
    struct err known = *err;
    if (err->status == STATUS_NOT_FOUND)
        (void)err_set(&known, STATUS_NOT_FOUND, "Soirée non trouvée");
    service_answer_error(call, &known);
}

/* ---- reads ---- */

static void get_item(struct http_call *call, void *service)
{
    struct soirees *soirees = service;
    struct soiree soiree;
    struct err err = {0};
    err.status = store_get(soirees->store, http_call_param(call), &soiree, &err);
    if (err.status != STATUS_OK)
        answer_error(call, &err);
    else if (api_etag(call, soiree.version))
        answer_item(call, 200, &soiree);
}

static bool put_row(void *arg, const struct soiree *soiree)
{
    struct buf *body = api_list_row(arg, soiree->seq);
    if (body)
        soiree_put_json(body, soiree);
    return body;
}

static void get_list(struct http_call *call, void *service)
{
    static const char *const filters[] = {"clientId", "statut", "dateFrom", "dateTo", NULL};
    struct soirees *soirees = service;
    struct problems problems = {0};
    struct api_page page;
    api_page_read(call, &page, &problems);
    struct soiree_filter filter = {
        .client_id = api_filter_text(call, "clientId", 128, &problems),
        .statut = api_filter_text(call, "statut", 32, &problems),
        .date_from = api_filter_date(call, "dateFrom", &problems),
        .date_to = api_filter_date(call, "dateTo", &problems),
    };
    if (problems.count) {
        api_answer_invalid(call, &problems);
        return;
    }
    CLEANUP(api_list_done) struct api_list list = {0};
    struct err err = {0};
    if (!api_list_init(&list, call, &page, ITEM_MAX_BYTES))
        return;
    err.status = store_list(soirees->store, &filter, &page, put_row, &list, &err);
    if (err.status == STATUS_OK)
        api_list_answer(call, &list, &page, filters);
    else
        answer_error(call, &err);
}

/* ---- writes ---- */

/* What ties a client's request to the booking and to its request for a playlist. */
static void log_stored(const struct http_call *call, const struct store_write *write)
{
    log_event(LOG_DEBUG, "soiree.stored",
              LOG_FIELDS(LOG_TEXT("soireeId", write->soiree.id),
                         LOG_TEXT("requestId", write->soiree.request_id),
                         LOG_TEXT("playlistId", write->soiree.playlist_id),
                         LOG_TEXT("httpRequestId", http_call_request_id(call))),
              "Soirée %s enregistrée (%s)", write->soiree.id, http_call_request_id(call));
}

/* Writer's thread: the commit is done, or has failed. */
static void write_done(struct store_write *write)
{
    struct http_call *call = write->arg;
    FAILPOINT("soirees.answer.before");
    if (write->err.status != STATUS_OK) {
        answer_error(call, &write->err);
    } else if (write->kind == STORE_DELETE) {
        http_answer_empty(call, 204);
    } else {
        log_stored(call, write);
        http_call_set(call, "ETag", "\"%lld\"", (long long)write->soiree.version);
        if (write->kind == STORE_CREATE)
            http_call_set(call, "Location", "/api/soirees/%s", write->soiree.id);
        answer_item(call, write->kind == STORE_CREATE ? 201 : 200, &write->soiree);
    }
    free(write);
}

static struct store_write *new_write(struct http_call *call, enum store_write_kind kind)
{
    struct store_write *write = mem_new(sizeof *write);
    write->kind = kind;
    write->arg = call;
    write->done = write_done;
    traceparent_continue(http_call_header(call, "traceparent"), write->traceparent);
    api_conditions_read(call, &write->conditions);
    if (!text_copy(write->id, sizeof write->id, http_call_param(call)))
        write->id[0] = '\0'; /* longer than any id: matches none */
    return write;
}

static void submit(struct http_call *call, struct soirees *soirees, struct store_write *write)
{
    FAILPOINT("soirees.submit.before");
    http_call_park(call);
    store_submit(soirees->store, write);
}

/* Decodes the body into the write; false when the call was answered. */
static bool decode(struct http_call *call, enum json_mode mode, struct soiree_change *change)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct problems problems = {0};
    if (!api_body(call, &document))
        return false;
    if (soiree_decode(document, mode, change, &problems) == STATUS_OK)
        return true;
    api_answer_invalid(call, &problems);
    return false;
}

static void post_item(struct http_call *call, void *service)
{
    CLEANUP(free_pointer) struct store_write *write = new_write(call, STORE_CREATE);
    if (api_idempotency_key(call, write->key) && decode(call, JSON_CREATE, &write->change))
        submit(call, service, TAKE(write));
}

/* The worker's link: a PATCH that says which request it answers, and brings nothing but the playlist. */
static bool decode_link(struct http_call *call, const char *request_id, struct store_write *write)
{
    struct problems problems = {0};
    write->kind = STORE_LINK;
    if (!text_copy(write->request_id, sizeof write->request_id, request_id))
        write->request_id[0] = '\0'; /* none of ours */
    if (write->change.present == 1U << SOIREE_PLAYLIST_ID && write->change.values.playlist_id[0])
        return true;
    problems_add(&problems, "/playlistId",
                 "doit être le seul champ, et non nul, avec l'en-tête Playlist-Request");
    api_answer_invalid(call, &problems);
    return false;
}

/* PUT keeps what it does not name, as the Node.js version did; so it is a PATCH. */
static void change_item(struct http_call *call, void *service)
{
    CLEANUP(free_pointer) struct store_write *write = new_write(call, STORE_CHANGE);
    const char *request_id = http_call_header(call, "Playlist-Request");
    if (decode(call, JSON_CHANGE, &write->change) && (!request_id || decode_link(call, request_id, write)))
        submit(call, service, TAKE(write));
}

static void delete_item(struct http_call *call, void *service)
{
    submit(call, service, new_write(call, STORE_DELETE));
}

/* ---- health ---- */

static void answer_health(struct http_call *call, struct soirees *soirees, bool ready)
{
    struct err database = {0};
    int64_t database_ms = 0, broker_ms = 0, consul_ms = 0;
    bool draining = since_state(&soirees->draining);
    database.status = store_health(soirees->store, &database_ms, &database);
    const char *broker = relay_state(soirees->relay, &broker_ms);
    const char *consul = consul_state(soirees->consul, &consul_ms);
    const struct component components[] = {
        {"service", draining ? "draining" : "running", "", draining, since_ms(&soirees->draining)},
        {"database", database.status == STATUS_OK ? "ok" : "failing", database.text,
         database.status != STATUS_OK, database_ms},
        {"rabbitmq", broker, "", false, broker_ms},
        {"consul", consul, "", false, consul_ms},
    };
    service_answer_health(call, soirees->name, ready, components, sizeof components / sizeof *components);
}

static void get_health(struct http_call *call, void *service)
{
    answer_health(call, service, false);
}

static void get_ready(struct http_call *call, void *service)
{
    answer_health(call, service, true);
}

/* ---- the description ---- */

extern const struct document soirees_openapi[]; /* openapi.json, embedded */

static void get_openapi(struct http_call *call, void *service)
{
    (void)service;
    document_answer(call, &soirees_openapi[0], "application/json; charset=utf-8");
}

const struct http_route soirees_routes[] = {
    {"GET", "/api/soirees", get_list, 0},
    {"POST", "/api/soirees", post_item, HTTP_TAKES_JSON},
    {"GET", "/api/soirees/{id}", get_item, 0},
    {"PUT", "/api/soirees/{id}", change_item, HTTP_TAKES_JSON},
    {"PATCH", "/api/soirees/{id}", change_item, HTTP_TAKES_JSON},
    {"DELETE", "/api/soirees/{id}", delete_item, 0},
    {"GET", "/health", get_health, HTTP_OPEN},
    {"GET", "/ready", get_ready, HTTP_OPEN},
    {"GET", "/metrics", meters_get, HTTP_METRICS},
    {"GET", "/openapi.json", get_openapi, HTTP_OPEN},
    {"GET", "/docs", document_get_docs, HTTP_OPEN},
};
const size_t soirees_route_count = sizeof soirees_routes / sizeof *soirees_routes;
