/* One AMQP 0-9-1 connection and its channels over rabbitmq-c (amqp*.c alone include it).
 *
 * One thread owns a connection: it calls amqp_run(), which connects (with backoff, for ever), reads, keeps
 * the heartbeat, and calls the handlers; all other functions may be called from inside those handlers alone,
 * but for amqp_wake() and amqp_stop(), which any thread may call, and for amqp_new() and amqp_free(). No
 * handler may block: while one runs, no heartbeat goes out.
 *
 * Any failure of the connection, whoever notices it, ends in down() and a reconnect; functions then just
 * return false and the caller gives up what it was doing. Every fact that a handler keeps (tags, channels) is
 * void after down().
 *
 * Handlers are called by amqp_run() alone, never from inside another function of this module; frames that
 * come in while such a function waits are kept and handled, in their order, after the handler has returned.
 */
#ifndef COMMON_AMQP_H
#define COMMON_AMQP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "status.h"

struct amqp;

enum { AMQP_URLS_MAX = 16, AMQP_CHANNELS_MAX = 1100, AMQP_BODY_MAX = 1 << 20, AMQP_TICK_MS = 500 };

/* Everything is copied. NULL texts are "". */
struct amqp_config {
    const char *urls;      /* amqp://user:pass@host:port/vhost[,…], amqps:// for TLS: see amqp_url.h */
    const char *ca_file;   /* PEM; "" = the system's (/etc/ssl/certs/ca-certificates.crt) */
    const char *cert_file; /* client certificate and its key, PEM without a pass phrase; "" = none */
    const char *key_file;
    unsigned heartbeat_s;        /* 1..3600; the broker may lower it */
    unsigned channels;           /* the channels used are 1..channels, at most AMQP_CHANNELS_MAX; over 16
                                    they get small frames, to save memory */
    unsigned channels_least;     /* what a broker that opens fewer must open at least; 0 = all of them */
    const char *connection_name; /* shown in the management UI */
};

/* A message as it came: every pointer is borrowed for the handler's call. Absent properties are "", and so
 * are those with a NUL inside. */
struct amqp_message {
    unsigned channel;
    uint64_t delivery_tag;
    bool redelivered;
    const char *message_id, *type, *app_id, *content_type, *correlation_id;
    const char *traceparent; /* headers.traceparent, as it came */
    int64_t delivery_count; /* headers.x-delivery-count: a quorum queue's earlier deliveries; 0 = none told */
    const char *body;       /* NUL behind */
    size_t body_len;        /* what is there, at most AMQP_BODY_MAX */
    uint64_t body_size;     /* as announced: over body_len when it was longer */
};

/* Called in the owner's thread, from amqp_run(). Each may be NULL. */
struct amqp_handlers {
    /* Connected and logged in; open channels here. Return false to drop the connection (it is tried again,
     * after a backoff). */
    bool (*up)(struct amqp *amqp, void *arg);
    /* The connection was lost or could not be had; called once per loss or failed try, but not after
     * amqp_stop(). `reason` is French, for a log line, without a password. `was_up`: up() had returned true;
     * where up() returned false, down() follows with was_up false. */
    void (*down)(struct amqp *amqp, void *arg, const char *reason, bool was_up);
    void (*delivery)(struct amqp *amqp, void *arg, const struct amqp_message *message);
    /* Publisher confirm for `tag` (all up to it when `multiple`); ack false = basic.nack. */
    void (*confirm)(struct amqp *amqp, void *arg, unsigned channel, uint64_t tag, bool multiple, bool ack);
    /* basic.return of a mandatory message; always precedes its confirm, which is an ack all the same. */
    void (*returned)(struct amqp *amqp, void *arg, unsigned channel, const char *message_id, int code,
                     const char *text);
    /* The broker closed the channel (404, 406, …), its consumer and unacked deliveries are gone. It has been
     * answered with close-ok and may be opened again, here and now. */
    void (*channel_closed)(struct amqp *amqp, void *arg, unsigned channel, int code, const char *text);
    /* The broker cancelled the consumer (queue deleted); the channel is still open. */
    void (*cancelled)(struct amqp *amqp, void *arg, unsigned channel);
    /* connection.blocked / unblocked (a memory or disk alarm). RabbitMQ reads nothing more from a connection
     * that has published since the alarm came: publish nothing more, suspend the confirm timers. */
    void (*blocked)(struct amqp *amqp, void *arg, bool blocked, const char *reason);
    /* After every turn of the loop, connected or not: after amqp_wake(), after reading, and at least every
     * AMQP_TICK_MS, but while a login or a connect over TLS waits (up to 15 s, with a peer that accepts and
     * then says nothing) or a name is looked up. The place for commands from other threads and for timers. */
    void (*tick)(struct amqp *amqp, void *arg);
};

/* Parses the URLs and makes the object; connects nothing. INVALID names what is wrong (never a password).
 * `handlers` must outlive the object. */
enum status amqp_new(struct amqp **ret_amqp, const struct amqp_config *config,
                     const struct amqp_handlers *handlers, void *arg, struct err *err);
/* After amqp_run() has returned. NULL is fine. */
void amqp_free(struct amqp *amqp);

/* The URLs check alone, for settings. INVALID: English, with the number of the URL in the list. */
enum status amqp_check_urls(const char *urls, struct err *err);

/* The loop. Returns after amqp_stop(): it closes what is open (politely, bounded to 2 s). Several URLs are
 * taken in random order, the next one at once; after a full round it waits, 0.5 s doubling to 30 s with
 * jitter, and 30 s where a login was refused. A connection that lived 10 s ends the series of failures. */
void amqp_run(struct amqp *amqp);

/* Any thread: one more turn of the loop, soon. */
void amqp_wake(struct amqp *amqp);
/* Any thread, any time, for good: amqp_run() returns soon (at once, but for the goodbye, a name that is being
 * looked up, and a connect over TLS: 5 s). Nothing more is waited for: what was sent before goes out first,
 * so acks and cancels need no more than being called. */
void amqp_stop(struct amqp *amqp);

/* Owner's thread: drops the connection now; down() follows from the loop, then a reconnect. */
void amqp_drop(struct amqp *amqp, const char *reason);

/* Owner's thread, while up: the next turn of the loop, and so tick(), comes after delay_ms at the latest. */
void amqp_tick_in(struct amqp *amqp, int64_t delay_ms);

/* Appends the metrics of the process' connection (see metrics.h): made, lost, failed tries. Any thread. */
void amqp_put_metrics(struct buf *out);

bool amqp_is_up(const struct amqp *amqp); /* true from before up() until the loss is noticed */
bool amqp_is_blocked(const struct amqp *amqp);
const char *amqp_url_shown(const struct amqp *amqp); /* the current URL, password as ***; in down() the URL
                                                        that failed */

/* Counts connections made: a fact from an earlier epoch is void. 0 before the first. */
uint64_t amqp_epoch(const struct amqp *amqp);

/* ---- channel operations (owner's thread, while up). false = the connection is gone or going: give up. ----
 *
 * Most are sent without waiting for an answer, so that a thousand channels cost one round trip and not three
 * thousand; RabbitMQ takes the methods of a channel in their order, and a refusal comes as channel_closed().
 * What is sent leaves together at the end of the loop's turn, once a handler has returned (in between, where
 * it has become much); it waits for room in the socket's buffer, 10 s at most, then the connection is
 * dropped. What has an answer to wait for (marked so) waits 10 s at most, then the connection is dropped. On
 * a channel that is not open (the broker has closed it) ack, nack, cancel and end do nothing and return
 * true, since the delivery or consumer is gone anyway; consume, confirms and publish return false. */

/* How many there are on this connection: what the broker opens, at most amqp_config.channels. */
unsigned amqp_channels(const struct amqp *amqp);

/* Sends now what would leave at the end of the turn: where the broker's answer is worth more than a turn. */
bool amqp_flush(struct amqp *amqp);

/* Opens it; does nothing when it is open. */
bool amqp_channel_begin(struct amqp *amqp, unsigned channel);
/* Closes a channel on purpose: its unacked deliveries go back to the queue, and what was still on its way to
 * a handler is forgotten. Waits for the answer. */
bool amqp_channel_end(struct amqp *amqp, unsigned channel);

/* What a look found out. */
struct amqp_queue {
    bool exists;        /* false = 404 */
    uint32_t messages;  /* ready ones; 0 where the queue exists but belongs to another connection (405) */
    uint32_t consumers; /* likewise */
};
/* Passive declare on a scratch channel of its own: reads counts, changes nothing. Waits for the answer. Also
 * false, with nothing done, while the broker blocks the connection: it would never answer. */
bool amqp_queue_look(struct amqp *amqp, const char *name, struct amqp_queue *ret_queue);
/* Makes sure that the queue exists: a passive look first; where there is none, declares it durable with no
 * arguments, or with x-queue-type when `queue_type` is not "". A queue that exists is used as it is, whatever
 * its arguments. A refusal (no permission) drops the connection with the broker's text as the reason. Waits
 * for the answers; false while blocked, as above. */
bool amqp_queue_ensure(struct amqp *amqp, const char *name, const char *queue_type);

/* Publisher confirms (confirm.select): what is published from here on is numbered from 1. */
bool amqp_channel_confirms(struct amqp *amqp, unsigned channel);
/* Starts consuming: basic.qos(prefetch, per consumer), then basic.consume with manual acks. One consumer a
 * channel: does nothing while there is one. */
bool amqp_consume(struct amqp *amqp, unsigned channel, const char *queue, uint16_t prefetch);
/* Ends the consumer; deliveries that were on their way still come, and may be acked. */
bool amqp_cancel(struct amqp *amqp, unsigned channel);
/* Whether deliveries may still come: the channel has a consumer, or one whose end the broker has not
 * confirmed yet. */
bool amqp_may_deliver(const struct amqp *amqp, unsigned channel);
/* A tag is good on the channel and in the epoch it came with only: the same number on another one is another
 * message. */
bool amqp_ack(struct amqp *amqp, unsigned channel, uint64_t tag);
bool amqp_nack_drop(struct amqp *amqp, unsigned channel, uint64_t tag); /* basic.nack, requeue = false */

/* A text header of a published message; a value over 256 bytes is cut. */
struct amqp_header {
    const char *name, *value;
};
struct amqp_publication {
    const char *queue; /* routing key on the default exchange */
    const char *message_id, *type, *app_id, *content_type, *correlation_id; /* "" or NULL: not sent. At most
                                                                               255 bytes each */
    const struct amqp_header *headers;                                      /* at most 16 */
    size_t header_count;
    const char *body;
    size_t body_len;
};
/* Persistent, mandatory. From any handler, up() and tick() above all. On a confirm channel *ret_tag (may be
 * NULL) is its sequence number, counted from 1 since amqp_channel_confirms; else 0.
 * It cannot hang: it neither waits for input as the library's own publish does, nor sends more
 * than the socket has room for; a peer that stops reading loses the connection after 10 s (and a connection
 * that acknowledges nothing on the TCP level after 20 s, by TCP_USER_TIMEOUT). Texts over their limits are a
 * programmer's error: the connection is dropped. */
bool amqp_publish(struct amqp *amqp, unsigned channel, const struct amqp_publication *publication,
                  uint64_t *ret_tag);

#endif

/* rabbitmq-c before 0.12 calls its header <amqp.h> as well; where this folder is searched first,
 * amqp_internal.h gets to it through here. */
#ifdef AMQP_INTERNAL
#include_next <amqp.h>
#endif
