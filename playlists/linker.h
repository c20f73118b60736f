/* The linker: tells soirees which playlist a booking got (PATCH), at an address from Consul or the fixed one.
 * The worker tries each link once; what could not be delivered stays in the store and is tried again here,
 * with backoff, until it is delivered or pointless. Runs on the http_client loop. */
#ifndef PLAYLISTS_LINKER_H
#define PLAYLISTS_LINKER_H

#include <stdbool.h>

#include "consul.h"
#include "http_client.h"
#include "store.h"

struct linker;

struct linker_config {
    struct http_client *client;
    struct store *store;
    const char *fallback_url; /* SOIREES_URL; no slash at the end is needed */
    const char *ca_file;      /* PEM, for https; "" = the system's */
    const char *token;        /* bearer token; "" = none. Copied */
};

/* The other strings are borrowed. Nothing runs before linker_start. */
struct linker *linker_new(const struct linker_config *config);
/* Any thread, once: starts trying what earlier runs have left. `consul` gives the addresses. */
void linker_start(struct linker *linker, struct consul *consul);
/* After http_client_stop and store_close. NULL is fine. */
void linker_free(struct linker *linker);

/* Loop's thread: the addresses changed, everything that waits is tried at once. For consul_config.changed:
 * `owner` is the linker. */
void linker_hurry(void *owner);

/* Loop's thread: another bearer token from the next delivery on; what waits is tried at once. The same one:
 * nothing. */
void linker_change_token(struct linker *linker, const char *token);

/* One delivery in progress; embedded in its owner, who keeps it until done(). */
struct link_delivery {
    struct link link;
    bool quiet; /* a repetition: its failure is logged at debug level */
    /* Loop's thread, once: the first request is on its way, or there is nowhere to send it. NULL is fine. */
    void (*started)(struct link_delivery *delivery);
    void (*done)(struct link_delivery *delivery); /* loop's thread; the store has been told the outcome */

    bool ended; /* delivered or pointless; else it stays pending */

    struct linker *linker; /* private from here */
    struct http_exchange exchange;
    char (*urls)[CONSUL_URL_SIZE];
    size_t url_count, url_index;
    int64_t deadline_ms;
    char *url, *body, *request_header, *id_header, *trace_header, *token_header;
    bool put, missing;
    char reason[192];
};

/* Loop's thread: tries the link at one address after another, 5 s in all. 2xx and 409 end it; a 404 in JSON
 * that a second instance (where there is one) confirms ends it too; 405 or a 404 that is not JSON: one PUT,
 * as for the Node.js version; everything else leaves it pending. */
void linker_deliver(struct linker *linker, struct link_delivery *delivery);

/* Frees what a delivery holds, also one that never ended. The loop must not have it any more. */
void link_delivery_done(struct link_delivery *delivery);

#endif
