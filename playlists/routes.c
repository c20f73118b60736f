#include "routes.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "document.h"
#include "mem.h"
#include "meters.h"
#include "service.h"

/* The longest body that was accepted (64 KiB) may grow when it is written: 6 bytes for a control character of
 * one. */
enum { ITEM_MAX_BYTES = 4 << 20 };

static void answer_item(struct http_call *call, int http_status, const struct playlist *playlist)
{
    struct buf body;
    buf_init(&body, ITEM_MAX_BYTES);
    playlist_put_json(&body, playlist);
    http_answer_json(call, http_status, &body);
}

static void answer_error(struct http_call *call, const struct err *err)
{
    struct err known = *err;
    if (err->status == STATUS_NOT_FOUND)
        (void)err_set(&known, STATUS_NOT_FOUND, "Playlist non trouvée");
    service_answer_error(call, &known);
}

/* ---- reads ---- */

static void get_item(struct http_call *call, void *service)
{
    struct playlists *playlists = service;
    CLEANUP(playlist_done) struct playlist playlist = {0};
    struct err err = {0};
    err.status = store_get(playlists->store, http_call_param(call), &playlist, &err);
    if (err.status != STATUS_OK)
        answer_error(call, &err);
    else if (api_etag(call, playlist.version))
        answer_item(call, 200, &playlist);
}

static bool put_row(void *arg, const struct playlist *playlist)
{
    struct buf *body = api_list_row(arg, playlist->seq);
    if (body)
        playlist_put_json(body, playlist);
    return body;
}

static void get_list(struct http_call *call, void *service)
{
    static const char *const filters[] = {"soireeId", NULL};
    struct playlists *playlists = service;
    struct problems problems = {0};
    struct api_page page;
    api_page_read(call, &page, &problems);
    const char *soiree_id = api_filter_text(call, "soireeId", 128, &problems);
    if (problems.count) {
        api_answer_invalid(call, &problems);
        return;
    }
    CLEANUP(api_list_done) struct api_list list = {0};
    struct err err = {0};
    if (!api_list_init(&list, call, &page, ITEM_MAX_BYTES))
        return;
    err.status = store_list(playlists->store, soiree_id, &page, put_row, &list, &err);
    if (err.status == STATUS_OK)
        api_list_answer(call, &list, &page, filters);
    else
        answer_error(call, &err);
}

/* ---- writes ---- */

static void free_write(struct store_write *write)
{
    store_write_done(write);
    free(write);
}

static void drop_write(struct store_write **write)
{
    if (*write)
        free_write(*write);
}

/* Writer's thread: the commit is done, or has failed. */
static void write_done(struct store_write *write)
{
    struct http_call *call = write->arg;
    if (write->err.status != STATUS_OK) {
        answer_error(call, &write->err);
    } else if (write->kind == STORE_DELETE) {
        http_answer_empty(call, 204);
    } else {
        http_call_set(call, "ETag", "\"%lld\"", (long long)write->playlist.version);
        if (write->kind == STORE_CREATE)
            http_call_set(call, "Location", "/api/playlists/%s", write->playlist.id);
        answer_item(call, write->kind == STORE_CREATE ? 201 : 200, &write->playlist);
    }
    free_write(write);
}

static struct store_write *new_write(struct http_call *call, enum store_write_kind kind)
{
    struct store_write *write = mem_new(sizeof *write);
    write->kind = kind;
    write->arg = call;
    write->done = write_done;
    api_conditions_read(call, &write->conditions);
    if (!text_copy(write->id, sizeof write->id, http_call_param(call)))
        write->id[0] = '\0'; /* longer than any id: matches none */
    return write;
}

static void submit(struct http_call *call, struct playlists *playlists, struct store_write *write)
{
    http_call_park(call);
    store_submit(playlists->store, write);
}

/* Decodes the body into the write; false when the call was answered. */
static bool decode(struct http_call *call, enum json_mode mode, struct playlist_change *change)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct problems problems = {0};
    if (!api_body(call, &document))
        return false;
    if (playlist_decode(document, mode, change, &problems) == STATUS_OK)
        return true;
    api_answer_invalid(call, &problems);
    return false;
}

static void post_item(struct http_call *call, void *service)
{
    CLEANUP(drop_write) struct store_write *write = new_write(call, STORE_CREATE);
    if (api_idempotency_key(call, write->key) && decode(call, JSON_CREATE, &write->change))
        submit(call, service, TAKE(write));
}

/* PUT keeps what it does not name, as the Node.js version did; so it is a PATCH. */
static void change_item(struct http_call *call, void *service)
{
    CLEANUP(drop_write) struct store_write *write = new_write(call, STORE_CHANGE);
    if (decode(call, JSON_CHANGE, &write->change))
        submit(call, service, TAKE(write));
}

static void delete_item(struct http_call *call, void *service)
{
    submit(call, service, new_write(call, STORE_DELETE));
}

/* ---- health ---- */

static void answer_health(struct http_call *call, struct playlists *playlists, bool ready)
{
    struct err database = {0};
    int64_t database_ms = 0, broker_ms = 0, consul_ms = 0;
    bool draining = since_state(&playlists->draining);
    database.status = store_health(playlists->store, &database_ms, &database);
    const char *broker = worker_state(playlists->worker, &broker_ms);
    const char *consul = consul_state(playlists->consul, &consul_ms);
    const struct component components[] = {
        {"service", draining ? "draining" : "running", "", draining, since_ms(&playlists->draining)},
        {"database", database.status == STATUS_OK ? "ok" : "failing", database.text,
         database.status != STATUS_OK, database_ms},
        {"worker", broker, "", false, broker_ms},
        {"consul", consul, "", false, consul_ms},
    };
    service_answer_health(call, playlists->name, ready, components, sizeof components / sizeof *components);
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

extern const struct document playlists_openapi[]; /* openapi.json, embedded */

static void get_openapi(struct http_call *call, void *service)
{
    (void)service;
    document_answer(call, &playlists_openapi[0], "application/json; charset=utf-8");
}

const struct http_route playlists_routes[] = {
    {"GET", "/api/playlists", get_list, 0},
    {"POST", "/api/playlists", post_item, HTTP_TAKES_JSON},
    {"GET", "/api/playlists/{id}", get_item, 0},
    {"PUT", "/api/playlists/{id}", change_item, HTTP_TAKES_JSON},
    {"PATCH", "/api/playlists/{id}", change_item, HTTP_TAKES_JSON},
    {"DELETE", "/api/playlists/{id}", delete_item, 0},
    {"GET", "/health", get_health, HTTP_OPEN},
    {"GET", "/ready", get_ready, HTTP_OPEN},
    {"GET", "/metrics", meters_get, HTTP_METRICS},
    {"GET", "/openapi.json", get_openapi, HTTP_OPEN},
    {"GET", "/docs", document_get_docs, HTTP_OPEN},
};
const size_t playlists_route_count = sizeof playlists_routes / sizeof *playlists_routes;
