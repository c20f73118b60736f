/* The HTTP/1.1 server of both services, over libmicrohttpd (which only the server's http_*.c files include).
 *
 * A service gives a table of routes; everything else lives here, once: limits, 404, 405 with Allow, HEAD,
 * OPTIONS and CORS, tokens (401, 403), the content type of bodies, request ids, problem bodies, the access
 * log, draining.
 *
 * Every answer of ours is JSON, carries X-Request-Id and keeps the connection open, but where the request's
 * end cannot be trusted or is not worth waiting for (400 for its head, 413). Heads over 24 KB are refused
 * with 400; over 32 KB, and where it cannot read the head at all, libmicrohttpd answers by itself, with an
 * HTML page: 400, 413, 414, 431, 505, and 500 for a chunk extension that is longer than its buffer.
 *
 * A handler runs in a thread of the pool and never waits. It answers exactly once, either before it returns,
 * or later, from any thread, after http_call_park(). Between park and the answer the connection is suspended:
 * the call stays valid however long that takes, and the client's hanging up is not noticed (one that only
 * closes its sending side may get no answer: libmicrohttpd 0.9.75 takes that for hanging up). After its
 * answer a call is gone: do not touch it, whichever thread answered.
 */
#ifndef COMMON_HTTP_SERVER_H
#define COMMON_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "json.h"
#include "proxies.h"
#include "status.h"
#include "tokens.h"

struct http_server;
struct http_call;

typedef void http_handler(struct http_call *call, void *service);

/* What is special about a route. Where there are tokens (http_server_config.tokens), GET asks for one that
 * may read, all other methods for one that may write. */
enum {
    HTTP_TAKES_JSON = 1, /* a body must be application/json (or merge-patch+json for PATCH), else 415 */
    HTTP_OPEN = 2,       /* never asks for a token */
    HTTP_METRICS = 4,    /* asks for one unless http_server_config.metrics_open */
};

/* One row of a service's table. HEAD is served by GET's row, OPTIONS by the server. */
struct http_route {
    const char *method;    /* "GET", "POST", "PUT", "PATCH", "DELETE" */
    const char *path;      /* "/api/soirees" or "/api/soirees/{id}": at most one {…}, as the last segment */
    http_handler *handler; /* its second argument is http_server_config.service */
    unsigned flags;        /* of the above; 0: none */
};

struct http_server_config {
    const char *bind;           /* address, or "" for all interfaces, IPv6 and IPv4 */
    unsigned port;              /* 1..65535 */
    unsigned threads;           /* 1..64 */
    size_t max_body_bytes;      /* above: 413 */
    unsigned max_connections;   /* for further ones the longest idle are closed; while none is, they wait */
    unsigned idle_timeout_s;    /* a connection with no traffic is closed after it */
    unsigned request_timeout_s; /* one whose request is not complete then, too; 0: 30 */
    const char *cors_origin;    /* "*", one origin, or "" for no CORS headers */
    struct tokens *tokens;      /* who may call; NULL: everybody */
    bool metrics_open;
    const struct proxies *proxies; /* whose X-Forwarded-For is believed, for the log; NULL: nobody's */
    const struct http_route *routes;
    size_t route_count;
    void *service;
};

/* Binds, listens and starts the threads. What the config points at stays the caller's and must
 * outlive the server. The threads inherit the caller's signal mask. NETWORK when the address cannot be bound
 * (text says which and why), INTERNAL when there are no threads or descriptors to be had. */
enum status http_server_open(struct http_server **ret_server, const struct http_server_config *config,
                             struct err *err);

/* Says goodbye: goes on serving old and new connections, each of whose next answers says Connection: close.
 * Any thread; NULL is fine. */
void http_server_leave(struct http_server *server);

/* Draining: as above, but refuses new connections (the listening socket is shut down). Any thread. */
void http_server_drain(struct http_server *server);

/* Waits until no call is unanswered, at most `timeout_ms` (0: looks once). Returns whether that was reached.
 * A call counts from its head's arrival until its answer is sent, so one whose body is still coming counts
 * too. On a draining server this is the end of its work: when it has returned, with either result, no handler
 * is running or will be called (what still comes is answered 503), so what handlers use may be taken down
 * once the parked calls, if any, are answered. */
bool http_server_idle(struct http_server *server, int timeout_ms);

/* Appends the server's metrics (see metrics.h): its calls by route template, method and status, their
 * durations, and what is open. What belongs to no route counts as "other"; what libmicrohttpd answers by
 * itself (see above) does not count. Any thread. */
void http_server_put_metrics(struct http_server *server, struct buf *out);

/* Stops the threads and frees the server; NULL is fine. Every parked call must have been answered, or be
 * answered within a second: libmicrohttpd aborts the process on a suspended connection. Answers not yet sent
 * are lost. */
void http_server_close(struct http_server *server);

/* ---- what a handler reads; all strings are borrowed until the answer ---- */

/* The value of the path's {…}, percent-decoded; "" where the route has none. A path with %00, %2F or bytes
 * that are not UTF-8 in it never reaches a handler (404). One '/' at the end of a path does not count. */
const char *http_call_param(const struct http_call *call);

/* The decoded value of a query parameter, NULL when absent. A parameter given twice, one that does not decode
 * to UTF-8 without NUL, or more than 16 were answered with 422 before the handler. */
const char *http_call_query(const struct http_call *call, const char *name);

/* A request header, name compared without case; NULL when absent. Several lines of one name are one list, in
 * the order they came, with ", " between them (RFC 9110 section 5.3). In the handler alone. */
const char *http_call_header(struct http_call *call, const char *name);

/* The body: *ret_len bytes with a NUL behind; "" and 0 when there is none. */
const char *http_call_body(const struct http_call *call, size_t *ret_len);

/* "GET", also for HEAD; the path as it came, without the query; what is behind the '?', still encoded, or "".
 */
const char *http_call_method(const struct http_call *call);
const char *http_call_path(const struct http_call *call);
const char *http_call_query_text(const struct http_call *call);

/* The caller's X-Request-Id when well formed (1..128 of [A-Za-z0-9._:-]), else a UUID made here. */
const char *http_call_request_id(const struct http_call *call);

/* The bytes of all answers that were made and that their clients have not taken yet. Any thread. */
size_t http_call_backlog(const struct http_call *call);
/* Whose token it came with, "" where none is needed. A handler is called with what the route allows alone. */
const char *http_call_token_name(const struct http_call *call);

/* ---- the answer ---- */

/* Suspends the connection. Call it in the handler, before the work goes to another thread; once. */
void http_call_park(struct http_call *call);

/* Adds a response header; at most 8, before the answer. `name` is borrowed until the answer is sent: a
 * literal. The value may hold no CR or LF (such a header is left out, with a log line), an empty one is left
 * out. Cache-Control and Retry-After replace the server's own. */
void http_call_set(struct http_call *call, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Answers with application/json; the body's content moves into the answer, `body` is left empty. A body that
 * passed its maximum (buf_ok) is answered with 500 instead. */
void http_answer_json(struct http_call *call, int http_status, struct buf *body);

/* The same with another content type. */
void http_answer_bytes(struct http_call *call, int http_status, const char *content_type, struct buf *body);

/* Answers without a body: 204, 304. */
void http_answer_empty(struct http_call *call, int http_status);

/* Answers with application/problem+json (RFC 9457): type "about:blank", title and HTTP status from `status`,
 * `detail`, instance = the path, `error` = detail again (what clients of the Node.js version read), and
 * `errors` when `problems` is not NULL and not empty. 503 carries Retry-After: 5. `detail`
 * NULL: the title. */
void http_answer_problem(struct http_call *call, enum status status, const char *detail,
                         const struct problems *problems);

#endif
