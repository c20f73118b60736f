/* Dead letters: a message that can never succeed is copied, with a publisher confirm, to "<queue>.dead", and
 * only then dropped from the queue. Belongs to the thread that owns the AMQP connection. */
#ifndef PLAYLISTS_DEAD_LETTERS_H
#define PLAYLISTS_DEAD_LETTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp.h"

struct dead_letters;

/* `channel` is theirs alone; `queue` is where the messages come from (borrowed). drop() is told when a
 * message's copy is safe: nack it without requeue. */
struct dead_letters *
dead_letters_new(const char *queue, unsigned channel,
                 void (*drop)(void *arg, unsigned channel, uint64_t incarnation, uint64_t tag), void *arg);
void dead_letters_free(struct dead_letters *dead);

/* After connecting: declares the queue, opens the channel; false = the connection is gone. Whatever was under
 * way on an earlier connection is forgotten: the broker delivers it again. */
bool dead_letters_up(struct dead_letters *dead, struct amqp *amqp);
void dead_letters_down(struct dead_letters *dead);

/* A consuming channel was closed: what it delivered is delivered again, so its letters are forgotten (0:
 * all). What the broker has of them already is copied twice then, as an at-least-once copy may be. */
void dead_letters_forget(struct dead_letters *dead, unsigned channel);

/* Takes a copy of the message and publishes it; `incarnation` is handed back to drop(). A body over
 * AMQP_BODY_MAX is cut there, and the copy's header x-body-size says how long it was. */
void dead_letters_add(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                      uint64_t incarnation, const char *reason);

/* What the connection's handlers pass on for that channel. */
void dead_letters_confirm(struct dead_letters *dead, uint64_t tag, bool multiple, bool ack);
void dead_letters_returned(struct dead_letters *dead, int code);
/* Publishes again what was nacked or returned, a second later. */
void dead_letters_tick(struct dead_letters *dead, struct amqp *amqp);

#endif
