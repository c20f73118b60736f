/* What a hostile broker may send, from the login on or behind it: frames of rubbish, and well-formed frames
 * in any order. The connection's other end is a socket pair, written full and closed before the client reads;
 * the client's handlers do what ours do. No thread, nothing waits.
 *
 * The input: one byte of FLAGS, then either the broker's bytes as they are, or records that become frames:
 * kind, channel, two bytes of length, payload. */
#include "amqp_internal.h"
#include "fuzz.h"
#include <sys/socket.h>

enum { CHANNELS = 2, CONSUMING = 1, PUBLISHING = 2 };
enum flags { FRAMED = 1, LOGIN = 2, OWN_LOGIN = 4, ENSURE = 8, POLITE = 16, LOOK = 32 };
enum { KNOWN_METHOD = 0x10, FRAME_TYPE = 0x0F };

/* The methods that a broker sends; a record of KNOWN_METHOD names one in its first byte. */
static const uint32_t methods[] = {
    AMQP_CONNECTION_START_METHOD,     AMQP_CONNECTION_TUNE_METHOD,     AMQP_CONNECTION_OPEN_OK_METHOD,
    AMQP_CONNECTION_CLOSE_METHOD,     AMQP_CONNECTION_CLOSE_OK_METHOD, AMQP_CONNECTION_BLOCKED_METHOD,
    AMQP_CONNECTION_UNBLOCKED_METHOD, AMQP_CHANNEL_OPEN_OK_METHOD,     AMQP_CHANNEL_CLOSE_METHOD,
    AMQP_CHANNEL_CLOSE_OK_METHOD,     AMQP_QUEUE_DECLARE_OK_METHOD,    AMQP_BASIC_QOS_OK_METHOD,
    AMQP_BASIC_CONSUME_OK_METHOD,     AMQP_BASIC_CANCEL_METHOD,        AMQP_BASIC_CANCEL_OK_METHOD,
    AMQP_BASIC_DELIVER_METHOD,        AMQP_BASIC_RETURN_METHOD,        AMQP_BASIC_ACK_METHOD,
    AMQP_BASIC_NACK_METHOD,           AMQP_CONFIRM_SELECT_OK_METHOD,   AMQP_CHANNEL_FLOW_METHOD,
};

static int peer;

/* ---- the handlers ---- */

static void must_be_text(const char *text)
{
    MUST(strnlen(text, 256) < 256);
}

static void publish(struct amqp *amqp)
{
    const struct amqp_header headers[] = {{"traceparent", "t"}};
    const struct amqp_publication publication = {.queue = "q",
                                                 .message_id = "m",
                                                 .type = "soiree.reservee",
                                                 .headers = headers,
                                                 .header_count = 1,
                                                 .body = "{}",
                                                 .body_len = 2};
    (void)amqp_publish(amqp, PUBLISHING, &publication, NULL);
}

static void on_delivery(struct amqp *amqp, void *arg, const struct amqp_message *message)
{
    const bool *look = arg;
    struct amqp_queue queue;
    MUST(amqp_is_up(amqp) && message->channel >= 1 && message->channel <= CHANNELS + 1);
    MUST(message->body_len <= AMQP_BODY_MAX && strlen(message->body) <= message->body_len);
    MUST(message->body_len == (message->body_size < AMQP_BODY_MAX ? message->body_size : AMQP_BODY_MAX));
    MUST(message->body[message->body_len] == '\0');
    must_be_text(message->message_id);
    must_be_text(message->type);
    must_be_text(message->app_id);
    must_be_text(message->content_type);
    must_be_text(message->correlation_id);
    must_be_text(message->traceparent);
    switch (message->delivery_tag % 7) {
    case 0:
        (void)amqp_channel_end(amqp, message->channel);
        break;
    case 1:
        (void)amqp_nack_drop(amqp, message->channel, message->delivery_tag);
        break;
    case 2:
        if (*look)
            (void)amqp_queue_look(amqp, "q", &queue);
        break;
    case 3:
        (void)amqp_cancel(amqp, message->channel);
        break;
    case 4:
        publish(amqp);
        break;
    default:
        (void)amqp_ack(amqp, message->channel, message->delivery_tag);
    }
}

static void on_confirm(struct amqp *amqp, void *arg, unsigned channel, uint64_t tag, bool multiple, bool ack)
{
    (void)arg, (void)tag, (void)multiple, (void)ack;
    MUST(amqp_is_up(amqp) && channel >= 1 && channel <= CHANNELS + 1);
}

static void on_returned(struct amqp *amqp, void *arg, unsigned channel, const char *message_id, int code,
                        const char *text)
{
    (void)arg;
    MUST(amqp_is_up(amqp) && channel >= 1 && channel <= CHANNELS + 1 && code >= 0 && code <= UINT16_MAX);
    must_be_text(message_id);
    must_be_text(text);
}

static void on_channel_closed(struct amqp *amqp, void *arg, unsigned channel, int code, const char *text)
{
    (void)arg;
    MUST(channel >= 1 && channel <= CHANNELS && code >= 0 && code <= UINT16_MAX);
    MUST(!amqp->channels[channel].open && !amqp->channels[channel].assembly);
    must_be_text(text);
    if (amqp_channel_begin(amqp, channel))
        (void)amqp_consume(amqp, channel, "q", 1);
}

static void on_cancelled(struct amqp *amqp, void *arg, unsigned channel)
{
    (void)arg;
    MUST(amqp->channels[channel].open && !amqp->channels[channel].consumer);
    (void)amqp_consume(amqp, channel, "q", 1);
}

static void on_blocked(struct amqp *amqp, void *arg, bool blocked, const char *reason)
{
    (void)arg;
    MUST(amqp_is_blocked(amqp) == blocked);
    must_be_text(reason);
}

/* ---- the broker ---- */

static void put(struct buf *out, uint64_t number, unsigned bytes)
{
    while (bytes-- > 0)
        buf_char(out, (char)(number >> 8 * bytes));
}

static void put_frame(struct buf *out, unsigned type, unsigned channel, const struct buf *payload)
{
    put(out, type, 1);
    put(out, channel, 2);
    put(out, payload->len, 4);
    buf_append(out, buf_get(payload), payload->len);
    put(out, AMQP_FRAME_END, 1);
}

/* connection.start, .tune and .open-ok, as a broker sends them. */
static void put_login(struct buf *out)
{
    CLEANUP(buf_done) struct buf payload;
    buf_init(&payload, 256);
    put(&payload, AMQP_CONNECTION_START_METHOD, 4);
    put(&payload, 9, 2);
    put(&payload, 0, 4);
    put(&payload, 5, 4);
    buf_text(&payload, "PLAIN");
    put(&payload, 5, 4);
    buf_text(&payload, "en_US");
    put_frame(out, AMQP_FRAME_METHOD, 0, &payload);
    buf_clear(&payload);
    put(&payload, AMQP_CONNECTION_TUNE_METHOD, 4);
    put(&payload, 2047, 2);
    put(&payload, 131072, 4);
    put(&payload, 0, 2);
    put_frame(out, AMQP_FRAME_METHOD, 0, &payload);
    buf_clear(&payload);
    put(&payload, AMQP_CONNECTION_OPEN_OK_METHOD, 4);
    put(&payload, 0, 1);
    put_frame(out, AMQP_FRAME_METHOD, 0, &payload);
}

static void put_records(struct buf *out, const uint8_t *data, size_t size)
{
    while (size >= 4) {
        CLEANUP(buf_done) struct buf payload;
        unsigned kind = data[0], channel = data[1];
        size_t len = (size_t)data[2] << 8 | data[3];
        data += 4;
        size -= 4;
        len = len < size ? len : size;
        buf_init(&payload, INPUT_MAX + 4);
        bool known = kind & KNOWN_METHOD && len > 0;
        if (known)
            put(&payload, methods[data[0] % COUNT(methods)], 4);
        buf_append(&payload, (const char *)data + known, len - known);
        put_frame(out, known ? AMQP_FRAME_METHOD : kind & FRAME_TYPE, channel, &payload);
        data += len;
        size -= len;
    }
}

/* ---- the client ---- */

/* What the client has sent; the pair has no room for all of it. */
static void drain(void)
{
    char bytes[4096];
    while (recv(peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static void connect_pair(struct amqp *amqp, const struct buf *bytes)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    peer = pair[1];
    if (bytes->len > 0)
        MUST(write(peer, bytes->data, bytes->len) > 0);
    MUST(shutdown(peer, SHUT_WR) == 0);
    amqp->connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(amqp->connection);
    MUST(socket);
    amqp_tcp_socket_set_sockfd(socket, pair[0]);
}

static bool log_in(struct amqp *amqp, unsigned flags)
{
    if (flags & (LOGIN | OWN_LOGIN))
        return wire_login(amqp, &amqp->urls.items[0]);
    return amqp->logged_in = true; /* the library needs none to read frames */
}

static void serve(struct amqp *amqp, unsigned flags)
{
    amqp_frame_t frame;
    bool opened = (!(flags & ENSURE) || amqp_queue_ensure(amqp, "q", "quorum")) &&
                  amqp_channel_begin(amqp, CONSUMING) && amqp_consume(amqp, CONSUMING, "q", 1) &&
                  amqp_channel_begin(amqp, PUBLISHING) && amqp_channel_confirms(amqp, PUBLISHING);
    if (opened)
        publish(amqp);
    drain();
    while (opened && wire_next(amqp, &frame)) {
        dispatch_frame(amqp, &frame);
        wire_release(amqp, frame.channel);
        drain();
    }
    /* it ends with the broker's end, or by what the broker sent */
    MUST(amqp->lost && amqp->reason[0] && strnlen(amqp->reason, AMQP_REASON_SIZE) < AMQP_REASON_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct amqp_handlers handlers = {.delivery = on_delivery,
                                                  .confirm = on_confirm,
                                                  .returned = on_returned,
                                                  .channel_closed = on_channel_closed,
                                                  .cancelled = on_cancelled,
                                                  .blocked = on_blocked};
    if (size < 1 || size > INPUT_MAX)
        return 0;
    unsigned flags = data[0];
    bool look = flags & LOOK;
    CLEANUP(buf_done) struct buf bytes;
    buf_init(&bytes, 4 * INPUT_MAX);
    if (flags & LOGIN)
        put_login(&bytes);
    if (flags & FRAMED)
        put_records(&bytes, data + 1, size - 1);
    else
        buf_append(&bytes, (const char *)data + 1, size - 1);
    MUST(buf_ok(&bytes));

    struct amqp *amqp = NULL;
    const struct amqp_config config = {.urls = "amqp://localhost", .heartbeat_s = 20, .channels = CHANNELS};
    MUST(amqp_new(&amqp, &config, &handlers, &look, NULL) == STATUS_OK);
    connect_pair(amqp, &bytes);
    if (log_in(amqp, flags))
        serve(amqp, flags);
    else
        MUST(amqp->lost && amqp->reason[0] && !amqp->logged_in);
    wire_close(amqp, flags & POLITE);
    for (unsigned i = 0; i <= CHANNELS + 1; i++)
        MUST(!amqp->channels[i].open && !amqp->channels[i].assembly);
    MUST(!amqp->connection && !amqp->kept.items);
    amqp_free(amqp);
    close(peer);
    return 0;
}
