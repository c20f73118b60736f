/* An HTTP server on a free port that answers what the test says, also what no server should: one thread, one poll loop.
 * The handler runs in that thread, so it asserts nothing. */
#ifndef TESTS_TINY_HTTP_H
#define TESTS_TINY_HTTP_H

#include "temp_folder.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#include "buf.h"

enum { TINY_CONNECTIONS = 256 };

enum tiny_then {
    TINY_KEEP,    /* wait for the next request */
    TINY_CLOSE,   /* end the connection behind the reply */
    TINY_SILENT,  /* say nothing more until the client leaves */
    TINY_TRICKLE, /* a byte every 10 ms until the client leaves */
};

struct tiny_http {
    /* Writes the whole reply, status line first; `request` is all of it, with a NUL behind. */
    enum tiny_then (*answer)(void *arg, const char *request, struct buf *reply);
    void *arg;

    unsigned port;
    atomic_int connections, requests; /* since the start */
    sem_t asked;                      /* posted for each request, once it is answered */
    sem_t left;                       /* posted when a client ends a silent or trickling connection */

    int listening, stop[2];
    pthread_t thread;
    struct {
        int fd;
        enum tiny_then then;
        struct buf request;
    } open[TINY_CONNECTIONS];
    size_t open_count;
};

/* Whether all of a request is there: its head, and as many bytes behind as it announces. */
static inline bool tiny_is_whole(const struct buf *request)
{
    const char *end = strstr(buf_get(request), "\r\n\r\n");
    if (!end)
        return false;
    const char *length = strcasestr(buf_get(request), "\r\nContent-Length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    return request->len >= (size_t)(end + 4 - request->data) + body;
}

static inline void tiny_drop(struct tiny_http *server, size_t at)
{
    (void)close(server->open[at].fd);
    buf_done(&server->open[at].request);
    server->open[at] = server->open[--server->open_count];
}

/* False when the connection is over. */
static inline bool tiny_serve(struct tiny_http *server, size_t at)
{
    char bytes[16 * 1024];
    struct buf *request = &server->open[at].request;
    ssize_t got = recv(server->open[at].fd, bytes, sizeof bytes, 0);
    if (got <= 0) {
        if (server->open[at].then == TINY_SILENT || server->open[at].then == TINY_TRICKLE)
            sem_post(&server->left);
        return false;
    }
    buf_append(request, bytes, (size_t)got);
    if (!tiny_is_whole(request))
        return true;
    CLEANUP(buf_done) struct buf reply;
    buf_init(&reply, 16 << 20);
    server->open[at].then = server->answer(server->arg, buf_get(request), &reply);
    buf_clear(request);
    for (size_t sent = 0; sent < reply.len;) {
        ssize_t step = send(server->open[at].fd, reply.data + sent, reply.len - sent, MSG_NOSIGNAL);
        if (step <= 0)
            break; /* the client had enough */
        sent += (size_t)step;
    }
    atomic_fetch_add(&server->requests, 1);
    sem_post(&server->asked);
    return server->open[at].then != TINY_CLOSE;
}

static inline void tiny_accept(struct tiny_http *server)
{
    int fd = accept4(server->listening, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || server->open_count == TINY_CONNECTIONS)
        return;
    atomic_fetch_add(&server->connections, 1);
    server->open[server->open_count].fd = fd;
    server->open[server->open_count].then = TINY_KEEP;
    buf_init(&server->open[server->open_count++].request, 1 << 20);
}

static inline void *tiny_main(void *arg)
{
    struct tiny_http *server = arg;
    for (;;) {
        struct pollfd fds[TINY_CONNECTIONS + 2] = {{server->stop[0], POLLIN, 0}, {server->listening, POLLIN, 0}};
        size_t count = server->open_count;
        for (size_t i = 0; i < count; i++)
            fds[i + 2] = (struct pollfd){server->open[i].fd, POLLIN, 0};
        (void)poll(fds, count + 2, 10);
        if (fds[0].revents)
            return NULL;
        for (size_t i = count; i-- > 0;) { /* from the end: dropping moves the last one */
            if (fds[i + 2].revents && !tiny_serve(server, i))
                tiny_drop(server, i);
            else if (server->open[i].then == TINY_TRICKLE)
                (void)send(server->open[i].fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        if (fds[1].revents)
            tiny_accept(server);
    }
}

/* A socket on a free port of this machine. */
static inline int tiny_bind(unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static inline struct tiny_http *tiny_start(enum tiny_then (*answer)(void *, const char *, struct buf *), void *arg)
{
    struct tiny_http *server = mem_new(sizeof *server);
    server->answer = answer;
    server->arg = arg;
    sem_init(&server->asked, 0, 0);
    sem_init(&server->left, 0, 0);
    server->listening = tiny_bind(&server->port);
    assert_int_equal(listen(server->listening, TINY_CONNECTIONS), 0);
    assert_int_equal(pipe(server->stop), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, tiny_main, server), 0);
    return server;
}

static inline void tiny_stop(struct tiny_http *server)
{
    assert_int_equal(write(server->stop[1], "", 1), 1);
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    while (server->open_count)
        tiny_drop(server, 0);
    (void)close(server->listening);
    (void)close(server->stop[0]);
    (void)close(server->stop[1]);
    sem_destroy(&server->asked);
    sem_destroy(&server->left);
    free(server);
}

/* A whole reply with a body of JSON type. */
static inline void tiny_reply(struct buf *reply, int status, const char *headers, const char *body)
{
    buf_format(reply, "HTTP/1.1 %d Test\r\nContent-Type: application/json; charset=utf-8\r\n%s", status, headers);
    buf_format(reply, "Content-Length: %zu\r\n\r\n", strlen(body));
    buf_text(reply, body);
}

#endif
