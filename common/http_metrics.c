/* What the server counts of its calls: by route, method and status, with their durations by route and method.
 * The room for all of it is there from the start; a series is shown once it has counted something. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_internal.h"
#include "ids.h"
#include "mem.h"

/* Every status that we answer with; what is not among them would be counted as "other". */
static const short statuses[] = {200, 201, 204, 304, 400, 401, 403, 404, 405,
                                 409, 410, 412, 413, 415, 422, 500, 503};
enum { STATUSES = sizeof statuses / sizeof *statuses, METHODS = HTTP_OTHER + 1 };

/* HEAD is not one of enum http_method's values: it gets the number between those. */
static const char *const methods[METHODS] = {"GET",    "POST", "PUT",     "PATCH",
                                             "DELETE", "HEAD", "OPTIONS", "other"};

struct http_meter {
    _Atomic uint64_t counts[STATUSES + 1];
    struct metrics_cells durations;
};

static size_t meter_count(const struct http_server *server)
{
    return (server->config.route_count + 1) * METHODS;
}

void http_metrics_init(struct http_server *server)
{
    server->meters = mem_new(meter_count(server) * sizeof *server->meters);
}

void http_metrics_done(struct http_server *server)
{
    free(server->meters);
}

void http_metrics_count(const struct http_call *call)
{
    const struct http_server *server = call->server;
    size_t path = call->matched ? call->matched->path : server->config.route_count, status = 0;
    bool head = call->method == HTTP_GET && call->method_text[0] == 'H';
    struct http_meter *meter = &server->meters[path * METHODS + (head ? HTTP_ROUTED_COUNT : call->method)];
    while (status < STATUSES && statuses[status] != call->status)
        status++;
    atomic_fetch_add_explicit(&meter->counts[status], 1, memory_order_relaxed);
    metrics_measure(&meter->durations, &metrics_fast, clock_mono_us() - call->began_us);
}

/* The labels of a meter; the path "other" stands for all that belong to no route. */
static void meter_labels(const struct http_server *server, size_t number, char *out, size_t size)
{
    size_t path = number / METHODS;
    bool known = path < server->config.route_count;
    (void)snprintf(out, size, "route=\"%s\",method=\"%s\"",
                   known ? server->config.routes[path].path : "other", methods[number % METHODS]);
}

static void put_counts(struct buf *out, struct http_meter *meter, const char *labels)
{
    for (size_t i = 0; i <= STATUSES; i++) {
        uint64_t count = atomic_load_explicit(&meter->counts[i], memory_order_relaxed);
        char text[192];
        if (count == 0)
            continue;
        if (i < STATUSES)
            (void)snprintf(text, sizeof text, "%s,status=\"%d\"", labels, statuses[i]);
        else
            (void)snprintf(text, sizeof text, "%s,status=\"other\"", labels);
        metrics_put_value(out, "http_requests_total", text, (double)count);
    }
}

static bool is_used(struct http_meter *meter)
{
    for (size_t i = 0; i <= STATUSES; i++)
        if (atomic_load_explicit(&meter->counts[i], memory_order_relaxed))
            return true;
    return false;
}

void http_server_put_metrics(struct http_server *server, struct buf *out)
{
    char labels[160];
    metrics_put_head(out, "http_requests_total", "counter",
                     "Requests answered, by the route's template, method and status.");
    for (size_t i = 0; i < meter_count(server); i++) {
        meter_labels(server, i, labels, sizeof labels);
        put_counts(out, &server->meters[i], labels);
    }
    metrics_put_head(out, "http_request_duration_seconds", "histogram",
                     "From a request's first line to its answer.");
    for (size_t i = 0; i < meter_count(server); i++) {
        meter_labels(server, i, labels, sizeof labels);
        if (is_used(&server->meters[i]))
            metrics_put_cells(out, "http_request_duration_seconds", labels, &server->meters[i].durations,
                              &metrics_fast);
    }
    metrics_put_gauge(out, "http_requests_in_progress", "Requests begun and not answered yet.",
                      atomic_load(&server->unanswered));
    metrics_put_gauge(out, "http_connections_open", "Connections of clients.",
                      atomic_load(&server->listener.open));
}
