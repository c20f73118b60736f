/* The channels that a worker consumes on: each has one consumer with prefetch 1, so there is one for every
 * message that may be worked on at once. How many there are may change while they are at work: more are
 * opened on the living connection; of too many the last ones stop consuming (basic.cancel), finish what they
 * have, and are closed then. A channel that the broker closed is opened again, after a backoff.
 *
 * Belongs to the thread that owns the AMQP connection. rabbitmq-c keeps a frame's memory (8 KiB) for every
 * channel number that was ever used, until the connection ends. */
#ifndef PLAYLISTS_CHANNELS_H
#define PLAYLISTS_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "amqp.h"

struct channels;

/* `queue_type` as in amqp_queue_ensure; both strings are borrowed. The channels' numbers are
 * first..first + max - 1. */
struct channels *channels_new(const char *queue, const char *queue_type, unsigned first, unsigned max);
void channels_free(struct channels *channels); /* NULL is fine */

/* How many there are to be, at most `max`; what it takes is done by channels_up and channels_tick. A broker
 * that opens fewer channels gets fewer consumers, and the log says so. */
void channels_resize(struct channels *channels, unsigned count);

/* On a new connection: opens all. False: it is gone. */
bool channels_up(struct channels *channels, struct amqp *amqp);
/* The connection is gone: so is everything that was known of it. */
void channels_down(struct channels *channels);
/* Opens what is missing, ends what is too much. */
void channels_tick(struct channels *channels, struct amqp *amqp);
/* Before a stop: ends all consumers. No tick may follow. */
void channels_cancel(struct channels *channels, struct amqp *amqp);

bool channels_own(const struct channels *channels, unsigned number);

/* A delivery came on the channel; returns its incarnation, which changes with every opening: what came with
 * another one is void to the broker, and delivered again. */
uint64_t channels_took(struct channels *channels, unsigned number);
bool channels_valid(const struct channels *channels, unsigned number, uint64_t incarnation);
/* It was acked, or dropped. */
void channels_settled(struct channels *channels, unsigned number);

/* The channel is closed, or its consumer was cancelled by the broker; `doubtful`: the queue may be gone, and
 * is declared before the next opening. */
void channels_lost(struct channels *channels, unsigned number, bool doubtful);
bool channels_doubt(const struct channels *channels);

#endif
