/* One delivery is one state machine, resumed from what is stored:
 *
 *      begin ──> generate ──> save ──> link ──> finished: ack
 *        │                              ↑
 *        ├── saved, link pending ───────┘
 *        └── saved, nothing pending ──────────> finished: ack
 *
 * begin and save are jobs of the database's writer, generate and link run on the http_client loop; each step
 * hands the delivery to the next, so one thread has it at any time, and it ends in the loop's. A step that
 * the database refuses for a while (full, locked) is held and tried again, for as long as it takes; after 10
 * minutes the delivery is overdue: its owner gives the message back to the broker, and what is delivered
 * again waits for this one.
 *
 * What is written, and when, with the process dying anywhere between:
 *   - begin, of a request that neither the broker nor the store knows: nothing (store_begin_first). The API
 * may be called; after a crash the broker delivers again, and says so, which counts the start after all.
 *   - begin, of any other: its start is counted and committed before the API is called, so that a request
 * that kills the process is found out after its fifth start.
 *   - save: playlist, request's end and pending link, durably, before the PATCH. From here on no delivery
 * calls the API again.
 *   - link: its end rides with the next write, after the ack as a rule. A crash before that means one more
 *     PATCH, which changes nothing.
 *   - ack: last. A crash before it means a delivery that finds everything done. */
#ifndef PLAYLISTS_DELIVERY_H
#define PLAYLISTS_DELIVERY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "generator.h"
#include "http_client.h"
#include "linker.h"
#include "message.h"
#include "store.h"

/* What the steps use. */
struct delivery_means {
    struct http_client *client;
    struct store *store;
    struct linker *linker;
    struct generator generator;
};

struct delivery {
    /* Set by the owner before delivery_start. */
    struct message message;
    char message_id[MESSAGE_ID_SIZE]; /* "" = none */
    char request_id[MESSAGE_ID_SIZE]; /* for Playlist-Request; "" = no such header */
    char traceparent[TRACEPARENT_SIZE];
    bool redelivered;                            /* the broker has delivered it before */
    void (*finished)(struct delivery *delivery); /* any thread; the delivery is the owner's again */
    void *arg;

    atomic_bool overdue; /* held for longer than a broker should wait */

    const struct delivery_means *means; /* private from here */
    struct store_step step;
    struct http_task task;
    struct http_timer timer;
    struct generation generation;
    struct link_delivery link;
    struct playlist *playlist; /* from its generation on: a thousand that wait for theirs stay small */
    int64_t held_since_ms;     /* monotonic; 0 = not held */

    /* The owner's, untouched by the steps. */
    unsigned channel;
    uint64_t tag, incarnation;
    int64_t received_ms;
    bool acked;
    struct delivery *next, *next_finished;
};

/* Starts the machine; any thread. `means` must outlive it. */
void delivery_start(struct delivery *delivery, const struct delivery_means *means);

/* For a clean end of the process before the delivery's: takes back the start that begin counted, so that only
 * starts that killed the process count. After http_client_stop; runs before store_close returns. */
void delivery_abandon(struct delivery *delivery);

/* Frees it, finished or not; no thread may have it any more. */
void delivery_free(struct delivery *delivery);

#endif
