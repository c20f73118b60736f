/* Consul: registers this instance at its agent, keeps it registered, and follows the passing instances of one
 * service. A state machine on an http_client loop: no thread of its own, and start-up never waits for it.
 *
 * Registering goes through the agent (HTTP API, "Register Service"), again whenever the agent has forgotten
 * it (an agent that lost its memory forgets what came over the API). Discovery uses blocking queries (HTTP
 * API, "Blocking Queries") and holds the last good list in memory. */
#ifndef COMMON_CONSUL_H
#define COMMON_CONSUL_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "http_client.h"
#include "status.h"

struct consul;

enum { CONSUL_INSTANCES_MAX = 32, CONSUL_URL_SIZE = 112 };

struct consul_config {
    const char *scheme,
        *host; /* host "" turns everything off: nothing is registered, no list is ever known */
    unsigned port;
    const char *token, *ca_file; /* "" = none */

    const char *service_name;    /* what is registered */
    const char *service_address; /* "" = the source address towards the agent */
    unsigned service_port;

    const char *watched; /* the service to follow; "" = none */
    /* Loop's thread: the watched list is another now. May be NULL. */
    void (*changed)(void *arg);
    void *arg;
};

/* The object; nothing happens yet. The config's strings must outlive it. */
struct consul *consul_new(struct http_client *client, const struct consul_config *config);

/* Starts registering and watching, for ever: what goes wrong is logged when it begins and when it ends. Any
 * thread. */
void consul_start(struct consul *consul);

/* Deregisters, waiting at most `timeout_ms`, and stops. Any thread but the loop's. The object stays (its loop
 * may be in it) until consul_free. */
void consul_stop(struct consul *consul, int timeout_ms);

/* After http_client_stop. NULL is fine. */
void consul_free(struct consul *consul);

/* The base URLs ("http://10.0.0.7:3003") of the passing instances of the watched service. An empty list from
 * Consul does not replace a good one before it has lasted 30 s, and an agent that is away leaves the list as
 * it is. 0 = none is known. Any thread. */
size_t consul_instances(struct consul *consul, char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE]);

/* Whether no passing instance was known for 30 s (or Consul is off): the time for a fixed address. Any
 * thread. */
bool consul_gave_up(struct consul *consul);

/* For /health: "off", "registered", "unreachable", …, and since when (wall clock); any thread. */
const char *consul_state(struct consul *consul, int64_t *ret_since_ms);

/* Appends Consul's metrics (see metrics.h): the state, registrations, failed calls, passing instances. Any
 * thread. */
void consul_put_metrics(struct consul *consul, struct buf *out);

/* Reads a reply of /v1/health/service into urls: skips entries without a usable address or port. Pure.
 * PROTOCOL when it is no such reply. */
enum status consul_parse(const char *reply, size_t len, char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE],
                         size_t *ret_count, struct err *err);

#endif
