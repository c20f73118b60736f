/* The worker: takes messages off the queue, one at a time on each of its channels, runs a delivery for each,
 * and acks when it is finished.
 *
 * One thread owns the AMQP connection, its channels, and the lists here. An ack goes only to the channel, in
 * the very incarnation, that delivered; results of an earlier connection are kept (they are stored) and their
 * acks dropped. Two messages that the same playlist would satisfy never run at once: the second waits for the
 * first. */
#ifndef PLAYLISTS_WORKER_H
#define PLAYLISTS_WORKER_H

#include "amqp.h"
#include "delivery.h"
#include "status.h"

struct worker;

/* One channel is the dead letters'. */
enum { WORKERS_MAX = 1000, WORKER_CHANNELS = WORKERS_MAX + 1 };

struct worker_config {
    struct amqp_config amqp;        /* for WORKER_CHANNELS */
    const char *queue, *queue_type; /* queue_type "" = the broker's default */
    unsigned workers;               /* channels, each with prefetch 1; 1..WORKERS_MAX */
};

/* The worker, at rest; `means` and the config's strings (but amqp.urls) must outlive it. INVALID: bad broker
 * URLs. */
enum status worker_new(struct worker **ret_worker, const struct worker_config *config,
                       const struct delivery_means *means, struct err *err);
/* Starts the thread: connects, consumes. */
enum status worker_start(struct worker *worker, struct err *err);

/* Any thread: that many from now on, 1..WORKERS_MAX. More begin to consume at once, or with the next
 * connection; the superfluous ones stop consuming, and end with what they have. */
void worker_resize(struct worker *worker, unsigned workers);

/* Says that nothing more is to be taken off the queue; returns at once. NULL is fine. */
void worker_stop_consuming(struct worker *worker);

/* As above, and gives what is in progress `grace_ms` to finish, closes the connection, ends the thread.
 * What is left stays unacked: the broker delivers it again, to somebody. NULL is fine. */
void worker_stop(struct worker *worker, int grace_ms);

/* After http_client_stop: takes back the starts of what was left. */
void worker_abandon(struct worker *worker);
/* After store_close. NULL is fine. */
void worker_free(struct worker *worker);

/* For /health: "consuming", "blocked", "disconnected", "stopping", and since when (wall clock). Any thread.
 */
const char *worker_state(struct worker *worker, int64_t *ret_since_ms);
extern const char *const worker_states[]; /* all of them, then NULL */
/* Deliveries in progress, and the configured number of workers. Any thread. */
unsigned worker_busy(struct worker *worker);
unsigned worker_count(struct worker *worker);

#endif
