/* An imitation of a broker for the tests of common/amqp: it lets a client in, then runs a script of frames.
 * Each test that includes it is a program of its own, so everything is static. */
#ifndef TESTS_AMQP_IMITATION_H
#define TESTS_AMQP_IMITATION_H

#include "amqp_fixture.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "buf.h"

/* Frame types and methods (class << 16 | method) of AMQP 0-9-1. */
enum { METHOD = 1, HEADER = 2, BODY = 3, HEARTBEAT = 8, FRAME_END = 0xCE, BASIC = 60 };
enum {
    CONNECTION_START = 10 << 16 | 10,
    CONNECTION_START_OK = 10 << 16 | 11,
    CONNECTION_TUNE = 10 << 16 | 30,
    CONNECTION_OPEN = 10 << 16 | 40,
    CONNECTION_OPEN_OK = 10 << 16 | 41,
    CONNECTION_CLOSE = 10 << 16 | 50,
    CONNECTION_CLOSE_OK = 10 << 16 | 51,
    CONNECTION_BLOCKED = 10 << 16 | 60,
    CONNECTION_UNBLOCKED = 10 << 16 | 61,
    CHANNEL_OPEN = 20 << 16 | 10,
    CHANNEL_CLOSE = 20 << 16 | 40,
    CHANNEL_CLOSE_OK = 20 << 16 | 41,
    QUEUE_DECLARE = 50 << 16 | 10,
    QUEUE_DECLARE_OK = 50 << 16 | 11,
    BASIC_DELIVER = BASIC << 16 | 60,
    BASIC_ACK = BASIC << 16 | 80,
};

struct fake {
    int listen_fd, fd, over_fd; /* over_fd is readable once the client has been stopped */
    unsigned heartbeat_s, channel_max;
    void (*script)(struct fake *fake); /* after the login; before it when `raw` */
    bool raw;
    pthread_t thread;
    char url[64];
    struct buf out;
};

/* ---- frames ---- */

static inline void put(struct fake *fake, uint64_t number, unsigned bytes)
{
    while (bytes-- > 0)
        buf_char(&fake->out, (char)(number >> (8 * bytes)));
}

static inline void put_text(struct fake *fake, const char *text, unsigned length_bytes)
{
    put(fake, strlen(text), length_bytes);
    buf_text(&fake->out, text);
}

/* Begins a frame in `out`; end_frame() puts the length in. */
static inline size_t begin_frame(struct fake *fake, unsigned type, unsigned channel)
{
    put(fake, type, 1);
    put(fake, channel, 2);
    put(fake, 0, 4);
    return fake->out.len;
}

static inline void end_frame(struct fake *fake, size_t start)
{
    uint32_t len = htonl((uint32_t)(fake->out.len - start));
    memcpy(fake->out.data + start - 4, &len, 4);
    put(fake, FRAME_END, 1);
}

static inline size_t begin_method(struct fake *fake, unsigned channel, uint32_t id)
{
    size_t start = begin_frame(fake, METHOD, channel);
    put(fake, id, 4);
    return start;
}

static inline void add_simple(struct fake *fake, unsigned channel, uint32_t id)
{
    end_frame(fake, begin_method(fake, channel, id));
}

static inline void add_close(struct fake *fake, unsigned channel, uint32_t id, unsigned code, const char *text)
{
    size_t start = begin_method(fake, channel, id);
    put(fake, code, 2);
    put_text(fake, text, 1);
    put(fake, 0, 4);
    end_frame(fake, start);
}

static inline void add_deliver(struct fake *fake, unsigned channel, uint64_t tag)
{
    size_t start = begin_method(fake, channel, BASIC_DELIVER);
    put_text(fake, "c", 1);
    put(fake, tag, 8);
    put(fake, 0, 1);
    put_text(fake, "", 1);
    put_text(fake, "q", 1);
    end_frame(fake, start);
}

static inline void add_header(struct fake *fake, unsigned channel, uint64_t body_size)
{
    size_t start = begin_frame(fake, HEADER, channel);
    put(fake, BASIC, 2);
    put(fake, 0, 2);
    put(fake, body_size, 8);
    put(fake, 0, 2); /* no properties */
    end_frame(fake, start);
}

static inline void add_body(struct fake *fake, unsigned channel, const char *body)
{
    size_t start = begin_frame(fake, BODY, channel);
    buf_text(&fake->out, body);
    end_frame(fake, start);
}

static inline void add_ack(struct fake *fake, unsigned channel, uint64_t tag)
{
    size_t start = begin_method(fake, channel, BASIC_ACK);
    put(fake, tag, 8);
    put(fake, 0, 1);
    end_frame(fake, start);
}

static inline void add_declare_ok(struct fake *fake, unsigned channel, unsigned messages, unsigned consumers)
{
    size_t start = begin_method(fake, channel, QUEUE_DECLARE_OK);
    put_text(fake, "q", 1);
    put(fake, messages, 4);
    put(fake, consumers, 4);
    end_frame(fake, start);
}

/* What has been added goes out. */
static inline void flush(struct fake *fake)
{
    require(buf_ok(&fake->out));
    for (size_t sent = 0; sent < fake->out.len;) {
        ssize_t part = send(fake->fd, fake->out.data + sent, fake->out.len - sent, MSG_NOSIGNAL);
        if (part <= 0)
            break; /* the client has gone: the test sees that for itself */
        sent += (size_t)part;
    }
    buf_clear(&fake->out);
}

static inline bool receive(struct fake *fake, void *to, size_t len)
{
    return recv(fake->fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

/* Reads frames up to the method and returns its channel; 0xFFFF when the client has gone. */
static inline unsigned await(struct fake *fake, uint32_t wanted)
{
    for (;;) {
        unsigned char head[7], payload[8192];
        if (!receive(fake, head, sizeof head))
            return 0xFFFF;
        uint32_t len = (uint32_t)head[3] << 24 | (uint32_t)head[4] << 16 | (uint32_t)head[5] << 8 | head[6];
        require(len + 1 <= sizeof payload);
        if (!receive(fake, payload, len + 1))
            return 0xFFFF;
        require(payload[len] == FRAME_END);
        uint32_t id = 0;
        memcpy(&id, payload, len >= 4 ? 4 : 0);
        if (head[0] == METHOD && ntohl(id) == wanted)
            return (unsigned)head[1] << 8 | head[2];
    }
}

/* ---- the imitation ---- */

static inline bool let_in(struct fake *fake)
{
    char protocol[8];
    if (!receive(fake, protocol, sizeof protocol) || memcmp(protocol, "AMQP\0\0\11\1", 8) != 0)
        return false;
    size_t start = begin_method(fake, 0, CONNECTION_START);
    put(fake, 9, 2); /* version 0-9 */
    put(fake, 0, 4);
    put_text(fake, "AMQPLAIN PLAIN", 4);
    put_text(fake, "en_US", 4);
    end_frame(fake, start);
    flush(fake);
    if (await(fake, CONNECTION_START_OK) != 0)
        return false;
    start = begin_method(fake, 0, CONNECTION_TUNE);
    put(fake, fake->channel_max, 2);
    put(fake, 131072, 4);
    put(fake, fake->heartbeat_s, 2);
    end_frame(fake, start);
    flush(fake);
    if (await(fake, CONNECTION_OPEN) != 0)
        return false;
    start = begin_method(fake, 0, CONNECTION_OPEN_OK);
    put_text(fake, "", 1);
    end_frame(fake, start);
    flush(fake);
    return true;
}

static inline void *run_fake(void *arg)
{
    struct fake *fake = arg;
    while ((fake->fd = accept(fake->listen_fd, NULL, NULL)) >= 0) {
        if (fake->raw || let_in(fake))
            fake->script(fake);
        close(fake->fd);
    }
    return NULL;
}

/* A client over the imitation: `script` runs after each login. */
static inline struct session *start_fake(struct fake *fake, void (*script)(struct fake *),
                                  bool (*on_up_too)(struct amqp *, void *))
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    fake->script = script;
    fake->channel_max = fake->channel_max ? fake->channel_max : 2047;
    fake->heartbeat_s = fake->heartbeat_s ? fake->heartbeat_s : 60;
    buf_init(&fake->out, 1 << 24);
    fake->over_fd = eventfd(0, EFD_CLOEXEC);
    fake->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fake->listen_fd, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int));
    assert_int_equal(bind(fake->listen_fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fake->listen_fd, 8), 0);
    assert_int_equal(getsockname(fake->listen_fd, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(fake->url, sizeof fake->url, "amqp://127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&fake->thread, NULL, run_fake, fake), 0);
    struct amqp_config config = {.urls = fake->url, .heartbeat_s = fake->heartbeat_s};
    return session_start_with(config, on_up_too);
}

/* Returns how long the client took to stop. */
static inline int64_t stop_fake(struct fake *fake, struct session *session)
{
    int64_t start = clock_mono_ms();
    session_stop(session);
    int64_t took_ms = clock_mono_ms() - start;
    (void)!write(fake->over_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)shutdown(fake->listen_fd, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->listen_fd);
    close(fake->over_fd);
    buf_done(&fake->out);
    return took_ms;
}

static inline void say_goodbye(struct fake *fake)
{
    if (await(fake, CONNECTION_CLOSE) == 0) {
        add_simple(fake, 0, CONNECTION_CLOSE_OK);
        flush(fake);
    }
}

/* True when the client has closed its side, or the test is over: a client's close is not seen behind data
 * that is never read. */
static inline bool wait_gone(struct fake *fake, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = fake->fd, .events = POLLRDHUP}, {.fd = fake->over_fd, .events = POLLIN}};
    return poll(fds, 2, timeout_ms) > 0;
}

#endif
