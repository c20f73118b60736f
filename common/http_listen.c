#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "http_internal.h"
#include "ids.h"
#include "log.h"
#include "mem.h"
#include "pulse.h"

enum {
    BACKLOG = 4096,       /* the kernel cuts it to net.core.somaxconn */
    ACCEPTS_A_TURN = 64,  /* so that a flood does not starve the deadlines */
    SWEEP_MS = 500,       /* how late a deadline may be */
    STARVED_MS = 100,     /* pause after running out of descriptors or memory */
    CROWDED_MS = 20,      /* pause for places to become free */
    EVICTED_AT_ONCE = 32, /* at most, and no more than one of PLACES_AN_EVICTION places */
    PLACES_AN_EVICTION = 128,
    EVICTED_AFTER_MS = 500, /* of waiting for its client: whoever has just come gets to speak */
    COMPLAINT_MS = 1000,    /* of having them again, before the next log line about it */
    ANSWER_MS = 120000,     /* for taking an answer; some bytes must go within the idle timeout anyway */
    LINGER_MS = 5000,       /* for the client to notice an early answer */
    LINGER_READS = 4,       /* of one connection a turn */
};

/* ---- opening ---- */

/* A listening socket on the address, or -1 with the reason in errno. */
static int listen_on(int family, const void *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, off = 0;
    if (fd < 0)
        return -1;
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, address, size) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static int listen_everywhere(unsigned port)
{
    struct sockaddr_in6 both = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_ANY_INIT};
    int fd = listen_on(AF_INET6, &both, sizeof both);
    if (fd >= 0 || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL))
        return fd;
    struct sockaddr_in only = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_ANY)}};
    return listen_on(AF_INET, &only, sizeof only);
}

enum status http_listener_open(struct http_server *server, struct err *err)
{
    const char *address = server->config.bind;
    unsigned port = server->config.port;
    server->listener.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->listener.wake_fd < 0)
        return err_set(err, STATUS_INTERNAL, "cannot start the HTTP listener: %s", strerror(errno));
    if (!address[0]) {
        server->listener.listen_fd = listen_everywhere(port);
        if (server->listener.listen_fd < 0)
            return err_set(err, STATUS_NETWORK, "cannot listen on port %u: %s", port, strerror(errno));
        return STATUS_OK;
    }
    char service[16];
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                    *found = NULL;
    int failed = getaddrinfo(address, service, &hints, &found);
    if (failed)
        return err_set(err, STATUS_NETWORK, "cannot listen on %s: %s", address, gai_strerror(failed));
    for (const struct addrinfo *a = found; a && server->listener.listen_fd < 0; a = a->ai_next)
        server->listener.listen_fd = listen_on(a->ai_family, a->ai_addr, a->ai_addrlen);
    int reason = errno;
    freeaddrinfo(found);
    if (server->listener.listen_fd < 0)
        return err_set(err, STATUS_NETWORK, "cannot listen on %s, port %u: %s", address, port,
                       strerror(reason));
    return STATUS_OK;
}

static void wake(struct http_listener *listener)
{
    uint64_t one = 1;
    (void)!write(listener->wake_fd, &one, sizeof one); /* fails only when it is awake 2^64 times over */
}

/* ---- connections, seen from their pool threads ---- */

struct http_connection *http_connection_new(struct http_server *server, int fd)
{
    struct http_listener *listener = &server->listener;
    struct http_connection *peer = mem_new(sizeof *peer);
    peer->fd = fd;
    http_connection_expect_request(server, peer, clock_mono_ms());

    pthread_mutex_lock(&listener->mutex);
    peer->next = listener->connections;
    if (peer->next)
        peer->next->previous = peer;
    listener->connections = peer;
    pthread_mutex_unlock(&listener->mutex);
    return peer;
}

/* Closing a socket with unread input makes the kernel send a reset, which can destroy the answer before the
 * client reads it (RFC 9112 section 9.6). So a duplicate is kept and read until the client closes too. */
static void linger(struct http_listener *listener, const struct http_connection *peer)
{
    int unread = 0;
    if (atomic_load(&listener->stopping) ||
        (!peer->linger && (ioctl(peer->fd, FIONREAD, &unread) != 0 || unread == 0)))
        return;
    if (listener->lingering_count == HTTP_LINGER_MAX)
        return;
    int fd = fcntl(peer->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return;
    listener->lingering[listener->lingering_count++] = (struct http_linger){fd, clock_mono_ms() + LINGER_MS};
    wake(listener);
}

void http_connection_free(struct http_server *server, struct http_connection *peer)
{
    struct http_listener *listener = &server->listener;
    pthread_mutex_lock(&listener->mutex);
    if (peer->next)
        peer->next->previous = peer->previous;
    if (peer->previous)
        peer->previous->next = peer->next;
    else
        listener->connections = peer->next;
    linger(listener, peer);
    pthread_mutex_unlock(&listener->mutex);
    free(peer);
    if (atomic_fetch_sub(&listener->open, 1) == server->config.max_connections)
        wake(listener);
}

static void set_deadline(struct http_connection *peer, int64_t now_ms, int64_t wait_ms,
                         enum http_awaited awaits)
{
    int64_t deadline_ms = wait_ms < INT64_MAX ? now_ms + wait_ms : INT64_MAX;
    atomic_store_explicit(&peer->deadline_ms, deadline_ms, memory_order_relaxed);
    atomic_store_explicit(&peer->since_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&peer->awaits, awaits, memory_order_relaxed);
}

/* An idle connection is closed by libmicrohttpd's own timeout. Past both, it trickles a request line. */
void http_connection_expect_request(const struct http_server *server, struct http_connection *peer,
                                    int64_t now_ms)
{
    int64_t wait_s = (int64_t)server->config.idle_timeout_s + server->config.request_timeout_s;
    set_deadline(peer, now_ms, wait_s * 1000, HTTP_AWAITS_REQUEST);
}

void http_connection_expect_rest(const struct http_server *server, struct http_connection *peer,
                                 int64_t now_ms)
{
    set_deadline(peer, now_ms, (int64_t)server->config.request_timeout_s * 1000, HTTP_AWAITS_REST);
}

void http_connection_expect_answer(struct http_connection *peer)
{
    set_deadline(peer, 0, INT64_MAX, HTTP_AWAITS_NOTHING);
}

void http_connection_expect_sent(struct http_connection *peer, int64_t now_ms)
{
    set_deadline(peer, now_ms, ANSWER_MS, HTTP_AWAITS_NOTHING);
}

/* ---- the listener's thread ---- */

/* Returns false when the process has run out of something: errno says of what. */
static bool accept_some(struct http_server *server)
{
    struct http_listener *listener = &server->listener;
    unsigned most = server->config.max_connections;
    for (int i = 0; i < ACCEPTS_A_TURN && atomic_load(&listener->open) < most; i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof address;
        int fd = accept4(listener->listen_fd, (struct sockaddr *)&address, &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            return false;
        if (fd < 0 && (errno == EAGAIN || errno == EINVAL)) /* EINVAL: shut down, see http_listener_refuse */
            return true;
        if (fd < 0)
            continue; /* that connection is gone already */
        atomic_fetch_add(&listener->open, 1);
        if (MHD_add_connection(server->daemon, fd, (struct sockaddr *)&address, size) != MHD_YES)
            atomic_fetch_sub(&listener->open, 1); /* it has closed fd */
    }
    return true;
}

/* libmicrohttpd 0.9.75 misses a client's leaving when it comes together with a request, and
 * would keep the connection, and http_server_idle waiting, until the idle timeout. Seen twice in a row, since
 * between reading the last bytes and saying so the pool thread looks the same. */
static bool has_left(struct http_connection *peer)
{
    char byte;
    bool seen = peer->seems_left;
    peer->seems_left = atomic_load_explicit(&peer->awaits, memory_order_relaxed) != HTTP_AWAITS_NOTHING &&
                       recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    return seen && peer->seems_left;
}

static void cut_off(struct http_listener *listener, int64_t now_ms)
{
    pthread_mutex_lock(&listener->mutex);
    for (struct http_connection *peer = listener->connections; peer; peer = peer->next) {
        bool late = atomic_load_explicit(&peer->deadline_ms, memory_order_relaxed) <= now_ms;
        if (!has_left(peer) && !late)
            continue;
        log_event(LOG_DEBUG, "http.cut_off", NULL, "connection cut off: %s",
                  late ? "too slow" : "the client has left");
        shutdown(peer->fd, SHUT_RDWR); /* its pool thread sees it and closes */
        set_deadline(peer, 0, INT64_MAX, HTTP_AWAITS_NOTHING);
    }
    pthread_mutex_unlock(&listener->mutex);
}

/* ---- making room ---- */

struct candidate {
    struct http_connection *peer;
    int64_t rank; /* the least goes first */
};

/* Idle connections go before those in the middle of a request, and of each kind those that have waited the
 * longest. INT64_MAX: stays. */
static int64_t rank(const struct http_connection *peer, int64_t now_ms)
{
    int awaits = atomic_load_explicit(&peer->awaits, memory_order_relaxed);
    int64_t since_ms = atomic_load_explicit(&peer->since_ms, memory_order_relaxed);
    if (awaits == HTTP_AWAITS_NOTHING || now_ms - since_ms < EVICTED_AFTER_MS)
        return INT64_MAX;
    return awaits == HTTP_AWAITS_REST ? INT64_MAX / 2 + since_ms : since_ms;
}

/* Puts the connection among the candidates, in order; the last one of a full list drops out. */
static void consider(struct candidate *candidates, size_t max, size_t *count, struct candidate one)
{
    if (*count == max && candidates[*count - 1].rank <= one.rank)
        return;
    size_t i = *count < max ? (*count)++ : *count - 1;
    for (; i > 0 && candidates[i - 1].rank > one.rank; i--)
        candidates[i] = candidates[i - 1];
    candidates[i] = one;
}

/* Closes connections whose clients keep others waiting: without this a few thousand idle ones would be enough
 * to shut everybody out. Only the receiving side is shut down: an answer that is under way after all still
 * gets out. */
static void make_room(struct http_server *server, int64_t now_ms)
{
    struct http_listener *listener = &server->listener;
    struct candidate candidates[EVICTED_AT_ONCE] = {0};
    size_t count = 0, max = 1 + server->config.max_connections / PLACES_AN_EVICTION;
    max = max < EVICTED_AT_ONCE ? max : EVICTED_AT_ONCE;
    char byte;
    pthread_mutex_lock(&listener->mutex);
    for (struct http_connection *peer = listener->connections; peer; peer = peer->next) {
        int64_t its = rank(peer, now_ms);
        if (its < INT64_MAX)
            consider(candidates, max, &count, (struct candidate){peer, its});
    }
    for (size_t i = 0; i < count; i++) {
        struct http_connection *peer = candidates[i].peer;
        if (recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
            continue; /* it has just spoken */
        log_event(LOG_DEBUG, "http.cut_off", NULL, "connection cut off: its place is needed");
        shutdown(peer->fd, SHUT_RD); /* its pool thread sees it and closes */
        atomic_store_explicit(&peer->awaits, HTTP_AWAITS_NOTHING, memory_order_relaxed);
    }
    pthread_mutex_unlock(&listener->mutex);
}

/* ---- turns ---- */

/* Throws away what has come; false when the client is done, or gone. */
static bool read_away(int fd)
{
    char bytes[16 * 1024];
    for (int i = 0; i < LINGER_READS; i++) {
        ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0)
            return got < 0 && (errno == EAGAIN || errno == EINTR);
    }
    return true;
}

static void linger_on(struct http_listener *listener, int64_t now_ms)
{
    pthread_mutex_lock(&listener->mutex);
    for (size_t i = 0; i < listener->lingering_count;) {
        struct http_linger *one = &listener->lingering[i];
        if (now_ms < one->deadline_ms && read_away(one->fd)) {
            i++;
            continue;
        }
        close(one->fd);
        *one = listener->lingering[--listener->lingering_count];
    }
    pthread_mutex_unlock(&listener->mutex);
}

/* Waits until there is something to do; returns whether that is a new connection. */
static bool wait_for_work(struct http_server *server, bool accepts, int pause_ms)
{
    struct http_listener *listener = &server->listener;
    struct pollfd fds[2 + HTTP_LINGER_MAX];
    nfds_t count = 2;
    fds[0] = (struct pollfd){.fd = listener->wake_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = accepts ? listener->listen_fd : -1, .events = POLLIN};
    pthread_mutex_lock(&listener->mutex);
    for (size_t i = 0; i < listener->lingering_count; i++)
        fds[count++] = (struct pollfd){.fd = listener->lingering[i].fd, .events = POLLIN};
    pthread_mutex_unlock(&listener->mutex);

    bool deadlines = count > 2 || atomic_load(&listener->open) > 0;
    int waits_ms = pause_ms ? pause_ms : deadlines ? SWEEP_MS : -1;
    pulse_beat("http-listener", waits_ms < 0 ? PULSE_IDLE : waits_ms);
    (void)poll(fds, count, waits_ms);
    pulse_beat("http-listener", 0);
    uint64_t wakes;
    if (fds[0].revents)
        (void)!read(listener->wake_fd, &wakes, sizeof wakes);
    return accepts && fds[1].revents;
}

static bool is_full(const struct http_server *server)
{
    return atomic_load(&server->listener.open) >= server->config.max_connections;
}

static void *listener_run(void *arg)
{
    struct http_server *server = arg;
    struct http_listener *listener = &server->listener;
    int64_t now_ms = clock_mono_ms(), swept_ms = now_ms, starved_until_ms = 0, crowded_until_ms = 0;
    while (!atomic_load(&listener->stopping)) {
        int pause_ms = now_ms < starved_until_ms                      ? STARVED_MS
                       : is_full(server) && now_ms < crowded_until_ms ? CROWDED_MS
                                                                      : 0;
        bool arrived = wait_for_work(server, pause_ms == 0 && !atomic_load(&server->draining), pause_ms);
        now_ms = clock_mono_ms();
        if (arrived && is_full(server)) {
            make_room(server, now_ms);
            crowded_until_ms = now_ms + CROWDED_MS;
        } else if (arrived && !accept_some(server)) {
            if (now_ms - starved_until_ms > COMPLAINT_MS)
                log_event(LOG_REPEATED(LOG_WARN), "http.accept", NULL, "cannot accept connections: %s",
                          strerror(errno));
            make_room(server, now_ms);
            starved_until_ms = now_ms + STARVED_MS;
        }
        linger_on(listener, now_ms);
        if (now_ms - swept_ms >= SWEEP_MS) {
            cut_off(listener, now_ms);
            swept_ms = now_ms;
        }
    }
    return NULL;
}

enum status http_listener_start(struct http_server *server, struct err *err)
{
    int failed = pthread_create(&server->listener.thread, NULL, listener_run, server);
    if (failed)
        return err_set(err, STATUS_INTERNAL, "cannot start the HTTP listener: %s", strerror(failed));
    (void)pthread_setname_np(server->listener.thread, "http-listener");
    server->listener.started = true;
    return STATUS_OK;
}

void http_listener_refuse(struct http_server *server)
{
    /* Closing the descriptor would race with the thread's accept; shut down, it refuses just as well. */
    shutdown(server->listener.listen_fd, SHUT_RDWR);
    wake(&server->listener);
}

void http_listener_stop(struct http_server *server)
{
    struct http_listener *listener = &server->listener;
    atomic_store(&listener->stopping, true);
    if (listener->started) {
        wake(listener);
        pthread_join(listener->thread, NULL);
    }
}

void http_listener_close(struct http_server *server)
{
    struct http_listener *listener = &server->listener;
    for (size_t i = 0; i < listener->lingering_count; i++)
        close(listener->lingering[i].fd);
    close_fd(&listener->listen_fd);
    close_fd(&listener->wake_fd);
    pthread_mutex_destroy(&listener->mutex);
}
