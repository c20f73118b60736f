/* An event loop in a thread of its own around curl_multi (http_client.c alone includes curl): HTTP exchanges,
 * timers and posted tasks. Everything that waits for a peer or for time is driven from here, in callbacks
 * that never block, so one thread carries a thousand slow calls.
 *
 * Exchanges, timers and tasks are embedded in their owner's struct and belong to the loop from start to
 * callback. "Loop's thread": inside a callback of this module. */
#ifndef COMMON_HTTP_CLIENT_H
#define COMMON_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "status.h"

struct http_client;
struct curl_slist;

/* Once, before any thread. */
void http_client_global_init(void);

/* Starts the thread. */
enum status http_client_start(struct http_client **ret_client, struct err *err);

/* Ends the thread; what is still under way is dropped without its callback. What is posted from then on never
 * runs. NULL is fine. Not from the loop's thread. */
void http_client_stop(struct http_client *client);
/* After http_client_stop and when nobody can post any more. NULL is fine. */
void http_client_free(struct http_client *client);

/* ---- tasks ---- */
struct http_task {
    void (*run)(struct http_task *task);
    struct http_task *next; /* the loop's */
};
/* Any thread: runs the task in the loop's thread, soon, in order of posting. A task may be posted again once
 * it runs. */
void http_client_post(struct http_client *client, struct http_task *task);

/* ---- timers (loop's thread) ---- */
struct http_timer {
    void (*fire)(struct http_timer *timer);
    int64_t at_ms;
    struct http_timer *previous, *next; /* the loop's */
    bool armed;
};
/* Fires once after `delay_ms`; arming an armed timer moves it. */
void http_client_after(struct http_client *client, struct http_timer *timer, int64_t delay_ms);
void http_client_disarm(struct http_client *client, struct http_timer *timer);

/* ---- exchanges (loop's thread) ---- */
enum { HTTP_HEADERS_MAX = 6 };
struct http_exchange {
    /* The request; strings are borrowed until done(). */
    const char *method; /* "GET", "PUT", "PATCH" */
    const char *url;
    const char *headers[HTTP_HEADERS_MAX]; /* "Name: value", NULL where none */
    const char *body;                      /* NULL: none */
    const char *ca_file;                   /* "" or NULL: the system's; read once an hour */
    long timeout_ms; /* all of it: look-up, connection, reply; less than 1 counts as 1 */
    size_t max_reply_bytes;
    bool direct; /* no proxy from the environment: neighbours, not the internet */
    bool once;   /* goes out once at most: NETWORK where libcurl would repeat it, after a kept connection was
                    closed by the other side */

    /* The reply. */
    enum status status; /* OK: a reply came, whatever its code; TIMEOUT, NETWORK, TOO_LARGE */
    char reason[160];   /* when not OK */
    long http_status;
    struct buf reply;
    char content_type[64];
    char local_address[64]; /* the source address this machine used; "" when none was */
    uint64_t index;         /* X-Consul-Index; 0 when absent */

    void (*done)(
        struct http_exchange *exchange); /* the exchange is the owner's again; http_exchange_done it */

    void *easy; /* the loop's, from here */
    bool sent;
    struct curl_slist *header_list;
    struct http_exchange *previous, *next;
};
/* Starts the exchange: a request for which there is a connection has gone out when this returns. done() comes
 * later, never from in here. */
void http_client_send(struct http_client *client, struct http_exchange *exchange);

/* Gives up an exchange; no callback follows. One that is not under way is left alone. */
void http_client_cancel(struct http_client *client, struct http_exchange *exchange);

/* Frees the reply. */
void http_exchange_done(struct http_exchange *exchange);

/* Appends text percent-encoded (RFC 3986: all but unreserved characters). */
void http_put_encoded(struct buf *out, const char *text);

/* One GET, waited for, in the caller's thread: for --healthcheck. OK with the HTTP status, else NETWORK or
 * TIMEOUT. */
enum status http_get(const char *url, long timeout_ms, long *ret_http_status, struct err *err);

#endif
