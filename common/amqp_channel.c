#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_internal.h"
#include "mem.h"

enum {
    SHORTSTR_MAX = 255,
    CONSUMER_TAG_SIZE = 32,
    HEADERS_MAX = 16,
    HEADER_VALUE_SIZE = 256 + 1,
    /* Bodies go out in frames that fit what is sent at once, whatever the frame maximum is. */
    FRAME_OVERHEAD = 8,
    BODY_FRAME_MAX = WIRE_FRAME_MAX - FRAME_OVERHEAD,
};

/* The channel when it is open, else NULL. */
static struct channel *find_open(struct amqp *amqp, unsigned number)
{
    if (!wire_is_up(amqp) || number < 1 || number > amqp->channel_count + 1 || !amqp->channels[number].open)
        return NULL;
    return &amqp->channels[number];
}

static unsigned scratch_channel(const struct amqp *amqp)
{
    return amqp->channel_count + 1;
}

static amqp_bytes_t to_bytes(const char *text)
{
    return amqp_cstring_bytes(text ? text : "");
}

/* ---- opening and closing ---- */

/* Nothing waits for channel.open-ok: RabbitMQ takes a channel's methods in order, and a thousand channels
 * would mean a thousand round trips. */
static bool open_channel(struct amqp *amqp, unsigned number)
{
    if (!wire_is_up(amqp))
        return false;
    amqp->channels[number].open = true;
    return wire_send_method(amqp, number, AMQP_CHANNEL_OPEN_METHOD, &(amqp_channel_open_t){0});
}

unsigned amqp_channels(const struct amqp *amqp)
{
    return amqp->channel_count;
}

bool amqp_channel_begin(struct amqp *amqp, unsigned channel)
{
    if (channel < 1 || channel > amqp->channel_count) {
        wire_fail(amqp, "canal %u hors de 1…%u", channel, amqp->channel_count);
        return false;
    }
    return find_open(amqp, channel) || open_channel(amqp, channel);
}

bool amqp_channel_end(struct amqp *amqp, unsigned channel)
{
    if (!find_open(amqp, channel))
        return wire_is_up(amqp);
    channel_reset(&amqp->channels[channel]);
    amqp_channel_close_t close = {.reply_code = AMQP_REPLY_SUCCESS,
                                  .reply_text = amqp_cstring_bytes("closed")};
    amqp_method_t reply;
    if (!wire_send_method(amqp, channel, AMQP_CHANNEL_CLOSE_METHOD, &close) ||
        !wire_await(amqp, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &reply))
        return false;
    /* Both sides closed at once: each answers the other. */
    if (reply.id == AMQP_CHANNEL_CLOSE_METHOD &&
        !(wire_send_close_ok(amqp, channel) &&
          wire_await(amqp, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &reply)))
        return false;
    wire_forget(amqp, channel);
    return true;
}

/* ---- queues ---- */

/* A queue.declare on the scratch channel; *ret_reply is queue.declare-ok, or a channel.close that was
 * answered. */
static bool declare(struct amqp *amqp, const char *name, bool passive, const char *queue_type,
                    amqp_method_t *ret_reply)
{
    unsigned number = scratch_channel(amqp);
    if (strlen(name) > SHORTSTR_MAX) {
        wire_fail(amqp, "nom de file d'attente trop long");
        return false;
    }
    amqp_table_entry_t entry = text_entry("x-queue-type", queue_type);
    amqp_queue_declare_t request = {.queue = to_bytes(name), .passive = passive, .durable = true};
    if (queue_type[0])
        request.arguments = (amqp_table_t){.num_entries = 1, .entries = &entry};
    /* A broker that blocks us reads nothing more, this request neither. */
    if (!wire_is_up(amqp) || amqp->blocked)
        return false;
    if (!amqp->channels[number].open && !open_channel(amqp, number))
        return false;
    if (!wire_send_method(amqp, number, AMQP_QUEUE_DECLARE_METHOD, &request) ||
        !wire_await(amqp, number, AMQP_QUEUE_DECLARE_OK_METHOD, ret_reply))
        return false;
    if (ret_reply->id != AMQP_CHANNEL_CLOSE_METHOD)
        return true;
    channel_reset(&amqp->channels[number]);
    return wire_send_close_ok(amqp, number);
}

static uint16_t refusal_code(const amqp_method_t *reply)
{
    const amqp_channel_close_t *close = reply->decoded;
    return reply->id == AMQP_CHANNEL_CLOSE_METHOD ? close->reply_code : 0;
}

bool amqp_queue_look(struct amqp *amqp, const char *name, struct amqp_queue *ret_queue)
{
    amqp_method_t reply;
    if (!declare(amqp, name, true, "", &reply))
        return false;
    uint16_t refusal = refusal_code(&reply);
    *ret_queue = (struct amqp_queue){.exists = refusal != AMQP_NOT_FOUND};
    if (!refusal) {
        const amqp_queue_declare_ok_t *found = reply.decoded;
        ret_queue->messages = found->message_count;
        ret_queue->consumers = found->consumer_count;
    }
    return true;
}

bool amqp_queue_ensure(struct amqp *amqp, const char *name, const char *queue_type)
{
    amqp_method_t reply;
    if (!declare(amqp, name, true, "", &reply))
        return false;
    if (refusal_code(&reply) != AMQP_NOT_FOUND)
        return true;
    if (!declare(amqp, name, false, queue_type, &reply))
        return false;
    uint16_t refusal = refusal_code(&reply);
    if (refusal == 0 || refusal == AMQP_PRECONDITION_FAILED) /* someone was faster, with other arguments */
        return true;
    char text[AMQP_REASON_SIZE / 2];
    bytes_to_text(text, sizeof text, ((const amqp_channel_close_t *)reply.decoded)->reply_text);
    wire_fail(amqp, "file d'attente refusée : %d %s", refusal, text);
    return false;
}

/* ---- consuming ---- */

/* One consumer a channel at a time; each has a tag of its own, so that nothing about an earlier one is taken
 * for the present one's. */
static amqp_bytes_t consumer_tag(unsigned channel, unsigned consumer, char storage[CONSUMER_TAG_SIZE])
{
    (void)snprintf(storage, CONSUMER_TAG_SIZE, "c%u.%u", channel, consumer);
    return amqp_cstring_bytes(storage);
}

static unsigned consumer_of_tag(amqp_bytes_t tag)
{
    char text[CONSUMER_TAG_SIZE];
    bytes_to_text(text, sizeof text, tag);
    const char *dot = strchr(text, '.');
    return dot ? (unsigned)strtoul(dot + 1, NULL, 10) : 0;
}

static bool send_cancel(struct amqp *amqp, unsigned channel, unsigned consumer)
{
    char tag[CONSUMER_TAG_SIZE];
    amqp_basic_cancel_t cancel = {.consumer_tag = consumer_tag(channel, consumer, tag)};
    return wire_send_method(amqp, channel, AMQP_BASIC_CANCEL_METHOD, &cancel);
}

bool amqp_consume(struct amqp *amqp, unsigned channel, const char *queue, uint16_t prefetch)
{
    struct channel *found = find_open(amqp, channel);
    if (!found)
        return false;
    if (strlen(queue) > SHORTSTR_MAX) {
        wire_fail(amqp, "nom de file d'attente trop long");
        return false;
    }
    if (found->consumer)
        return true;
    found->consumer = ++found->consumer_count;
    found->consumer_started = false;
    char tag[CONSUMER_TAG_SIZE];
    amqp_basic_qos_t qos = {.prefetch_count = prefetch};
    amqp_basic_consume_t consume = {.queue = to_bytes(queue),
                                    .consumer_tag = consumer_tag(channel, found->consumer, tag)};
    return wire_send_method(amqp, channel, AMQP_BASIC_QOS_METHOD, &qos) &&
           wire_send_method(amqp, channel, AMQP_BASIC_CONSUME_METHOD, &consume);
}

/* RabbitMQ 3.10 closes the whole connection (541) over a basic.cancel that overtakes the queue's answer to
 * the basic.consume (rabbit_channel.erl, consumer_monitor: badkey), so an early cancel waits for the
 * consume-ok. */
bool amqp_cancel(struct amqp *amqp, unsigned channel)
{
    struct channel *found = find_open(amqp, channel);
    if (!found || !found->consumer)
        return wire_is_up(amqp);
    unsigned consumer = found->consumer;
    found->consumer = 0;
    found->cancelling = true;
    return !found->consumer_started || send_cancel(amqp, channel, consumer);
}

bool amqp_may_deliver(const struct amqp *amqp, unsigned channel)
{
    const struct channel *asked = &amqp->channels[channel];
    return asked->open && (asked->consumer || asked->cancelling);
}

void consumer_has_started(struct amqp *amqp, unsigned channel, amqp_bytes_t tag)
{
    unsigned consumer = consumer_of_tag(tag);
    if (consumer == amqp->channels[channel].consumer)
        amqp->channels[channel].consumer_started = true;
    else
        (void)send_cancel(amqp, channel, consumer);
}

bool consumer_has_ended(struct amqp *amqp, unsigned channel, amqp_bytes_t tag)
{
    unsigned consumer = consumer_of_tag(tag);
    if (consumer == 0 || consumer != amqp->channels[channel].consumer)
        return false;
    amqp->channels[channel].consumer = 0;
    return true;
}

bool amqp_ack(struct amqp *amqp, unsigned channel, uint64_t tag)
{
    if (!find_open(amqp, channel))
        return wire_is_up(amqp);
    return wire_send_method(amqp, channel, AMQP_BASIC_ACK_METHOD, &(amqp_basic_ack_t){.delivery_tag = tag});
}

bool amqp_nack_drop(struct amqp *amqp, unsigned channel, uint64_t tag)
{
    if (!find_open(amqp, channel))
        return wire_is_up(amqp);
    return wire_send_method(amqp, channel, AMQP_BASIC_NACK_METHOD, &(amqp_basic_nack_t){.delivery_tag = tag});
}

/* ---- publishing ---- */

bool amqp_channel_confirms(struct amqp *amqp, unsigned channel)
{
    struct channel *found = find_open(amqp, channel);
    if (!found)
        return false;
    if (!found->confirming)
        found->published = 0;
    found->confirming = true;
    return wire_send_method(amqp, channel, AMQP_CONFIRM_SELECT_METHOD, &(amqp_confirm_select_t){0});
}

static void set_property(amqp_basic_properties_t *properties, amqp_flags_t flag, amqp_bytes_t *property,
                         const char *text)
{
    if (!text || !text[0])
        return;
    *property = amqp_cstring_bytes(text);
    properties->_flags |= flag;
}

/* Everything that could make the library refuse a frame is refused here, before the first one has gone out.
 */
static bool is_sendable(const struct amqp_publication *publication)
{
    const char *const texts[] = {publication->queue,  publication->message_id,   publication->type,
                                 publication->app_id, publication->content_type, publication->correlation_id};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i] && strlen(texts[i]) > SHORTSTR_MAX)
            return false;
    }
    for (size_t i = 0; i < publication->header_count; i++) {
        if (strlen(publication->headers[i].name) > SHORTSTR_MAX)
            return false;
    }
    return publication->queue && publication->header_count <= HEADERS_MAX;
}

static bool send_header(struct amqp *amqp, unsigned channel, const struct amqp_publication *publication)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .delivery_mode = AMQP_DELIVERY_PERSISTENT};
    set_property(&properties, AMQP_BASIC_MESSAGE_ID_FLAG, &properties.message_id, publication->message_id);
    set_property(&properties, AMQP_BASIC_TYPE_FLAG, &properties.type, publication->type);
    set_property(&properties, AMQP_BASIC_APP_ID_FLAG, &properties.app_id, publication->app_id);
    set_property(&properties, AMQP_BASIC_CONTENT_TYPE_FLAG, &properties.content_type,
                 publication->content_type);
    set_property(&properties, AMQP_BASIC_CORRELATION_ID_FLAG, &properties.correlation_id,
                 publication->correlation_id);

    amqp_table_entry_t entries[HEADERS_MAX];
    char values[HEADERS_MAX][HEADER_VALUE_SIZE];
    for (size_t i = 0; i < publication->header_count; i++) {
        const char *value = publication->headers[i].value;
        (void)text_copy(values[i], HEADER_VALUE_SIZE, value ? value : "");
        entries[i] = text_entry(publication->headers[i].name, values[i]);
    }
    if (publication->header_count > 0) {
        properties.headers = (amqp_table_t){.num_entries = (int)publication->header_count,
                                            .entries = entries};
        properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    }

    amqp_frame_t frame = {.frame_type = AMQP_FRAME_HEADER, .channel = (amqp_channel_t)channel};
    frame.payload.properties.class_id = AMQP_BASIC_CLASS;
    frame.payload.properties.body_size = publication->body_len;
    frame.payload.properties.decoded = &properties;
    return wire_send(amqp, &frame);
}

static bool send_body(struct amqp *amqp, unsigned channel, const char *body, size_t len)
{
    while (len > 0) {
        size_t part = len < BODY_FRAME_MAX ? len : BODY_FRAME_MAX;
        amqp_frame_t frame = {.frame_type = AMQP_FRAME_BODY, .channel = (amqp_channel_t)channel};
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): the library's bytes are not const, and are only read */
        frame.payload.body_fragment = (amqp_bytes_t){.len = part, .bytes = (void *)(uintptr_t)body};
        if (!wire_send(amqp, &frame))
            return false;
        body += part;
        len -= part;
    }
    return true;
}

/* Not amqp_basic_publish(): where no input has come for two heartbeats, that first waits for some with no
 * end. */
bool amqp_publish(struct amqp *amqp, unsigned channel, const struct amqp_publication *publication,
                  uint64_t *ret_tag)
{
    struct channel *found = find_open(amqp, channel);
    if (!found)
        return false;
    if (!is_sendable(publication)) {
        wire_fail(amqp, "message impossible à envoyer (propriété trop longue)");
        return false;
    }
    amqp_basic_publish_t method = {.routing_key = to_bytes(publication->queue), .mandatory = true};
    if (!wire_send_method(amqp, channel, AMQP_BASIC_PUBLISH_METHOD, &method) ||
        !send_header(amqp, channel, publication) ||
        !send_body(amqp, channel, publication->body, publication->body_len))
        return false;
    if (found->confirming)
        found->published++;
    if (ret_tag)
        *ret_tag = found->published;
    return true;
}
