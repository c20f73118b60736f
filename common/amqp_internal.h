/* What the amqp*.c files share; nobody else includes it, so that rabbitmq-c stays behind amqp.h.
 *
 *     amqp.c           the object, the loop, the tries
 *     amqp_connect.c   socket, TLS, login
 *     amqp_wire.c      frames in, replies, the end of a connection
 *     amqp_send.c      frames out
 *     amqp_dispatch.c  frames put together to messages, handlers called
 *     amqp_channel.c   the operations on channels
 *     amqp_url.c       the list of URLs
 */
#ifndef COMMON_AMQP_INTERNAL_H
#define COMMON_AMQP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp.h"
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else /* before 0.12 */
#define AMQP_INTERNAL
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

#include "amqp_url.h"

enum { AMQP_REASON_SIZE = 256 };

struct assembly;

struct channel {
    bool open; /* channel.open was sent and no close since; frames of a channel that is not open are void */
    bool confirming;
    uint64_t published;        /* sequence number of the last message since confirm.select */
    unsigned consumer;         /* number of the consumer, 0 = none; part of its tag */
    unsigned consumer_count;   /* numbers given so far */
    bool consumer_started;     /* its basic.consume-ok has come */
    bool cancelling;           /* basic.cancel was sent, or waits for the consume-ok; no cancel-ok yet */
    struct assembly *assembly; /* the message whose frames are coming in, NULL between messages */
};

/* Whole frames on their way out. */
struct wire_out {
    char *bytes; /* NULL before the first */
    size_t len;
    size_t most; /* goes out when it is reached; 0: not known yet for this connection */
    bool corked;
};

struct amqp {
    struct amqp_urls urls;
    char *ca_file, *cert_file, *key_file, *connection_name;
    unsigned heartbeat_s;
    unsigned channels_max, channels_least; /* as configured */
    const struct amqp_handlers *handlers;
    void *arg;

    /* Any thread. */
    atomic_bool stopping;
    int wake_fd;
    pthread_mutex_t mutex; /* guards login_fd */
    int login_fd; /* a duplicate of the socket during a login, for amqp_stop() to shut down; else -1 */

    /* The owner's thread alone, from here on. The tries: */
    size_t order[AMQP_URLS_MAX], position, tried;
    unsigned rounds;    /* full rounds failed since the last steady connection */
    bool login_refused; /* in this round */
    uint64_t epoch;

    /* The connection. NULL = none; `lost` = it is to be taken down by the loop, for `reason`. */
    amqp_connection_state_t connection;
    bool logged_in, lost, blocked;
    bool woken;      /* a turn of the loop is due at once */
    int64_t tick_ms; /* until the next turn, at most AMQP_TICK_MS */
    bool encrypted;  /* TLS */
    struct wire_out out;
    char reason[AMQP_REASON_SIZE];
    unsigned channel_count;   /* the owner's channels are 1..channel_count, the scratch channel comes next */
    struct channel *channels; /* channels_max + 2: [0] is not used, [channel_count + 1] is the scratch one */

    /* Frames that were read while a reply or room in the socket was waited for: their payloads are in the
     * library's pools, so no pool is released before the last of them was handled. */
    struct {
        amqp_frame_t *items;
        size_t first, count, capacity;
    } kept;
};

/* ---- amqp_connect.c ---- */

/* Connects and logs in; false with the reason set (wire_fail), also when it was stopped. Calls tick()
 * meanwhile, but for TLS and the login. */
bool wire_open(struct amqp *amqp, const struct amqp_url *url);
/* Its second half: logs in on the connection's socket. */
bool wire_login(struct amqp *amqp, const struct amqp_url *url);

/* ---- amqp_wire.c ---- */

/* Takes the connection down: with a connection.close and up to 2 s for its answer when `politely`, else at
 * once. */
void wire_close(struct amqp *amqp, bool politely);

/* Marks the connection lost. The first reason stays. */
void wire_fail(struct amqp *amqp, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wire_fail_status(struct amqp *amqp, int library_status);
bool wire_is_up(const struct amqp *amqp);

/* Waits for `events` (POLLIN, POLLOUT) on `fd` (-1 = none), a wake or a stop, for AMQP_TICK_MS at most, and
 * returns what came on the fd. A wake is noted in `woken`. */
short wire_wait(struct amqp *amqp, int fd, short events, int64_t timeout_ms);

/* A frame, if one is here: the kept ones, then the socket's. This is also what sends the heartbeats. */
bool wire_next(struct amqp *amqp, amqp_frame_t *ret_frame);
/* Some frame may be here already, where poll() does not see it. */
bool wire_has_frames(struct amqp *amqp);
/* Recycles the channel's memory in the library; nothing of its frames may be used after. */
void wire_release(struct amqp *amqp, unsigned channel);
/* Reads what is here, to be handled later. */
void wire_keep_coming(struct amqp *amqp);
/* Forgets the kept frames of a channel. */
void wire_forget(struct amqp *amqp, unsigned channel);

/* Entries of a table that is sent: the texts are borrowed. */
amqp_table_entry_t text_entry(const char *name, const char *value);
amqp_table_entry_t true_entry(const char *name);
amqp_table_entry_t table_entry(const char *name, amqp_table_t table);

/* Waits for the method `expected` or a channel.close on the channel (ret_reply->id tells which; its content
 * lasts until the next wire_release) and keeps every other frame. False when the connection is lost or
 * stopping. */
bool wire_await(struct amqp *amqp, unsigned channel, amqp_method_number_t expected, amqp_method_t *ret_reply);

/* ---- amqp_send.c ---- */

/* No body frame of ours is larger: bodies are cut to fit. */
enum { WIRE_FRAME_MAX = 8192 };

/* Sends with the others of this turn, by the next wire_flush() at the latest. What waits for an answer and
 * what ends the connection flush by themselves. */
bool wire_send(struct amqp *amqp, const amqp_frame_t *frame);
bool wire_send_method(struct amqp *amqp, unsigned channel, amqp_method_number_t id, void *decoded);
bool wire_send_close_ok(struct amqp *amqp, unsigned channel);
/* Gives what was gathered to the socket, all of it; waits SEND_MS for room, then the connection is lost. */
bool wire_flush(struct amqp *amqp);
/* The connection is no more. */
void wire_forget_out(struct amqp *amqp);

/* ---- amqp_dispatch.c ---- */

void dispatch_frame(struct amqp *amqp, const amqp_frame_t *frame);
/* The channel is closed from now on; what was under way on it is void. */
void channel_reset(struct channel *channel);
/* Copies the bytes as text, cut to the size; "" when a NUL is inside. */
void bytes_to_text(char *to, size_t size, amqp_bytes_t bytes);

/* ---- amqp_channel.c ---- */

/* The broker's basic.consume-ok and basic.cancel; the latter returns whether the consumer was still wanted.
 */
void consumer_has_started(struct amqp *amqp, unsigned channel, amqp_bytes_t tag);
bool consumer_has_ended(struct amqp *amqp, unsigned channel, amqp_bytes_t tag);

/* ---- amqp.c ---- */

bool is_stopping(const struct amqp *amqp);
void call_tick(struct amqp *amqp);

#endif
