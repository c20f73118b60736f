/* The deliveries that a worker has: active ones, and those that wait because one playlist would satisfy both
 * (two messages of one request never run at once) or because there are too many. Belongs to the worker's
 * thread; a delivery reports its end from any thread. */
#ifndef PLAYLISTS_IN_PROGRESS_H
#define PLAYLISTS_IN_PROGRESS_H

#include <stdbool.h>

#include "amqp.h"
#include "delivery.h"

struct in_progress;

/* At most `active_max` run at once; `amqp` is woken when one has ended (borrowed, and kept until
 * in_progress_free). */
struct in_progress *in_progress_new(const struct delivery_means *means, unsigned active_max);
void in_progress_free(struct in_progress *set);
void in_progress_wakes(struct in_progress *set, struct amqp *amqp);
/* Another maximum. Less than what runs: the former one counts until that many have ended. */
void in_progress_limit(struct in_progress *set, unsigned active_max);

/* Starts the delivery, or lets it wait its turn. It is the set's from here. */
void in_progress_add(struct in_progress *set, struct delivery *delivery);

/* What the worker does with deliveries; `arg` is the worker. */
struct in_progress_handlers {
    void (*ended)(void *arg, struct delivery *delivery); /* ack it */
    void (*all_ended)(void *arg);                        /* send the acks, if there were any ended */
    void (*over)(void *arg, struct delivery *delivery);  /* after that; it is freed then */
    /* Held for too long: give the message back. The delivery goes on, and becomes stale. */
    void (*overdue)(void *arg, struct delivery *delivery);
    /* Void to the broker, which delivers it anew. */
    bool (*stale)(void *arg, const struct delivery *delivery);
};
/* Handles what has ended and what is overdue; drops those that wait and are stale; starts what need not wait
 * any more. */
void in_progress_settle(struct in_progress *set, const struct in_progress_handlers *handlers, void *arg);

/* Any thread: how many run; waits until none does, at most `timeout_ms`. */
unsigned in_progress_count(struct in_progress *set);
void in_progress_wait(struct in_progress *set, int timeout_ms);

/* See delivery_abandon: all that still run. No thread may run any of them. */
void in_progress_abandon(struct in_progress *set);

#endif
