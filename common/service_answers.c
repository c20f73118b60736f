/* What both services answer alike. */
#include "service.h"

#include <stdio.h>

#include "api.h"
#include "cleanup.h"
#include "ids.h"
#include "log.h"
#include "metrics.h"

void service_answer_metrics(struct http_call *call, const char *program,
                            void (*put)(struct buf *out, void *service), void *service)
{
    CLEANUP(buf_done) struct buf body;
    buf_init(&body, METRICS_MAX_BYTES);
    put(&body, service);
    metrics_put_process(&body, program);
    http_call_set(call, "Cache-Control", "no-store");
    http_call_set(call, "Vary", "Accept-Encoding");
    api_answer_packed(call, "text/plain; version=0.0.4; charset=utf-8", &body);
}

void service_answer_health(struct http_call *call, const char *service_name, bool ready,
                           const struct component *components, size_t count)
{
    bool healthy = true;
    for (size_t i = 0; i < count; i++)
        healthy = healthy && !components[i].fails;
    struct buf body;
    buf_init(&body, 16 * 1024);
    buf_format(&body, "{\"status\":\"%s%s\"", healthy ? "" : "un", ready ? "ready" : "healthy");
    json_put_name(&body, "service");
    json_put_text(&body, service_name);
    buf_text(&body, ",\"components\":{");
    for (size_t i = 0; i < count; i++) {
        json_put_name(&body, components[i].name);
        buf_text(&body, "{\"state\":");
        json_put_text(&body, components[i].state);
        if (*components[i].detail) {
            json_put_name(&body, "detail");
            json_put_text(&body, components[i].detail);
        }
        char since[TIMESTAMP_SIZE];
        timestamp_format(components[i].since_ms, since);
        json_put_name(&body, "since");
        json_put_text(&body, since);
        buf_char(&body, '}');
    }
    buf_text(&body, "}}");
    http_call_set(call, "Cache-Control", "no-store");
    http_answer_json(call, healthy ? 200 : 503, &body);
}

void service_answer_error(struct http_call *call, const struct err *err)
{
    if (status_retryable(err->status))
        log_event(
            LOG_REPEATED(LOG_ERROR), "storage.failed",
            LOG_FIELDS(LOG_TEXT("reason", err->text), LOG_TEXT("requestId", http_call_request_id(call))),
            "❌ Stockage indisponible : %s", err->text);
    http_answer_problem(call, err->status, *err->text ? err->text : status_title(err->status), NULL);
}
