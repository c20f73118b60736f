#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "http_internal.h"
#include "ids.h"
#include "log.h"
#include "mem.h"

/* A path of 32 KB, doubled by escapes, and PROBLEMS_MAX problems fit. */
enum { PROBLEM_MAX_BYTES = 128 * 1024 };

static const char json_type[] = "application/json; charset=utf-8";
static const char problem_type[] = "application/problem+json";

/* ---- from any thread ---- */

void http_call_park(struct http_call *call)
{
    call->parked = true;
    http_server_park(call->server);
    MHD_suspend_connection(call->connection);
}

/* From here on the call is the pool thread's, which may already have freed it. */
static void finish(struct http_call *call, int http_status, const char *content_type)
{
    if (call->answered) {
        log_event(LOG_ERROR, "http.answered_twice", NULL, "%s %s: answered twice", call->method_text,
                  call->path);
        abort();
    }
    call->status = http_status;
    text_copy(call->content_type, sizeof call->content_type, content_type);
    call->answered = true;
    if (!call->parked)
        return; /* inside the handler: queued when it returns */

    struct http_server *server = call->server;
    MHD_resume_connection(call->connection);
    http_server_unpark(server);
}

static bool is_set(const struct http_call *call, const char *name)
{
    for (size_t i = 0; i < call->set_count; i++)
        if (strcasecmp(call->set[i].name, name) == 0)
            return true;
    return false;
}

void http_call_set(struct http_call *call, const char *name, const char *format, ...)
{
    if (call->set_count == HTTP_SET_MAX) {
        log_event(LOG_REPEATED(LOG_ERROR), "http.header_refused", NULL,
                  "response header %s left out: too many", name);
        return;
    }
    struct http_set *set = &call->set[call->set_count++];
    *set = (struct http_set){.name = name, .value = call->set_text + call->set_used};
    size_t room = sizeof call->set_text - call->set_used;
    va_list args;
    va_start(args, format);
    size_t len = (size_t)vsnprintf(set->value, room, format, args);
    va_end(args);
    if (len < room) {
        call->set_used += len + 1;
        return;
    }
    set->owned = true;
    set->value = mem_new(len + 1);
    va_start(args, format);
    (void)vsnprintf(set->value, len + 1, format, args);
    va_end(args);
}

void http_answer_bytes(struct http_call *call, int http_status, const char *content_type, struct buf *body)
{
    if (!buf_ok(body)) {
        log_event(LOG_REPEATED(LOG_ERROR), "http.answer_too_large", NULL,
                  "%s %s: the answer passed its limit of %zu bytes", call->method_text, call->path,
                  body->max_bytes);
        http_answer_problem(call, STATUS_INTERNAL, "La réponse est trop volumineuse", NULL);
        return;
    }
    call->answer_len = call->backlog = body->len;
    (void)atomic_fetch_add_explicit(&call->server->backlog, call->backlog, memory_order_relaxed);
    call->answer = buf_take(body);
    finish(call, http_status, content_type);
}

void http_answer_json(struct http_call *call, int http_status, struct buf *body)
{
    http_answer_bytes(call, http_status, json_type, body);
}

void http_answer_empty(struct http_call *call, int http_status)
{
    finish(call, http_status, "");
}

static void put_problems(struct buf *out, const struct problems *problems)
{
    size_t kept = problems->count < PROBLEMS_MAX ? problems->count : PROBLEMS_MAX;
    json_put_name(out, "errors");
    for (size_t i = 0; i < kept; i++) {
        buf_text(out, i == 0 ? "[{" : ",{");
        json_put_name(out, "pointer");
        json_put_text(out, problems->items[i].pointer);
        json_put_name(out, "detail");
        json_put_text(out, problems->items[i].detail);
        buf_char(out, '}');
    }
    buf_char(out, ']');
}

void http_answer_problem(struct http_call *call, enum status status, const char *detail,
                         const struct problems *problems)
{
    detail = detail ? detail : status_title(status);
    CLEANUP(buf_done) struct buf body;
    buf_init(&body, PROBLEM_MAX_BYTES);
    buf_text(&body, "{\"type\":\"about:blank\"");
    json_put_name(&body, "title");
    json_put_text(&body, status_title(status));
    json_put_name(&body, "status");
    buf_number(&body, status_http(status));
    json_put_name(&body, "detail");
    json_put_text(&body, detail);
    json_put_name(&body, "instance");
    json_put_text(&body, call->path);
    json_put_name(&body, "error");
    json_put_text(&body, detail);
    if (problems && problems->count > 0)
        put_problems(&body, problems);
    buf_char(&body, '}');

    call->is_problem = true;
    if (status_http(status) == 503 && !is_set(call, "Retry-After"))
        http_call_set(call, "Retry-After", "5");
    http_answer_bytes(call, status_http(status), problem_type, &body);
}

/* ---- in the pool thread ---- */

/* The value of Access-Control-Allow-Origin for this request, NULL for none. */
static const char *allowed_origin(const struct http_call *call)
{
    const char *ours = call->server->config.cors_origin, *theirs = call->known[HTTP_ORIGIN];
    if (strcmp(ours, "*") == 0)
        return ours;
    return ours[0] && theirs && strcmp(ours, theirs) == 0 ? ours : NULL;
}

void http_reply_options(struct http_call *call)
{
    char allow[HTTP_ALLOW_SIZE];
    http_allow_format(call->allowed, allow);
    http_call_set(call, "Allow", "%s", allow);
    if (call->known[HTTP_PREFLIGHT_METHOD] && allowed_origin(call)) {
        http_call_set(call, "Access-Control-Allow-Methods", "%s", allow);
        http_call_set(call, "Access-Control-Allow-Headers",
                      "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id, "
                      "traceparent, Playlist-Request");
        http_call_set(call, "Access-Control-Max-Age", "7200");
    }
    http_answer_empty(call, 204);
}

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    if (value[0] && MHD_add_response_header(response, name, value) != MHD_YES)
        log_event(LOG_REPEATED(LOG_WARN), "http.header_refused", NULL,
                  "response header %s left out: not allowed in HTTP", name);
}

static void add_own_headers(const struct http_call *call, struct MHD_Response *response)
{
    const char *cors_origin = call->server->config.cors_origin, *origin = allowed_origin(call);
    bool changes = call->method > HTTP_GET && call->method < HTTP_ROUTED_COUNT;

    add_header(response, "X-Request-Id", call->request_id);
    if (!is_set(call, "Cache-Control") && (changes || call->is_problem || call->method == HTTP_GET))
        add_header(response, "Cache-Control", changes || call->is_problem ? "no-store" : "no-cache");
    if (origin) {
        add_header(response, "Access-Control-Allow-Origin", origin);
        add_header(response, "Access-Control-Expose-Headers",
                   "ETag, Link, Location, Retry-After, X-Request-Id");
    }
    if (cors_origin[0] && strcmp(cors_origin, "*") != 0)
        add_header(response, "Vary", "Origin");
    if (call->close || atomic_load_explicit(&call->server->leaving, memory_order_relaxed))
        add_header(response, "Connection", "close");
}

/* The one place that makes a libmicrohttpd response, which owns the answer's bytes from then on. */
static struct MHD_Response *response_new(struct http_call *call)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        call->answer_len, call->answer_len > 0 ? call->answer : NULL,
        call->answer_len > 0 ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response)
        return NULL;
    if (call->answer_len > 0)
        call->answer = NULL;
    add_header(response, "Content-Type", call->content_type);
    for (size_t i = 0; i < call->set_count; i++)
        add_header(response, call->set[i].name, call->set[i].value);
    add_own_headers(call, response);
    return response;
}

static const char *own_header(const struct http_call *call, const char *name)
{
    for (size_t i = 0; i < call->set_count; i++)
        if (strcmp(call->set[i].name, name) == 0)
            return call->set[i].value;
    return "";
}

/* People read of their soirées and playlists; machines of each request, but for the many that ask for health.
 * What was created is named, so that who knows its id finds the request, and the other way round. */
static void log_call(struct http_call *call)
{
    bool probe = strcmp(call->path, "/health") == 0 || strcmp(call->path, "/ready") == 0;
    enum log_level level = log_is_json() && !probe ? LOG_INFO : LOG_DEBUG;
    if (!log_enabled(level))
        return;
    char client[ADDRESS_SIZE];
    http_access_client(call, client);
    int64_t duration_ms = (clock_mono_us() - call->began_us) / 1000;
    log_event(level, "http.request",
              LOG_FIELDS(LOG_TEXT("method", call->method_text), LOG_TEXT("path", call->path),
                         LOG_NUMBER("status", call->status), LOG_NUMBER("durationMs", duration_ms),
                         LOG_TEXT("requestId", call->request_id), LOG_TEXT("client", client),
                         LOG_TEXT("token", call->token_name),
                         LOG_TEXT("location", own_header(call, "Location")),
                         LOG_TRACE(http_call_header(call, "traceparent"))),
              "%s %s %d %lld ms %s", call->method_text, call->path, call->status, (long long)duration_ms,
              call->request_id);
}

bool http_reply_queue(struct http_call *call)
{
    if (!call->answered) {
        log_event(LOG_ERROR, "http.unanswered", NULL, "%s %s: the handler gave no answer", call->method_text,
                  call->path);
        http_answer_problem(call, STATUS_INTERNAL, "Erreur interne", NULL);
    }
    struct MHD_Response *response = response_new(call);
    if (!response)
        return false;
    bool queued = MHD_queue_response(call->connection, (unsigned)call->status, response) == MHD_YES;
    MHD_destroy_response(response);
    http_metrics_count(call);
    log_call(call);
    return queued;
}
