#include <stdlib.h>
#include <string.h>

#include "amqp_internal.h"
#include "cleanup.h"
#include "mem.h"

enum text { MESSAGE_ID, TYPE, APP_ID, CONTENT_TYPE, CORRELATION_ID, TRACEPARENT, TEXT_COUNT };
enum { SHORT_TEXT_SIZE = 256 }; /* a shortstr has at most 255 bytes */

/* A message on its way in, as METHOD, HEADER and BODY frames. All that it needs is copied out of the frames,
 * so that the library's memory, which never shrinks, can be recycled after each of them. */
struct assembly {
    bool returned; /* basic.return, else basic.deliver */
    int code;
    char reason[SHORT_TEXT_SIZE];
    uint64_t delivery_tag;
    bool redelivered;

    bool has_header;
    int64_t delivery_count;
    char texts[TEXT_COUNT][SHORT_TEXT_SIZE];
    uint64_t body_size, body_seen;
    char *body;
    size_t body_len, body_max;
};

void bytes_to_text(char *to, size_t size, amqp_bytes_t bytes)
{
    size_t len = bytes.len;
    if (len > 0 && memchr(bytes.bytes, '\0', len))
        len = 0;
    const char *text = len > 0 ? bytes.bytes : "";
    if (len >= size) {
        len = size - 1;
        while (len > 0 && ((unsigned char)text[len] & 0xC0) == 0x80)
            len--;
    }
    memcpy(to, text, len);
    to[len] = '\0';
}

static void assembly_free(struct assembly **assembly)
{
    if (*assembly)
        free((*assembly)->body);
    free(*assembly);
    *assembly = NULL;
}

void channel_reset(struct channel *channel)
{
    assembly_free(&channel->assembly);
    *channel = (struct channel){0};
}

static bool is_owners(const struct amqp *amqp, unsigned channel)
{
    return channel >= 1 && channel <= amqp->channel_count;
}

/* ---- messages ---- */

static void begin_message(struct amqp *amqp, unsigned number, const amqp_method_t *method)
{
    struct channel *channel = &amqp->channels[number];
    if (channel->assembly) {
        wire_fail(amqp, "RabbitMQ commence un message avant la fin du précédent");
        return;
    }
    struct assembly *assembly = channel->assembly = mem_new(sizeof *assembly);
    if (method->id == AMQP_BASIC_RETURN_METHOD) {
        const amqp_basic_return_t *basic_return = method->decoded;
        assembly->returned = true;
        assembly->code = basic_return->reply_code;
        bytes_to_text(assembly->reason, sizeof assembly->reason, basic_return->reply_text);
    } else {
        const amqp_basic_deliver_t *deliver = method->decoded;
        assembly->delivery_tag = deliver->delivery_tag;
        assembly->redelivered = deliver->redelivered;
    }
}

/* NULL where there is none. */
static const amqp_field_value_t *find_header(const amqp_basic_properties_t *properties, const char *name)
{
    if (!(properties->_flags & AMQP_BASIC_HEADERS_FLAG))
        return NULL;
    for (int i = 0; i < properties->headers.num_entries; i++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[i];
        if (entry->key.len == strlen(name) && memcmp(entry->key.bytes, name, entry->key.len) == 0)
            return &entry->value;
    }
    return NULL;
}

static amqp_bytes_t header_text(const amqp_basic_properties_t *properties, const char *name)
{
    const amqp_field_value_t *found = find_header(properties, name);
    bool is_text = found && (found->kind == AMQP_FIELD_KIND_UTF8 || found->kind == AMQP_FIELD_KIND_BYTES);
    return is_text ? found->value.bytes : amqp_empty_bytes;
}

/* 0 also for a kind that RabbitMQ does not count in. */
static int64_t header_number(const amqp_basic_properties_t *properties, const char *name)
{
    const amqp_field_value_t *found = find_header(properties, name);
    return !found                               ? 0
           : found->kind == AMQP_FIELD_KIND_I64 ? found->value.i64
           : found->kind == AMQP_FIELD_KIND_I32 ? found->value.i32
                                                : 0;
}

static void take_header(struct assembly *assembly, const amqp_frame_t *frame)
{
    const amqp_basic_properties_t *properties = frame->payload.properties.decoded;
    const struct {
        amqp_flags_t flag;
        const amqp_bytes_t *bytes;
    } sources[] = {
        [MESSAGE_ID] = {AMQP_BASIC_MESSAGE_ID_FLAG, &properties->message_id},
        [TYPE] = {AMQP_BASIC_TYPE_FLAG, &properties->type},
        [APP_ID] = {AMQP_BASIC_APP_ID_FLAG, &properties->app_id},
        [CONTENT_TYPE] = {AMQP_BASIC_CONTENT_TYPE_FLAG, &properties->content_type},
        [CORRELATION_ID] = {AMQP_BASIC_CORRELATION_ID_FLAG, &properties->correlation_id},
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        if (properties->_flags & sources[i].flag)
            bytes_to_text(assembly->texts[i], SHORT_TEXT_SIZE, *sources[i].bytes);
    }
    bytes_to_text(assembly->texts[TRACEPARENT], SHORT_TEXT_SIZE, header_text(properties, "traceparent"));
    assembly->delivery_count = header_number(properties, "x-delivery-count");
    assembly->has_header = true;
    assembly->body_size = frame->payload.properties.body_size;
    if (!assembly->returned)
        assembly->body_max = assembly->body_size < AMQP_BODY_MAX ? (size_t)assembly->body_size
                                                                 : AMQP_BODY_MAX;
    assembly->body = mem_new(assembly->body_max + 1);
}

static void take_body(struct assembly *assembly, amqp_bytes_t fragment)
{
    size_t room = assembly->body_max - assembly->body_len;
    size_t len = fragment.len < room ? fragment.len : room;
    if (len > 0)
        memcpy(assembly->body + assembly->body_len, fragment.bytes, len);
    assembly->body_len += len;
    assembly->body_seen += fragment.len;
}

/* The assembly belongs to this call, since the handler may close the channel or lose the connection. */
static void hand_over(struct amqp *amqp, unsigned channel, struct assembly *taken)
{
    CLEANUP(assembly_free) struct assembly *assembly = taken;
    const struct amqp_handlers *handlers = amqp->handlers;
    if (assembly->returned) {
        if (handlers->returned)
            handlers->returned(amqp, amqp->arg, channel, assembly->texts[MESSAGE_ID], assembly->code,
                               assembly->reason);
        return;
    }
    struct amqp_message message = {
        .channel = channel,
        .delivery_tag = assembly->delivery_tag,
        .redelivered = assembly->redelivered,
        .message_id = assembly->texts[MESSAGE_ID],
        .type = assembly->texts[TYPE],
        .app_id = assembly->texts[APP_ID],
        .content_type = assembly->texts[CONTENT_TYPE],
        .correlation_id = assembly->texts[CORRELATION_ID],
        .traceparent = assembly->texts[TRACEPARENT],
        .delivery_count = assembly->delivery_count,
        .body = assembly->body,
        .body_len = assembly->body_len,
        .body_size = assembly->body_size,
    };
    if (handlers->delivery)
        handlers->delivery(amqp, amqp->arg, &message);
}

static void on_content(struct amqp *amqp, const amqp_frame_t *frame)
{
    struct channel *channel = &amqp->channels[frame->channel];
    struct assembly *assembly = channel->assembly;
    bool header = frame->frame_type == AMQP_FRAME_HEADER;
    if (!assembly || header == assembly->has_header ||
        (header && frame->payload.properties.class_id != AMQP_BASIC_CLASS)) {
        wire_fail(amqp, "RabbitMQ envoie un contenu hors d'un message");
        return;
    }
    if (header)
        take_header(assembly, frame);
    else
        take_body(assembly, frame->payload.body_fragment);
    if (assembly->body_seen > assembly->body_size)
        wire_fail(amqp, "RabbitMQ envoie un message plus long qu'annoncé");
    else if (assembly->body_seen == assembly->body_size)
        hand_over(amqp, frame->channel, TAKE(channel->assembly));
}

/* ---- methods ---- */

static void on_channel_close(struct amqp *amqp, unsigned channel, const amqp_channel_close_t *close)
{
    char text[SHORT_TEXT_SIZE];
    bytes_to_text(text, sizeof text, close->reply_text);
    channel_reset(&amqp->channels[channel]);
    if (wire_send_close_ok(amqp, channel) && is_owners(amqp, channel) && amqp->handlers->channel_closed)
        amqp->handlers->channel_closed(amqp, amqp->arg, channel, close->reply_code, text);
}

static void on_cancel(struct amqp *amqp, unsigned channel, const amqp_basic_cancel_t *cancel)
{
    if (!cancel->nowait) {
        amqp_basic_cancel_ok_t ok = {.consumer_tag = cancel->consumer_tag};
        if (!wire_send_method(amqp, channel, AMQP_BASIC_CANCEL_OK_METHOD, &ok))
            return;
    }
    if (consumer_has_ended(amqp, channel, cancel->consumer_tag) && amqp->handlers->cancelled)
        amqp->handlers->cancelled(amqp, amqp->arg, channel);
}

static void on_confirm(struct amqp *amqp, unsigned channel, const amqp_method_t *method)
{
    if (!amqp->handlers->confirm)
        return;
    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        amqp->handlers->confirm(amqp, amqp->arg, channel, ack->delivery_tag, ack->multiple, true);
    } else {
        const amqp_basic_nack_t *nack = method->decoded;
        amqp->handlers->confirm(amqp, amqp->arg, channel, nack->delivery_tag, nack->multiple, false);
    }
}

/* The other replies (channel.open-ok, basic.qos-ok, …) need nothing: a refusal is a channel.close. */
static void on_channel_method(struct amqp *amqp, unsigned channel, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_BASIC_DELIVER_METHOD:
    case AMQP_BASIC_RETURN_METHOD:
        begin_message(amqp, channel, method);
        break;
    case AMQP_BASIC_ACK_METHOD:
    case AMQP_BASIC_NACK_METHOD:
        on_confirm(amqp, channel, method);
        break;
    case AMQP_BASIC_CONSUME_OK_METHOD: {
        const amqp_basic_consume_ok_t *ok = method->decoded;
        consumer_has_started(amqp, channel, ok->consumer_tag);
        break;
    }
    case AMQP_BASIC_CANCEL_OK_METHOD:
        amqp->channels[channel].cancelling = false;
        break;
    case AMQP_BASIC_CANCEL_METHOD:
        on_cancel(amqp, channel, method->decoded);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_channel_close(amqp, channel, method->decoded);
        break;
    default:
        break;
    }
}

static void on_connection_method(struct amqp *amqp, const amqp_method_t *method)
{
    char text[SHORT_TEXT_SIZE] = "";
    if (method->id == AMQP_CONNECTION_BLOCKED_METHOD) {
        const amqp_connection_blocked_t *blocked = method->decoded;
        bytes_to_text(text, sizeof text, blocked->reason);
    } else if (method->id != AMQP_CONNECTION_UNBLOCKED_METHOD) {
        return;
    }
    amqp->blocked = method->id == AMQP_CONNECTION_BLOCKED_METHOD;
    if (amqp->handlers->blocked)
        amqp->handlers->blocked(amqp, amqp->arg, amqp->blocked, text);
}

void dispatch_frame(struct amqp *amqp, const amqp_frame_t *frame)
{
    bool method = frame->frame_type == AMQP_FRAME_METHOD;
    if (frame->channel == 0) {
        if (method)
            on_connection_method(amqp, &frame->payload.method);
    } else if (amqp->channels[frame->channel].open) {
        if (method)
            on_channel_method(amqp, frame->channel, &frame->payload.method);
        else
            on_content(amqp, frame);
    }
}
