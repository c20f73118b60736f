/* What the http_*.c files of the server share; nobody else includes it.
 *
 *   http_listen.c   the listening socket, its thread, deadlines and the end of connections
 *   http_server.c   opening, draining, closing; libmicrohttpd's callbacks
 *   http_request.c  one request: its target, headers, body, route, and what is refused before the handler
 *   http_call.c     what a handler reads of it
 *   http_access.c   who is calling, and whether they may
 *   http_reply.c    one answer
 *   http_metrics.c  what is counted of them
 *
 * Connections are accepted here and handed to libmicrohttpd (MHD_add_connection), which has no listening
 * socket: its own way to stop listening, MHD_quiesce_daemon, races with its pool threads over the epoll set
 * and then aborts the process (0.9.75, daemon.c:5531; seen about once in a thousand drains under load). It
 * also divides its connection limit among the threads, so that one can be full while the others idle.
 */
#ifndef COMMON_HTTP_INTERNAL_H
#define COMMON_HTTP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "http_server.h"
#include "metrics.h"

struct MHD_Connection;
struct MHD_Daemon;

enum {
    HTTP_SET_MAX = 12,    /* response headers of one answer: a handler's 8 and ours */
    HTTP_QUERY_MAX = 16,  /* query parameters of one request */
    HTTP_LINGER_MAX = 64, /* connections that are read empty after an early answer */
    HTTP_REQUEST_ID_MAX = 128,
};

/* The request headers that the server itself looks at, found in one pass. */
enum http_known {
    HTTP_AUTHORIZATION,
    HTTP_CONTENT_ENCODING,
    HTTP_CONTENT_LENGTH,
    HTTP_CONTENT_TYPE,
    HTTP_EXPECT,
    HTTP_HOST,
    HTTP_ORIGIN,
    HTTP_PREFLIGHT_METHOD,
    HTTP_REQUEST_ID,
    HTTP_TRANSFER_ENCODING,
    HTTP_KNOWN_COUNT
};

enum http_method {
    HTTP_GET,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_ROUTED_COUNT, /* the above can be in a route */
    HTTP_OPTIONS,
    HTTP_OTHER
};

enum http_awaited { HTTP_AWAITS_NOTHING, HTTP_AWAITS_REQUEST, HTTP_AWAITS_REST };

/* One TCP connection, from libmicrohttpd's notice of its start to that of its end. */
struct http_connection {
    struct http_connection *next, *previous; /* under the listener's mutex */
    int fd;                                  /* libmicrohttpd's */
    _Atomic int64_t deadline_ms;             /* monotonic; cut off after it */
    atomic_int awaits;                       /* enum http_awaited */
    _Atomic int64_t since_ms;                /* monotonic; has awaited that since */
    bool seems_left;                         /* listener's thread only */
    bool linger;                             /* answered before the request was read; pool thread only */
};

struct http_listener {
    int listen_fd, wake_fd;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    atomic_uint open; /* connections handed to libmicrohttpd and not yet ended */
    pthread_mutex_t mutex;
    struct http_connection *connections; /* under mutex */
    struct http_linger {
        int fd;
        int64_t deadline_ms;
    } lingering[HTTP_LINGER_MAX]; /* under mutex */
    size_t lingering_count;
};

/* A route, measured once. */
struct http_match {
    enum http_method method;
    size_t prefix; /* bytes of the path up to its {…}, or all of it */
    bool has_param;
    size_t path; /* number of the first route with the same path */
};

struct http_server {
    struct http_server_config config;
    struct http_match *matches; /* config.route_count of them */
    struct http_meter *meters;  /* http_metrics.c's */
    struct MHD_Daemon *daemon;
    struct http_listener listener;
    atomic_bool leaving; /* answers say Connection: close */
    atomic_bool draining;
    atomic_bool stopped;    /* no handler is called any more */
    atomic_uint unanswered; /* calls whose head has arrived and whose answer is not sent */
    atomic_size_t backlog;  /* bytes of answers, until their calls are freed */
    atomic_uint running;    /* pool threads inside a handler, or about to be */
    atomic_uint waiters;    /* threads that want to know when the above become 0 */
    pthread_mutex_t mutex;
    pthread_cond_t quiet;
    unsigned parked; /* under mutex; until MHD_resume_connection has returned, which we must outlive */
};

struct http_query {
    const char *name, *value;
};

struct http_set {
    const char *name;
    char *value;
    bool owned; /* value is not in set_text */
};

/* The value of a header that is not in one piece, or not at its end, where libmicrohttpd has it. */
struct http_joined {
    struct http_joined *next;
    char text[];
};

/* One request. Made when its request line is there, freed when its answer is sent or its connection broken;
 * all of it in the connection's pool thread, but for the time between park and answer, when it is the
 * handler's. */
struct http_call {
    struct http_server *server;
    struct MHD_Connection *connection;
    struct http_connection *peer;
    int64_t began_us; /* monotonic */

    /* How far it has come. */
    bool begun;    /* the head was looked at */
    bool run;      /* the handler was called, or the answer found without it */
    bool parked;   /* written before the handler gives the call away */
    bool answered; /* by whom the call belongs to; read after MHD_resume_connection's mutex */

    /* The request. */
    const char *method_text; /* libmicrohttpd's */
    enum http_method method; /* HEAD is HTTP_GET */
    const struct http_route *route;
    const struct http_match *matched; /* the path's first route, whatever the method; NULL: none */
    char *target, *target_heap;       /* target_small, or the heap's when that is too small */
    unsigned allowed;                 /* bit of each enum http_method that the path serves */
    char *path, *query_text;          /* in target: as they came, NUL behind each */
    size_t target_len, head_size;     /* as they came */
    char *decoded;                    /* room for what is decoded next */
    const char *param;                /* decoded, or "" */
    struct http_query query[HTTP_QUERY_MAX];
    size_t query_count;
    const char *known[HTTP_KNOWN_COUNT]; /* libmicrohttpd's, NULL when absent */
    struct http_joined *joined;          /* what handlers asked for, to be freed with the call */
    unsigned repeated;                   /* bit of each enum http_known that came more than once */
    const char *head_end;                /* while the head is checked: the end of its last part; else NULL */
    bool bad_head, close;                /* close: the connection ends with this answer */
    struct err refusal;                  /* STATUS_OK: for the handler */
    char token_name[TOKEN_NAME_SIZE];
    char *body;                                /* body_small or heap */
    size_t body_len, body_capacity, body_seen; /* seen: also what was not kept */

    /* The answer. */
    int status;
    char *answer; /* heap or NULL */
    size_t answer_len;
    size_t backlog; /* its part of the server's */
    bool is_problem;
    struct http_set set[HTTP_SET_MAX];
    size_t set_count, set_used;
    char content_type[64];

    /* Room for the usual, so that a call is one allocation; not cleared. */
    char request_id[HTTP_REQUEST_ID_MAX + 1];
    char target_small[512], decoded_small[512];
    char set_text[512];
    char body_small[1024];
};

/* ---- http_listen.c ---- */

/* Binds and listens; no thread yet. NETWORK with the address and the reason, INTERNAL without descriptors. */
enum status http_listener_open(struct http_server *server, struct err *err);

/* Starts the thread that accepts, cuts off and lingers. INTERNAL when there is none to be had. */
enum status http_listener_start(struct http_server *server, struct err *err);

/* New connections are refused from here on. */
void http_listener_refuse(struct http_server *server);

/* Ends the thread. Fine on a half-opened one; before MHD_stop_daemon, since the thread adds connections. */
void http_listener_stop(struct http_server *server);

/* Closes what is left; after MHD_stop_daemon, whose end notices come here. */
void http_listener_close(struct http_server *server);

/* A connection's start and end, in its pool thread. The end comes before libmicrohttpd closes the socket. */
struct http_connection *http_connection_new(struct http_server *server, int fd);
void http_connection_free(struct http_server *server, struct http_connection *peer);

/* What a connection is waiting for, as the time it gets. */
void http_connection_expect_request(const struct http_server *server, struct http_connection *peer,
                                    int64_t now_ms);
void http_connection_expect_rest(const struct http_server *server, struct http_connection *peer,
                                 int64_t now_ms);
void http_connection_expect_answer(struct http_connection *peer);
void http_connection_expect_sent(struct http_connection *peer, int64_t now_ms);

/* ---- http_server.c ---- */

/* Count a call as parked, and no longer: the last that the answering thread does, after the resume. */
void http_server_park(struct http_server *server);
void http_server_unpark(struct http_server *server);

/* ---- http_request.c ---- */

/* The method's value, HTTP_OTHER for an unknown one; HEAD is HTTP_GET. */
enum http_method http_method_parse(const char *text);

/* "GET" and so on; NULL for one that no route can have. */
const char *http_method_name(enum http_method method);

/* "GET, HEAD, …, OPTIONS" for the bits of `allowed`. */
enum { HTTP_ALLOW_SIZE = 64 };
void http_allow_format(unsigned allowed, char out[HTTP_ALLOW_SIZE]);

/* A call for the request line's target, as it came. */
struct http_call *http_call_new(struct http_server *server, struct MHD_Connection *connection,
                                struct http_connection *peer, const char *target);
void http_call_free(struct http_call *call);

/* The head is complete: finds the route, or why not. True when the answer must not wait for the body. */
bool http_call_begin(struct http_call *call, const char *method, const char *version);

/* A header's value without white space at its end: itself, or a copy that is freed with the call. */
const char *http_call_value(struct http_call *call, const char *value, size_t len);

/* A piece of the body. False: far too much came, break the connection. */
bool http_call_take(struct http_call *call, const char *bytes, size_t len);

/* The request is complete, or refused early: answers it, or has the handler do so (`stopped`: no more). */
void http_call_run(struct http_call *call, bool stopped);

/* ---- http_access.c ---- */

/* Refuses the call (401, 403) where its route asks for a token that it does not have. */
void http_access_check(struct http_call *call);

/* The client's address for the log, "" when unknown. */
void http_access_client(const struct http_call *call, char out[ADDRESS_SIZE]);
/* ---- http_metrics.c ---- */

void http_metrics_init(struct http_server *server);
void http_metrics_done(struct http_server *server);

/* Counts an answered call; any pool thread. */
void http_metrics_count(const struct http_call *call);

/* ---- http_reply.c ---- */

/* Answers OPTIONS, a CORS preflight included. */
void http_reply_options(struct http_call *call);

/* Gives the call's answer to libmicrohttpd, in the pool thread. False: break the connection. */
bool http_reply_queue(struct http_call *call);

#endif
