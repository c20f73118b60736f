/* What relay.c (the connection, what the broker answers) and relay_publish.c (what is published, and when)
 * share. Private to the two; the relay's thread. */
#ifndef SOIREES_RELAY_INTERNAL_H
#define SOIREES_RELAY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "marks.h"
#include "relay.h"
#include "since.h"

enum {
    CHANNEL = 1,
    WINDOW = MARKS_MAX, /* published and not yet settled */
    DELAYED_MAX = 1024,
    AGAIN_LOOK_MIN_MS = 20, /* between two looks for a request to send again */
    AGAIN_LOOK_MAX_MS = 2000,
};

/* A message on its way, at index tag % WINDOW. */
struct flight {
    int64_t seq;
    char message_id[UUID_SIZE], traceparent[TRACEPARENT_SIZE];
    char soiree_id[sizeof((struct outbox_row *)0)->soiree_id];
    bool returned, again;
    unsigned failures;
};

/* A row that was returned or nacked. */
struct delayed {
    int64_t seq, due_ms; /* monotonic */
    unsigned failures;
};

enum state { STATE_DISCONNECTED, STATE_CONNECTED, STATE_BLOCKED };

struct relay {
    struct store *store;
    struct relay_config config;
    struct amqp *amqp;
    pthread_t thread;
    bool running;
    struct since state; /* enum state */

    /* The relay's thread alone. */
    struct flight flights[WINDOW];
    uint64_t first_tag, next_tag; /* in flight: [first_tag, next_tag) */
    int64_t settled_ms;           /* monotonic: when nothing was on its way, or a confirm came */
    int64_t cursor;               /* the last row read; more may be behind it */
    int64_t poll_ms, held_ms;     /* monotonic: when to look for what others left, and to prolong leases */
    struct delayed delayed[DELAYED_MAX];
    size_t delayed_count;
    bool queue_doubtful;    /* a return: the queue may be gone */
    bool failing;           /* the last try to connect failed: log no more of them */
    int64_t again_look_ms;  /* monotonic: when to look for one again */
    int64_t again_pause_ms; /* until the look after that one */
    int64_t wall_offset_ms; /* wall clock less the monotonic one, at the last look */
    int64_t read_after_ms;  /* monotonic: no reading before, after an error */
    struct marks marks;

    atomic_bool outbox_changed;
};

static inline size_t relay_in_flight(const struct relay *relay)
{
    return (size_t)(relay->next_tag - relay->first_tag);
}

/* Rows that were not read yet; rows that came back, when their time has come; a request that nobody answered.
 */
void relay_publish_unsent(struct relay *relay);
void relay_publish_delayed(struct relay *relay, int64_t now_ms);
void relay_publish_again(struct relay *relay, int64_t now_ms);

/* Now and then: keeps the rows that are on their way this instance's, and looks for what others left. */
void relay_hold(struct relay *relay, int64_t now_ms);
void relay_poll(struct relay *relay, int64_t now_ms);

#endif
