#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "amqp_internal.h"
#include "ids.h"
#include "mem.h"
#include "pulse.h"

enum {
    REPLY_MS = 10000,
    CLOSE_MS = 2000,
    KEPT_MAX = 1 << 16, /* far above what prefetch 1 on every channel and a full round of replies can bring */
};

void wire_fail(struct amqp *amqp, const char *format, ...)
{
    if (amqp->lost)
        return;
    amqp->lost = true;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(amqp->reason, sizeof amqp->reason, format, args);
    va_end(args);
}

void wire_fail_status(struct amqp *amqp, int library_status)
{
    switch (library_status) {
    case AMQP_STATUS_TIMEOUT:
        wire_fail(amqp, "délai dépassé");
        break;
    case AMQP_STATUS_HEARTBEAT_TIMEOUT:
        wire_fail(amqp, "plus aucun signe de vie (heartbeat)");
        break;
    case AMQP_STATUS_CONNECTION_CLOSED:
    case AMQP_STATUS_SOCKET_CLOSED:
    case AMQP_STATUS_SOCKET_ERROR:
    case AMQP_STATUS_TCP_ERROR:
        wire_fail(amqp, "connexion coupée");
        break;
    case AMQP_STATUS_HOSTNAME_RESOLUTION_FAILED:
        wire_fail(amqp, "nom d'hôte introuvable");
        break;
    case AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED:
        wire_fail(amqp, "TLS : le certificat est celui d'un autre hôte");
        break;
    case AMQP_STATUS_SSL_PEER_VERIFY_FAILED:
        wire_fail(amqp, "TLS : certificat refusé (autorité inconnue ou certificat périmé)");
        break;
    case AMQP_STATUS_SSL_CONNECTION_FAILED:
    case AMQP_STATUS_SSL_ERROR:
        wire_fail(amqp, "TLS : échec de la négociation ou de l'échange");
        break;
    case AMQP_STATUS_BAD_AMQP_DATA:
    case AMQP_STATUS_UNKNOWN_CLASS:
    case AMQP_STATUS_UNKNOWN_METHOD:
    case AMQP_STATUS_WRONG_METHOD:
    case AMQP_STATUS_INCOMPATIBLE_AMQP_VERSION:
        wire_fail(amqp, "ce n'est pas de l'AMQP 0-9-1 valide (%s)", amqp_error_string2(library_status));
        break;
    default:
        wire_fail(amqp, "%s", amqp_error_string2(library_status));
    }
}

bool wire_is_up(const struct amqp *amqp)
{
    return amqp->logged_in && !amqp->lost;
}

short wire_wait(struct amqp *amqp, int fd, short events, int64_t timeout_ms)
{
    struct pollfd fds[] = {{.fd = amqp->wake_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    int64_t wait_ms = timeout_ms < AMQP_TICK_MS ? timeout_ms : AMQP_TICK_MS;
    pulse_beat("amqp", wait_ms > 0 ? wait_ms : 0);
    if (poll(fds, 2, wait_ms > 0 ? (int)wait_ms : 0) <= 0)
        return 0;
    if (fds[0].revents) {
        uint64_t wakes;
        (void)!read(amqp->wake_fd, &wakes, sizeof wakes);
        amqp->woken = true;
    }
    return fds[1].revents;
}

static void on_connection_close(struct amqp *amqp, amqp_connection_close_t *close)
{
    char text[AMQP_REASON_SIZE / 2];
    bytes_to_text(text, sizeof text, close->reply_text);
    wire_fail(amqp, "connexion fermée par RabbitMQ : %d %s", close->reply_code, text);
    /* Only where it cannot block: the connection ends either way. */
    if (wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLOUT, 0) & POLLOUT)
        (void)amqp_send_method(amqp->connection, 0, AMQP_CONNECTION_CLOSE_OK_METHOD,
                               &(amqp_connection_close_ok_t){0});
}

/* A frame off the socket, without waiting. */
static bool read_frame(struct amqp *amqp, amqp_frame_t *ret_frame)
{
    while (wire_is_up(amqp)) {
        amqp_frame_t frame;
        int status = amqp_simple_wait_frame_noblock(amqp->connection, &frame, &(struct timeval){0});
        if (status == AMQP_STATUS_TIMEOUT)
            return false;
        if (status != AMQP_STATUS_OK) {
            wire_fail_status(amqp, status);
            return false;
        }
        bool method = frame.frame_type == AMQP_FRAME_METHOD;
        if (frame.channel > amqp->channel_count + 1) {
            wire_fail(amqp, "trame sur un canal inconnu (%d)", frame.channel);
        } else if (frame.channel == 0 && method && frame.payload.method.id == AMQP_CONNECTION_CLOSE_METHOD) {
            on_connection_close(amqp, frame.payload.method.decoded);
        } else if (method || frame.frame_type == AMQP_FRAME_HEADER || frame.frame_type == AMQP_FRAME_BODY) {
            *ret_frame = frame;
            return true;
        } /* else a heartbeat: having been read is all it is for */
    }
    return false;
}

static void keep_frame(struct amqp *amqp, const amqp_frame_t *frame)
{
    if (amqp->kept.count == KEPT_MAX) {
        wire_fail(amqp, "trop de trames en attente");
        return;
    }
    if (amqp->kept.first + amqp->kept.count == amqp->kept.capacity) {
        if (amqp->kept.first > 0)
            memmove(amqp->kept.items, amqp->kept.items + amqp->kept.first, amqp->kept.count * sizeof *frame);
        amqp->kept.first = 0;
        if (amqp->kept.count == amqp->kept.capacity) {
            amqp->kept.capacity = amqp->kept.capacity ? amqp->kept.capacity * 2 : 16;
            amqp->kept.items = mem_grow(amqp->kept.items, amqp->kept.capacity * sizeof *frame);
        }
    }
    amqp->kept.items[amqp->kept.first + amqp->kept.count++] = *frame;
}

static void drop_kept(struct amqp *amqp)
{
    free(amqp->kept.items);
    amqp->kept.items = NULL;
    amqp->kept.first = amqp->kept.count = amqp->kept.capacity = 0;
}

bool wire_next(struct amqp *amqp, amqp_frame_t *ret_frame)
{
    while (wire_is_up(amqp) && amqp->kept.count > 0) {
        amqp_frame_t frame = amqp->kept.items[amqp->kept.first++];
        amqp->kept.count--;
        if (frame.frame_type != 0) {
            *ret_frame = frame;
            return true;
        }
    }
    if (amqp->kept.capacity > 0 && wire_is_up(amqp)) {
        drop_kept(amqp);
        amqp_maybe_release_buffers(amqp->connection);
    }
    return read_frame(amqp, ret_frame);
}

bool wire_has_frames(struct amqp *amqp)
{
    return amqp->kept.count > 0 || amqp_frames_enqueued(amqp->connection) ||
           amqp_data_in_buffer(amqp->connection);
}

void wire_release(struct amqp *amqp, unsigned channel)
{
    if (amqp->connection && amqp->kept.capacity == 0)
        amqp_maybe_release_buffers_on_channel(amqp->connection, (amqp_channel_t)channel);
}

void wire_forget(struct amqp *amqp, unsigned channel)
{
    for (size_t i = 0; i < amqp->kept.count; i++) {
        amqp_frame_t *frame = &amqp->kept.items[amqp->kept.first + i];
        if (frame->channel == channel)
            frame->frame_type = 0;
    }
}

amqp_table_entry_t text_entry(const char *name, const char *value)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes(name), .value = {.kind = AMQP_FIELD_KIND_UTF8}};
    entry.value.value.bytes = amqp_cstring_bytes(value);
    return entry;
}

amqp_table_entry_t true_entry(const char *name)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes(name), .value = {.kind = AMQP_FIELD_KIND_BOOLEAN}};
    entry.value.value.boolean = true;
    return entry;
}

amqp_table_entry_t table_entry(const char *name, amqp_table_t table)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes(name), .value = {.kind = AMQP_FIELD_KIND_TABLE}};
    entry.value.value.table = table;
    return entry;
}

void wire_keep_coming(struct amqp *amqp)
{
    amqp_frame_t frame;
    while (read_frame(amqp, &frame))
        keep_frame(amqp, &frame);
}

bool wire_await(struct amqp *amqp, unsigned channel, amqp_method_number_t expected, amqp_method_t *ret_reply)
{
    if (!wire_flush(amqp))
        return false;
    int64_t deadline = clock_mono_ms() + REPLY_MS;
    for (;;) {
        amqp_frame_t frame;
        while (read_frame(amqp, &frame)) {
            amqp_method_number_t id = frame.frame_type == AMQP_FRAME_METHOD ? frame.payload.method.id : 0;
            if (frame.channel == channel && (id == expected || id == AMQP_CHANNEL_CLOSE_METHOD)) {
                *ret_reply = frame.payload.method;
                return true;
            }
            keep_frame(amqp, &frame);
        }
        int64_t left_ms = deadline - clock_mono_ms();
        if (left_ms <= 0)
            wire_fail(amqp, "RabbitMQ ne répond plus");
        if (!wire_is_up(amqp) || is_stopping(amqp))
            return false;
        (void)wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLIN, left_ms);
    }
}

static void say_goodbye(struct amqp *amqp)
{
    amqp_connection_close_t close = {.reply_code = AMQP_REPLY_SUCCESS,
                                     .reply_text = amqp_cstring_bytes("bye")};
    int64_t deadline = clock_mono_ms() + CLOSE_MS;
    if (!wire_flush(amqp) ||
        !(wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLOUT, CLOSE_MS) & POLLOUT) ||
        amqp_send_method(amqp->connection, 0, AMQP_CONNECTION_CLOSE_METHOD, &close) != AMQP_STATUS_OK)
        return;
    while (wire_is_up(amqp)) {
        amqp_frame_t frame;
        while (read_frame(amqp, &frame)) {
            if (frame.channel == 0 && frame.frame_type == AMQP_FRAME_METHOD &&
                frame.payload.method.id == AMQP_CONNECTION_CLOSE_OK_METHOD)
                return;
            wire_release(amqp, frame.channel);
        }
        int64_t left_ms = deadline - clock_mono_ms();
        if (left_ms <= 0 || !wire_is_up(amqp))
            return;
        (void)wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLIN, left_ms);
    }
}

void wire_close(struct amqp *amqp, bool politely)
{
    for (unsigned i = 0; i <= amqp->channels_max + 1; i++)
        channel_reset(&amqp->channels[i]);
    drop_kept(amqp);
    if (politely && wire_is_up(amqp))
        say_goodbye(amqp);
    if (amqp->connection)
        (void)amqp_destroy_connection(amqp->connection);
    amqp->connection = NULL;
    amqp->logged_in = false;
    wire_forget_out(amqp);
    amqp->blocked = false;
    amqp->lost = false;
}
