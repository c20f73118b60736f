/* Messages that leave their place in the queue, copied with a publisher confirm before they are settled: the
 * dead letters, which can never succeed and go to "<queue>.dead", and those that a quorum queue would soon
 * drop for having been delivered too often, which go to the end of their own queue and count from 0 there.
 * Belongs to the thread that owns the AMQP connection. */
#ifndef PLAYLISTS_DEAD_LETTERS_H
#define PLAYLISTS_DEAD_LETTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp.h"

struct dead_letters;

/* A delivery whose copy is safe: a dead one is to be dropped (nack without requeue), another one acked. */
struct dead_letters_settled {
    unsigned channel;
    uint64_t incarnation, tag;
    bool dead;
};

/* `channel` is theirs alone; `queue` is where the messages come from, `queue_type` what the dead letters'
 * queue is where none exists yet, "" = the broker's default (both borrowed). */
struct dead_letters *dead_letters_new(const char *queue, const char *queue_type, unsigned channel,
                                      void (*settled)(void *arg, const struct dead_letters_settled *settled),
                                      void *arg);
void dead_letters_free(struct dead_letters *dead);

/* After connecting: declares the queue, opens the channel; false = the connection is gone. Whatever was under
 * way on an earlier connection is forgotten: the broker delivers it again. */
bool dead_letters_up(struct dead_letters *dead, struct amqp *amqp);
void dead_letters_down(struct dead_letters *dead);

/* A consuming channel was closed: what it delivered is delivered again, so its letters are forgotten (0:
 * all). What the broker has of them already is copied twice then, as an at-least-once copy may be. */
void dead_letters_forget(struct dead_letters *dead, unsigned channel);

/* Takes a copy of the message and publishes it; `incarnation` is handed back to settled(). A body over
 * AMQP_BODY_MAX is cut there, and the copy's header x-body-size says how long it was. */
void dead_letters_add(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                      uint64_t incarnation, const char *reason);

/* The same with its own queue as the place, where the message has been delivered so often that it has to be;
 * false: it has not, and is the caller's to handle. A quorum queue counts every delivery whose connection or
 * channel ended, and drops the message after its delivery limit, 20 unless told otherwise since RabbitMQ 4.0
 * (rabbitmq.com/docs/quorum-queues#poison-message-handling): restarts would lose a healthy message. */
bool dead_letters_renew(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                        uint64_t incarnation);

/* What the connection's handlers pass on for that channel. */
void dead_letters_confirm(struct dead_letters *dead, uint64_t tag, bool multiple, bool ack);
void dead_letters_returned(struct dead_letters *dead, int code);
/* Publishes again what was nacked or returned, a second later. */
void dead_letters_tick(struct dead_letters *dead, struct amqp *amqp);

#endif
