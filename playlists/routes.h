/* The REST API of the playlists: /api/playlists, /health, /ready, /metrics, and its description:
 * /openapi.json, /docs. */
#ifndef PLAYLISTS_ROUTES_H
#define PLAYLISTS_ROUTES_H

#include <pthread.h>
#include <stdbool.h>

#include "consul.h"
#include "delivery.h"
#include "http_server.h"
#include "linker.h"
#include "since.h"
#include "store.h"
#include "worker.h"

/* What a reload has for the loop, which alone uses these settings: those of the last one count. */
struct handover {
    pthread_mutex_t mutex;
    struct http_task task;
    bool posted;
    struct generator_settings generator; /* url NULL: nothing is waiting */
    char *token;
};

/* What the handlers use. `draining` is set when the daemon is about to end. */
struct playlists {
    const char *name;
    struct store *store;
    struct linker *linker;
    struct worker *worker;
    struct delivery_means means;
    struct consul *consul;
    struct http_client *client;
    struct http_server *server;
    struct handover handover;
    struct since draining; /* bool */
};

extern const struct http_route playlists_routes[];
extern const size_t playlists_route_count;

#endif
