#include "meters.h"

#include <string.h>

#include "amqp.h"
#include "consul.h"
#include "ids.h"
#include "routes.h"
#include "service.h"
#include "store.h"
#include "worker.h"

struct metrics_counter meters_deliveries = {
    .name = "playlists_deliveries_total",
    .help = "Messages by what became of them: acked, copied to the dead letters, to be delivered again since "
            "their channel is gone, given back after ten minutes, or copied to the end of the queue before "
            "a quorum queue's delivery limit.",
    .label = "outcome",
    .values = {"acked", "dead", "void", "overdue", "renewed"},
};

struct metrics_histogram meters_delivery_durations = {
    .name = "playlists_delivery_duration_seconds",
    .help = "From a message's arrival to its ack.",
    .scale = &metrics_slow,
};

struct metrics_histogram meters_attempts = {
    .name = "playlists_lagmaster_attempt_duration_seconds",
    .help = "Calls of lagmaster-pro by their outcome.",
    .scale = &metrics_slow,
    .label = "outcome",
    .values = {"ok", "status", "invalid", "timeout", "network"},
};

struct metrics_counter meters_links = {
    .name = "playlists_link_tries_total",
    .help = "Tries to tell soirees of a playlist: delivered, pointless (a newer request, no soiree), still "
            "pending.",
    .label = "outcome",
    .values = {"delivered", "pointless", "pending"},
};

static struct metrics_counter created = {
    .name = "playlists_created_total",
    .help = "Playlists stored, by their origine.",
    .label = "origine",
    .values = {"lagmaster-pro", "defaut", "manuelle"},
};

void meters_created(const char *origine)
{
    for (unsigned i = 0; i < METRICS_SERIES_MAX && created.values[i]; i++)
        if (strcmp(created.values[i], origine) == 0)
            metrics_count(&created, i);
}

static void put_links(struct buf *out, struct store *store)
{
    struct store_pending pending;
    store_pending_look(store, &pending);
    double age_s = pending.oldest_ms < 0 ? 0 : (double)(clock_wall_ms() - pending.oldest_ms) / 1000;
    metrics_put_gauge(out, "playlists_links_pending", "Playlists that soirees has not been told of.",
                      (double)pending.count);
    metrics_put_gauge(out, "playlists_links_oldest_pending_seconds",
                      "Age of the oldest of them; 0: there is none.", age_s > 0 ? age_s : 0);
}

static void put_all(struct buf *out, void *service)
{
    struct playlists *playlists = service;
    int64_t since;
    http_server_put_metrics(playlists->server, out);
    metrics_put_counter(out, &meters_deliveries);
    metrics_put_histogram(out, &meters_delivery_durations);
    metrics_put_histogram(out, &meters_attempts);
    metrics_put_counter(out, &created);
    put_links(out, playlists->store);
    metrics_put_counter(out, &meters_links);
    metrics_put_gauge(out, "playlists_workers", "Messages that are worked on at once, at most.",
                      worker_count(playlists->worker));
    metrics_put_gauge(out, "playlists_workers_busy", "Messages that are worked on now.",
                      worker_busy(playlists->worker));
    metrics_put_state(out, "amqp_state", "Connection to RabbitMQ: 1 for the present state.", worker_states,
                      worker_state(playlists->worker, &since));
    amqp_put_metrics(out);
    consul_put_metrics(playlists->consul, out);
    store_put_metrics(playlists->store, out);
}

void meters_get(struct http_call *call, void *service)
{
    service_answer_metrics(call, "playlists", put_all, service);
}
