#include "http_server.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http_internal.h"
#include "ids.h"
#include "log.h"
#include "mem.h"
#include "pulse.h"

enum { REQUEST_TIMEOUT_S = 30, CONNECTION_MEMORY_BYTES = 32 * 1024, CLOSE_WAIT_MS = 1000 };

/* ---- counting calls ---- */

/* Takes one off a count, in a pool thread. No lock on the way of every request: who waits has said so before
 * looking at the counts, who leaves looks for waiters after taking itself off, and these are sequentially
 * consistent. */
static void leave(struct http_server *server, atomic_uint *count)
{
    if (atomic_fetch_sub(count, 1) != 1 || atomic_load(&server->waiters) == 0)
        return;
    pthread_mutex_lock(&server->mutex);
    pthread_cond_broadcast(&server->quiet);
    pthread_mutex_unlock(&server->mutex);
}

void http_server_park(struct http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->parked++;
    pthread_mutex_unlock(&server->mutex);
}

/* Under the lock, unlike leave(): the thread is not one that closing waits for, and once the count is 0 the
 * server may be freed. */
void http_server_unpark(struct http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    if (--server->parked == 0)
        pthread_cond_broadcast(&server->quiet);
    pthread_mutex_unlock(&server->mutex);
}

/* ---- libmicrohttpd's callbacks ---- */

/* What clients cause is of interest to debugging alone, what the machine lacks to its owner. */
static void on_library_log(void *arg, const char *format, va_list args)
{
    static const char *const serious[] = {"Failed to create", "Failed to signal", "Failed to start",
                                          "Call to epoll",    "Error allocating", "Server reached"};
    char text[512];
    (void)arg;
    (void)vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    bool is_serious = false;
    for (size_t i = 0; i < sizeof serious / sizeof *serious; i++)
        if (strncmp(text, serious[i], strlen(serious[i])) == 0)
            is_serious = true;
    log_event(is_serious ? LOG_REPEATED(LOG_WARN) : LOG_DEBUG, "http.library", NULL, "libmicrohttpd: %s",
              text);
}

static void on_panic(void *arg, const char *file, unsigned line, const char *reason)
{
    (void)arg;
    log_event(LOG_ERROR, "http.panic", NULL, "libmicrohttpd %s:%u: %.*s", file, line,
              reason ? (int)strcspn(reason, "\n") : 0, reason);
    abort();
}

/* Paths and queries are decoded by http_request.c: here "%2F" would become a separator. */
static size_t leave_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
    (void)arg;
    (void)connection;
    return strlen(text);
}

static struct http_connection *peer_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        *context = http_connection_new(server, fd);
    } else {
        http_connection_free(server, *context);
        *context = NULL;
    }
}

/* The request line is there, and the last time the target is whole: libmicrohttpd cuts it up for its own list
 * of arguments. What is returned becomes *context below. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *connection)
{
    struct http_server *server = arg;
    struct http_connection *peer = peer_of(connection);
    struct http_call *call = http_call_new(server, connection, peer, target ? target : "");
    http_connection_expect_rest(server, peer, call->began_us / 1000);
    return call;
}

/* Who stops the handlers waits for those that looked before: hence the second look, once counted. */
static void run(struct http_server *server, struct http_call *call)
{
    if (atomic_load(&server->stopped)) {
        http_call_run(call, true);
        return;
    }
    atomic_fetch_add(&server->running, 1);
    pulse_beat("http", 0);
    http_call_run(call, atomic_load(&server->stopped));
    pulse_beat("http", PULSE_IDLE);
    leave(server, &server->running);
}

/* Called with the head, then for each piece of the body, then with the whole request, then (only where the
 * handler parked the call) once resumed. An answer that is given with the head ends the connection, even
 * without a body (libmicrohttpd cannot tell): so everything else waits for the whole request. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **context)
{
    struct http_server *server = arg;
    struct http_call *call = *context;
    (void)connection;
    (void)url;
    if (!call->begun) {
        atomic_fetch_add(&server->unanswered, 1);
        if (!http_call_begin(call, method, version))
            return MHD_YES;
        call->peer->linger = true;
    } else if (*upload_size > 0) {
        bool bearable = http_call_take(call, upload, *upload_size);
        *upload_size = 0;
        return bearable ? MHD_YES : MHD_NO;
    }
    if (!call->run) {
        http_connection_expect_answer(call->peer);
        run(server, call);
        if (call->parked)
            return MHD_YES; /* it may be answered already: then libmicrohttpd calls again at once */
    }
    http_connection_expect_sent(call->peer, clock_mono_ms());
    return http_reply_queue(call) ? MHD_YES : MHD_NO;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_server *server = arg;
    struct http_call *call = *context;
    (void)connection;
    (void)code;
    http_connection_expect_request(server, call->peer, clock_mono_ms());
    if (call->begun)
        leave(server, &server->unanswered);
    http_call_free(call);
    *context = NULL;
}

/* ---- opening ---- */

static void match_routes(struct http_server *server)
{
    const struct http_server_config *config = &server->config;
    server->matches = mem_new(config->route_count * sizeof *server->matches);
    http_metrics_init(server);
    for (size_t i = 0; i < config->route_count; i++) {
        size_t prefix = strcspn(config->routes[i].path, "{");
        server->matches[i] = (struct http_match){
            .method = http_method_parse(config->routes[i].method),
            .prefix = prefix,
            .has_param = config->routes[i].path[prefix] == '{',
        };
        size_t *path = &server->matches[i].path;
        while (strcmp(config->routes[*path].path, config->routes[i].path) != 0)
            ++*path;
    }
}

static struct http_server *server_new(const struct http_server_config *config)
{
    struct http_server *server = mem_new(sizeof *server);
    server->config = *config;
    if (!server->config.request_timeout_s)
        server->config.request_timeout_s = REQUEST_TIMEOUT_S;
    server->listener.listen_fd = server->listener.wake_fd = -1;
    pthread_mutex_init(&server->listener.mutex, NULL);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->quiet, &monotonic);
    pthread_condattr_destroy(&monotonic);
    match_routes(server);
    return server;
}

static enum status start_library(struct http_server *server, struct err *err)
{
    const struct http_server_config *config = &server->config;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC;
    /* It divides its limit among the threads; the listener keeps to ours, wherever the connections land. */
    unsigned limit = config->max_connections * config->threads;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, server},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)on_target, server},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, server},
        {MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t)leave_escapes, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY_BYTES, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)limit, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)config->idle_timeout_s, NULL},
        /* A pool of one is refused: then the one internal thread is left to serve. */
        {config->threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)config->threads, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    MHD_set_panic_func(on_panic, NULL);
    server->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER,
                                      on_library_log, NULL, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (!server->daemon)
        return err_set(err, STATUS_INTERNAL, "cannot start %u HTTP threads", config->threads);
    return STATUS_OK;
}

enum status http_server_open(struct http_server **ret_server, const struct http_server_config *config,
                             struct err *err)
{
    struct http_server *server = server_new(config);
    enum status status = http_listener_open(server, err);
    if (status == STATUS_OK)
        status = start_library(server, err);
    if (status == STATUS_OK)
        status = http_listener_start(server, err);
    if (status == STATUS_OK)
        *ret_server = server;
    else
        http_server_close(server);
    return status;
}

/* ---- ending ---- */

void http_server_leave(struct http_server *server)
{
    if (server)
        atomic_store(&server->leaving, true);
}

void http_server_drain(struct http_server *server)
{
    http_server_leave(server);
    atomic_store(&server->draining, true);
    http_listener_refuse(server);
}

/* With the mutex, and counted in waiters. Short: handlers do not wait. */
static void stop_handlers(struct http_server *server)
{
    atomic_store(&server->stopped, true);
    while (atomic_load(&server->running) > 0)
        pthread_cond_wait(&server->quiet, &server->mutex);
}

static bool is_idle(struct http_server *server)
{
    return atomic_load(&server->unanswered) == 0 && server->parked == 0;
}

static struct timespec after_ms(int ms)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    int64_t ns = time.tv_nsec + ms % 1000 * INT64_C(1000000);
    time.tv_sec += ms / 1000 + ns / 1000000000;
    time.tv_nsec = ns % 1000000000;
    return time;
}

bool http_server_idle(struct http_server *server, int timeout_ms)
{
    struct timespec until = after_ms(timeout_ms);
    bool idle, expired = false;
    atomic_fetch_add(&server->waiters, 1);
    pthread_mutex_lock(&server->mutex);
    for (;;) {
        idle = is_idle(server);
        if ((idle || expired) && atomic_load(&server->draining) && !atomic_load(&server->stopped))
            stop_handlers(server); /* what was let in before that is waited for, too */
        else if (idle || expired)
            break;
        else
            expired = pthread_cond_timedwait(&server->quiet, &server->mutex, &until) != 0;
    }
    pthread_mutex_unlock(&server->mutex);
    atomic_fetch_sub(&server->waiters, 1);
    return idle;
}

static void wait_for_answers(struct http_server *server)
{
    struct timespec until = after_ms(CLOSE_WAIT_MS);
    bool expired = false;
    atomic_fetch_add(&server->waiters, 1);
    pthread_mutex_lock(&server->mutex);
    stop_handlers(server);
    while (server->parked > 0 && !expired)
        expired = pthread_cond_timedwait(&server->quiet, &server->mutex, &until) != 0;
    pthread_mutex_unlock(&server->mutex);
    atomic_fetch_sub(&server->waiters, 1);
}

void http_server_close(struct http_server *server)
{
    if (!server)
        return;
    http_server_leave(server);
    atomic_store(&server->draining, true);
    http_listener_stop(server);
    if (server->daemon) {
        wait_for_answers(server);
        MHD_stop_daemon(server->daemon);
    }
    http_listener_close(server);
    pthread_cond_destroy(&server->quiet);
    pthread_mutex_destroy(&server->mutex);
    free(server->matches);
    http_metrics_done(server);
    free(server);
}
