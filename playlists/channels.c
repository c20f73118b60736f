#include "channels.h"

#include <stdlib.h>

#include "backoff.h"
#include "ids.h"
#include "log.h"
#include "mem.h"

enum {
    REOPEN_BASE_MS = 500,
    REOPEN_MAX_MS = 30000,
    CLOSES_PER_TICK = 16, /* each waits for its answer: the others get their turn in between */
};

struct channel {
    enum { CLOSED, CONSUMING, ENDING } state; /* ENDING: cancelled, what came is not settled yet */
    uint64_t incarnation;
    unsigned unsettled; /* deliveries */
    unsigned failures;
    int64_t reopen_ms; /* monotonic; CLOSED */
};

struct channels {
    const char *queue, *queue_type;
    unsigned first, max;
    unsigned count; /* as asked for */
    unsigned used;  /* from here on all are closed, and not asked for */
    unsigned named; /* the count of which the log has said that it is too much; 0 = none on this connection */
    uint64_t incarnations;
    bool doubtful; /* the queue may be gone */
    struct channel items[];
};

struct channels *channels_new(const char *queue, const char *queue_type, unsigned first, unsigned max)
{
    struct channels *channels = mem_new(sizeof *channels + max * sizeof *channels->items);
    channels->queue = queue;
    channels->queue_type = queue_type;
    channels->first = first;
    channels->max = max;
    return channels;
}

void channels_free(struct channels *channels)
{
    free(channels);
}

void channels_resize(struct channels *channels, unsigned count)
{
    channels->count = count < channels->max ? count : channels->max;
    if (channels->used < channels->count)
        channels->used = channels->count;
}

static struct channel *find(struct channels *channels, unsigned number)
{
    return &channels->items[number - channels->first];
}

/* As many as the broker lets us open; says so once where those are fewer. */
static unsigned possible(struct channels *channels, const struct amqp *amqp)
{
    unsigned room = amqp_channels(amqp) - channels->first + 1;
    if (channels->count <= room)
        return channels->count;
    if (channels->named != channels->count)
        log_event(LOG_REPEATED(LOG_WARN), "worker.limited", LOG_FIELDS(LOG_NUMBER("workers", room)),
                  "⚠️ RabbitMQ n'ouvre que %u canaux : %u workers au lieu de %u", amqp_channels(amqp) + 1,
                  room, channels->count);
    channels->named = channels->count;
    return room;
}

/* ---- opening and closing ---- */

static void void_deliveries(struct channels *channels, struct channel *channel)
{
    channel->incarnation = ++channels->incarnations;
    channel->unsettled = 0;
}

static bool open_one(struct channels *channels, struct amqp *amqp, unsigned index)
{
    struct channel *channel = &channels->items[index];
    unsigned number = channels->first + index;
    void_deliveries(channels, channel);
    channel->state = CONSUMING;
    return amqp_channel_begin(amqp, number) && amqp_consume(amqp, number, channels->queue, 1);
}

bool channels_up(struct channels *channels, struct amqp *amqp)
{
    unsigned count = possible(channels, amqp);
    channels->doubtful = false;
    for (unsigned i = 0; i < count; i++)
        if (!open_one(channels, amqp, i))
            return false;
    return true;
}

void channels_down(struct channels *channels)
{
    channels->named = 0;
    for (unsigned i = 0; i < channels->used; i++) {
        struct channel *channel = &channels->items[i];
        void_deliveries(channels, channel);
        channel->state = CLOSED;
        channel->failures = 0;
        channel->reopen_ms = 0;
    }
}

static bool reopen(struct channels *channels, struct amqp *amqp, unsigned index)
{
    if (channels->doubtful && !amqp_queue_ensure(amqp, channels->queue, channels->queue_type))
        return false;
    channels->doubtful = false;
    return open_one(channels, amqp, index);
}

/* Nothing more can come, and nothing is left to be settled. While the broker is blocked it answers nothing,
 * so then the channel stays. */
static bool may_close(const struct channels *channels, const struct amqp *amqp, unsigned index)
{
    return channels->items[index].unsettled == 0 && !amqp_is_blocked(amqp) &&
           !amqp_may_deliver(amqp, channels->first + index);
}

static bool close_one(struct channels *channels, struct amqp *amqp, unsigned index)
{
    struct channel *channel = &channels->items[index];
    void_deliveries(channels, channel);
    channel->state = CLOSED;
    channel->failures = 0;
    channel->reopen_ms = 0;
    return amqp_channel_end(amqp, channels->first + index);
}

void channels_tick(struct channels *channels, struct amqp *amqp)
{
    int64_t now_ms = clock_mono_ms();
    unsigned count = possible(channels, amqp), used = channels->count, closes = 0;
    bool up = true;
    for (unsigned i = 0; up && i < channels->used; i++) {
        struct channel *channel = &channels->items[i];
        if (channel->state == CONSUMING && i >= count) {
            channel->state = ENDING;
            up = amqp_cancel(amqp, channels->first + i);
        }
        if (up && channel->state == ENDING && may_close(channels, amqp, i)) {
            if (closes++ < CLOSES_PER_TICK)
                up = close_one(channels, amqp, i);
            else
                amqp_tick_in(amqp, 0);
        }
        if (up && channel->state == CLOSED && i < count && now_ms >= channel->reopen_ms)
            up = reopen(channels, amqp, i);
        if (channel->state != CLOSED && i >= used)
            used = i + 1;
    }
    if (up)
        channels->used = used;
}

void channels_cancel(struct channels *channels, struct amqp *amqp)
{
    for (unsigned i = 0; i < channels->used; i++)
        if (channels->items[i].state == CONSUMING && !amqp_cancel(amqp, channels->first + i))
            return;
}

/* ---- deliveries ---- */

bool channels_own(const struct channels *channels, unsigned number)
{
    return number >= channels->first && number < channels->first + channels->max;
}

uint64_t channels_took(struct channels *channels, unsigned number)
{
    struct channel *channel = find(channels, number);
    channel->unsettled++;
    return channel->incarnation;
}

bool channels_valid(const struct channels *channels, unsigned number, uint64_t incarnation)
{
    return channels->items[number - channels->first].incarnation == incarnation;
}

void channels_settled(struct channels *channels, unsigned number)
{
    struct channel *channel = find(channels, number);
    channel->unsettled -= channel->unsettled > 0;
    channel->failures = 0;
}

void channels_lost(struct channels *channels, unsigned number, bool doubtful)
{
    struct channel *channel = find(channels, number);
    void_deliveries(channels, channel);
    channel->state = CLOSED;
    channel->reopen_ms = clock_mono_ms() + backoff_ms(channel->failures++, REOPEN_BASE_MS, REOPEN_MAX_MS);
    channels->doubtful = channels->doubtful || doubtful;
}

bool channels_doubt(const struct channels *channels)
{
    return channels->doubtful;
}
