/* The relay: publishes what is in the outbox, with publisher confirms, and tells the store what the broker
 * has.
 *
 * One thread owns the AMQP connection and everything here. A row leaves the unsent ones only by a confirm
 * without a return; a nack or a return sends it again after a backoff of its own, and the rows behind it go
 * on meanwhile. A commit wakes the relay at once. What was sent and not confirmed when the connection ends is
 * sent again, with the same message_id. */
#ifndef SOIREES_RELAY_H
#define SOIREES_RELAY_H

#include <stdbool.h>

#include "amqp.h"
#include "status.h"
#include "store.h"

struct relay;

struct relay_config {
    struct amqp_config amqp;
    const char *queue, *queue_type; /* queue_type "" = the broker's default */
    const char *app_id;
    const _Atomic int64_t *again_after_ms; /* as the store's; 0: requests that stay open are not sent again */
};

/* The relay, at rest; the store and the config's strings (but amqp.urls) must outlive it. INVALID: bad broker
 * URLs. */
enum status relay_new(struct relay **ret_relay, struct store *store, const struct relay_config *config,
                      struct err *err);
/* Starts the thread: connects, publishes. */
enum status relay_start(struct relay *relay, struct err *err);

/* Ends the thread: nothing is published any more. NULL is fine. */
void relay_stop(struct relay *relay);
/* After relay_stop and store_close (whose last jobs may still tell the relay). NULL is fine. */
void relay_free(struct relay *relay);

/* For /health: "connected", "blocked", "disconnected", and since when (wall clock). Any thread. */
const char *relay_state(struct relay *relay, int64_t *ret_since_ms);
extern const char *const relay_states[]; /* all of them, then NULL */

#endif
