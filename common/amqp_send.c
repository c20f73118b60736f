/* What is sent: gathered during a turn of the loop, and given to the socket at its end. A system call a frame
 * would cost more than everything else that a message needs.
 *
 * The frames of a plain connection are encoded and written here. Those of a TLS connection go to the library
 * one by one, since nobody else can encrypt for it; TCP_CORK (tcp(7)) has them leave in full packets at
 * least.
 *
 * The library would wait for room in the socket by itself, but with no end: with its send deadline fixed at
 * "never" it waits until two heartbeats have passed unread, and then for input (its issues 519 and 780). So
 * nothing is sent before poll() has said that a third of the send buffer is free, which holds what is sent at
 * once. Meanwhile input is read and kept: a broker that waits for us to read would never read itself. */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "amqp_internal.h"
#include "ids.h"
#include "mem.h"

enum {
    SEND_MS = 10000,
    FRAME_HEAD = 7, /* type, channel, size of the payload; behind the payload one byte more */
    FRAME_END = 0xCE,
    METHOD_HEAD = 4,   /* its number */
    CONTENT_HEAD = 12, /* class, weight, size of the body */
    GATHERED_LEAST_BYTES = 8 * 1024,
    GATHERED_MOST_BYTES = 48 * 1024,
    FRAME_MOST_BYTES = 16 * 1024,
    SEND_BUFFER_SHARE =
        8, /* of it is sent at once: well below a third, since the kernel adds its own to it */
};

static const short room_events = POLLOUT | POLLERR | POLLHUP;

/* ---- frames to bytes ---- */

static void put_16(char *out, unsigned value)
{
    uint16_t big = htobe16((uint16_t)value);
    memcpy(out, &big, sizeof big);
}

static void put_32(char *out, uint32_t value)
{
    uint32_t big = htobe32(value);
    memcpy(out, &big, sizeof big);
}

static void put_64(char *out, uint64_t value)
{
    uint64_t big = htobe64(value);
    memcpy(out, &big, sizeof big);
}

/* The payload's bytes, or a library status below 0. */
static int put_payload(char *out, size_t size, const amqp_frame_t *frame)
{
    size_t head = frame->frame_type == AMQP_FRAME_METHOD   ? METHOD_HEAD
                  : frame->frame_type == AMQP_FRAME_HEADER ? CONTENT_HEAD
                                                           : 0;
    amqp_bytes_t rest = {.len = size - head, .bytes = out + head};
    int len;
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        put_32(out, frame->payload.method.id);
        len = amqp_encode_method(frame->payload.method.id, frame->payload.method.decoded, rest);
    } else if (frame->frame_type == AMQP_FRAME_HEADER) {
        put_16(out, frame->payload.properties.class_id);
        put_16(out + 2, 0);
        put_64(out + 4, frame->payload.properties.body_size);
        len = amqp_encode_properties(frame->payload.properties.class_id, frame->payload.properties.decoded,
                                     rest);
    } else {
        len = (int)frame->payload.body_fragment.len;
        memcpy(out, frame->payload.body_fragment.bytes, frame->payload.body_fragment.len);
    }
    return len < 0 ? len : len + (int)head;
}

/* AMQP 0-9-1 section 4.2.3. The frame's bytes, or a library status below 0. */
static int put_frame(char *out, const amqp_frame_t *frame)
{
    int len = put_payload(out + FRAME_HEAD, FRAME_MOST_BYTES - FRAME_HEAD - 1, frame);
    if (len < 0)
        return len;
    out[0] = (char)frame->frame_type;
    put_16(out + 1, frame->channel);
    put_32(out + 3, (uint32_t)len);
    out[FRAME_HEAD + len] = (char)FRAME_END;
    return FRAME_HEAD + len + 1;
}

/* ---- room in the socket ---- */

static bool wait_for_room(struct amqp *amqp)
{
    if (!wire_is_up(amqp))
        return false;
    if (wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLOUT, 0) & room_events)
        return true;
    int64_t deadline = clock_mono_ms() + SEND_MS;
    for (;;) {
        wire_keep_coming(amqp);
        int64_t left_ms = deadline - clock_mono_ms();
        if (left_ms <= 0 || is_stopping(amqp))
            wire_fail(amqp, "RabbitMQ ne lit plus ce qui lui est envoyé");
        if (!wire_is_up(amqp))
            return false;
        if (wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLIN | POLLOUT, left_ms) & room_events)
            return true;
    }
}

/* All of it. The room was there; should it not suffice after all, nothing is read meanwhile: whoever reads
 * has the library send its heartbeats, in the middle of a frame of ours. */
static void send_all(struct amqp *amqp, const char *bytes, size_t len)
{
    int fd = amqp_get_sockfd(amqp->connection);
    int64_t deadline = 0;
    while (len > 0 && wire_is_up(amqp)) {
        ssize_t took = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (took >= 0) {
            bytes += took;
            len -= (size_t)took;
        } else if (errno == EAGAIN) {
            int64_t now_ms = clock_mono_ms();
            deadline = deadline ? deadline : now_ms + SEND_MS;
            if (now_ms >= deadline || is_stopping(amqp))
                wire_fail(amqp, "RabbitMQ ne lit plus ce qui lui est envoyé");
            else
                (void)wire_wait(amqp, fd, POLLOUT, deadline - now_ms);
        } else if (errno != EINTR) {
            wire_fail_status(amqp, AMQP_STATUS_SOCKET_ERROR);
        }
    }
}

/* ---- sending ---- */

static void cork(struct amqp *amqp, bool corked)
{
    const int on = corked;
    if (amqp->out.corked != corked)
        (void)setsockopt(amqp_get_sockfd(amqp->connection), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    amqp->out.corked = corked;
}

static bool send_encrypted(struct amqp *amqp, const amqp_frame_t *frame)
{
    if (!wait_for_room(amqp))
        return false;
    cork(amqp, true);
    int status = amqp_send_frame(amqp->connection, frame);
    if (status != AMQP_STATUS_OK)
        wire_fail_status(amqp, status);
    return status == AMQP_STATUS_OK;
}

/* How much is sent at once: what poll() has found room for. */
static size_t gathered_most(struct amqp *amqp)
{
    int size = 0;
    socklen_t len = sizeof size;
    (void)getsockopt(amqp_get_sockfd(amqp->connection), SOL_SOCKET, SO_SNDBUF, &size, &len);
    size_t share = (size_t)size / SEND_BUFFER_SHARE;
    return share < GATHERED_LEAST_BYTES  ? GATHERED_LEAST_BYTES
           : share > GATHERED_MOST_BYTES ? GATHERED_MOST_BYTES
                                         : share;
}

bool wire_send(struct amqp *amqp, const amqp_frame_t *frame)
{
    struct wire_out *out = &amqp->out;
    if (!wire_is_up(amqp))
        return false;
    if (amqp->encrypted)
        return send_encrypted(amqp, frame);
    if (!out->bytes)
        out->bytes = mem_grow(NULL, GATHERED_MOST_BYTES + FRAME_MOST_BYTES);
    if (!out->most)
        out->most = gathered_most(amqp);
    int len = put_frame(out->bytes + out->len, frame);
    if (len < 0) {
        wire_fail_status(amqp, len);
        return false;
    }
    out->len += (size_t)len;
    return out->len < out->most || wire_flush(amqp);
}

bool wire_flush(struct amqp *amqp)
{
    struct wire_out *out = &amqp->out;
    size_t len = out->len;
    out->len = 0;
    if (out->corked)
        cork(amqp, false);
    if (len > 0 && wait_for_room(amqp))
        send_all(amqp, out->bytes, len);
    return wire_is_up(amqp);
}

void wire_forget_out(struct amqp *amqp)
{
    amqp->out.len = amqp->out.most = 0;
    amqp->out.corked = false;
}

bool wire_send_method(struct amqp *amqp, unsigned channel, amqp_method_number_t id, void *decoded)
{
    amqp_frame_t frame = {.frame_type = AMQP_FRAME_METHOD, .channel = (amqp_channel_t)channel};
    frame.payload.method.id = id;
    frame.payload.method.decoded = decoded;
    return wire_send(amqp, &frame);
}

bool wire_send_close_ok(struct amqp *amqp, unsigned channel)
{
    return wire_send_method(amqp, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &(amqp_channel_close_ok_t){0});
}
