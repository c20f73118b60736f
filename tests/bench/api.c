/* An imitation of lagmaster-pro that costs next to nothing: GET anything but /stats answers the same playlist
 * after a fixed time. tests/fakes/lagmaster.py can do everything but this: bear a thousand workers beside the
 * daemons.
 *
 * usage: bench_api LATENCY_MS; prints its port. GET /stats: calls so far, and the monotonic time of the
 * first. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FDS_MAX = 8192, HEAD_MAX_BYTES = 4096, EVENTS_MAX = 256 };

static const char playlist[] =
    "{\"style\":\"disco\",\"title\":\"Disco Fever Night\",\"tracks\":[\"Stayin' Alive - Bee Gees\","
    "\"I Will Survive - Gloria Gaynor\",\"Le Freak - Chic\",\"Dancing Queen - ABBA\","
    "\"September - Earth, Wind & Fire\"]}";

/* One connection, at its descriptor's number; an old answer is not for a new connection of the same number.
 */
struct peer {
    unsigned generation;
    size_t used;
    char head[HEAD_MAX_BYTES];
};

struct due {
    int64_t at_us;
    int fd;
    unsigned generation;
};

static struct peer *peers[FDS_MAX];
static struct due dues[FDS_MAX]; /* a ring: the time is the same for all, so the first in is the first due */
static size_t due_first, due_count;
static int64_t latency_us, first_us;
static unsigned long long calls;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Answers fit any socket's buffer: a short write is a client that left. */
static void answer(int fd, const char *body)
{
    char text[1024];
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        strlen(body), body);
    (void)!write(fd, text, (size_t)size);
}

static void called(int fd, struct peer *peer)
{
    int64_t now = now_us();
    if (strncmp(peer->head, "GET /stats ", 11) == 0) {
        char text[128];
        (void)snprintf(text, sizeof text, "{\"calls\":%llu,\"waiting\":%zu,\"first_us\":%lld}", calls,
                       due_count, (long long)first_us);
        answer(fd, text);
        return;
    }
    if (calls++ == 0)
        first_us = now;
    if (latency_us == 0) {
        answer(fd, playlist);
        return;
    }
    dues[(due_first + due_count++) % FDS_MAX] = (struct due){now + latency_us, fd, peer->generation};
}

static void leave(int fd, struct peer *peer)
{
    peer->generation++;
    close(fd);
}

static void readable(int fd)
{
    struct peer *peer = peers[fd];
    ssize_t got = read(fd, peer->head + peer->used, sizeof peer->head - 1 - peer->used);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            leave(fd, peer);
        return;
    }
    peer->used += (size_t)got;
    peer->head[peer->used] = '\0';
    if (strstr(peer->head, "\r\n\r\n")) { /* one request at a time, none has a body */
        called(fd, peer);
        peer->used = 0;
    } else if (peer->used == sizeof peer->head - 1) {
        leave(fd, peer);
    }
}

static void accept_one(int listener, int epoll)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (fd < 0)
        return;
    if (fd >= FDS_MAX) {
        close(fd);
        return;
    }
    if (!peers[fd] && !(peers[fd] = calloc(1, sizeof **peers)))
        fail("calloc");
    peers[fd]->used = 0;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll_ctl");
}

/* Answers what is due; returns the milliseconds until there is more, -1: for ever. */
static int answer_due(void)
{
    int64_t now = now_us();
    while (due_count > 0 && dues[due_first].at_us <= now) {
        struct due due = dues[due_first];
        due_first = (due_first + 1) % FDS_MAX;
        due_count--;
        if (peers[due.fd]->generation == due.generation)
            answer(due.fd, playlist);
    }
    return due_count > 0 ? (int)((dues[due_first].at_us - now + 999) / 1000) : -1;
}

static int listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        fail("listen");
    printf("%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: bench_api LATENCY_MS\n");
        return 2;
    }
    latency_us = strtoll(argv[1], NULL, 10) * 1000;
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_anywhere(), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        fail("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, answer_due());
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_one(listener, epoll);
            else
                readable(events[i].data.fd);
        }
    }
}
