/* The REST API of the bookings: /api/soirees, /health, /ready, /metrics, and its description: /openapi.json,
 * /docs. */
#ifndef SOIREES_ROUTES_H
#define SOIREES_ROUTES_H

#include "consul.h"
#include "http_server.h"
#include "relay.h"
#include "since.h"
#include "store.h"

/* What the handlers use. `draining` is set when the daemon is about to end. */
struct soirees {
    const char *name;
    struct store *store;
    struct relay *relay;
    struct consul *consul;
    struct http_client *client;
    struct http_server *server;
    _Atomic int64_t again_after_ms; /* REQUEST_AGAIN_AFTER_S */
    struct since draining;          /* bool */
};

extern const struct http_route soirees_routes[];
extern const size_t soirees_route_count;

#endif
