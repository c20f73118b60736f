/* What the relay publishes, and when. */
#include "relay_internal.h"

#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "mem.h"

enum {
    READ_MAX = 64,         /* rows read at a time */
    CLOCK_SLACK_MS = 1000, /* two readings of two clocks, and the clock's steering */
    HELD_MAX = WINDOW + DELAYED_MAX + MARKS_UNFINISHED_MAX,
};

static bool publish(struct relay *relay, const struct outbox_row *row, unsigned failures, bool again)
{
    struct amqp_header headers[] = {{"traceparent", row->traceparent}};
    struct amqp_publication publication = {
        .queue = relay->config.queue,
        .message_id = row->message_id,
        .type = "soiree.reservee",
        .app_id = relay->config.app_id,
        .content_type = "application/json",
        .headers = headers,
        .header_count = 1,
        .body = row->body,
        .body_len = strlen(row->body),
    };
    uint64_t tag = 0;
    FAILPOINT("relay.publish.before");
    if (!amqp_publish(relay->amqp, CHANNEL, &publication, &tag))
        return false;
    struct flight *flight = &relay->flights[tag % WINDOW];
    *flight = (struct flight){.seq = row->seq, .failures = failures, .again = again};
    (void)text_copy(flight->message_id, sizeof flight->message_id, row->message_id);
    (void)text_copy(flight->soiree_id, sizeof flight->soiree_id, row->soiree_id);
    (void)text_copy(flight->traceparent, sizeof flight->traceparent, row->traceparent);
    relay->next_tag = tag + 1;
    return true;
}

static size_t window_room(const struct relay *relay)
{
    size_t used = relay_in_flight(relay) + marks_waiting(&relay->marks);
    return used < WINDOW ? WINDOW - used : 0;
}

/* Room in the window, and for what it may come back as. */
static size_t room(const struct relay *relay)
{
    size_t kept = relay->delayed_count + relay_in_flight(relay);
    size_t window = window_room(relay), back = kept < DELAYED_MAX ? DELAYED_MAX - kept : 0;
    return window < back ? window : back;
}

static void store_failed(struct relay *relay, const struct err *err)
{
    log_event(LOG_REPEATED(LOG_WARN), "outbox.unreadable", LOG_FIELDS(LOG_TEXT("reason", err->text)),
              "⚠️ Boîte d'envoi illisible : %s", err->text);
    relay->read_after_ms = clock_mono_ms() + 1000;
    atomic_store(&relay->outbox_changed, true);
}

/* What this relay has not done with, at most HELD_MAX; the number of them. */
static size_t list_held(const struct relay *relay, int64_t *ret_seqs)
{
    size_t count = 0;
    for (uint64_t tag = relay->first_tag; tag < relay->next_tag; tag++)
        if (relay->flights[tag % WINDOW].seq)
            ret_seqs[count++] = relay->flights[tag % WINDOW].seq;
    for (size_t i = 0; i < relay->delayed_count; i++)
        ret_seqs[count++] = relay->delayed[i].seq;
    return count + marks_list(&relay->marks, ret_seqs + count);
}

/* A lease that could not be prolonged in time has given back a row that is still on its way. */
static bool is_held(const struct relay *relay, int64_t seq)
{
    int64_t held[HELD_MAX];
    size_t count = list_held(relay, held);
    for (size_t i = 0; i < count; i++)
        if (held[i] == seq)
            return true;
    return false;
}

void relay_hold(struct relay *relay, int64_t now_ms)
{
    int64_t held[HELD_MAX];
    if (now_ms < relay->held_ms)
        return;
    size_t count = list_held(relay, held);
    relay->held_ms = now_ms + STORE_LEASE_MS / 3;
    if (count)
        store_outbox_hold(relay->store, held, count);
}

void relay_poll(struct relay *relay, int64_t now_ms)
{
    int64_t pause_ms = store_outbox_poll_ms(relay->store);
    if (pause_ms == 0)
        return;
    if (now_ms >= relay->poll_ms) {
        relay->poll_ms = now_ms + pause_ms;
        atomic_store(&relay->outbox_changed, true);
    }
    amqp_tick_in(relay->amqp, relay->poll_ms - now_ms);
}

void relay_publish_unsent(struct relay *relay)
{
    while (room(relay) > 0) {
        struct outbox_row rows[READ_MAX];
        struct err err = {0};
        size_t count = 0, max = room(relay) < READ_MAX ? room(relay) : READ_MAX;
        bool more = true;
        if (store_outbox_unsent(relay->store, relay->cursor, max, rows, &count, &err) != STATUS_OK) {
            store_failed(relay, &err);
            more = false;
        }
        for (size_t i = 0; i < count; i++) {
            bool again = rows[i].seq <= relay->cursor && is_held(relay, rows[i].seq);
            more = more && (again || publish(relay, &rows[i], 0, false));
            if (more && rows[i].seq > relay->cursor)
                relay->cursor = rows[i].seq;
            free(rows[i].body);
        }
        if (!more || count < max)
            return;
    }
    atomic_store(&relay->outbox_changed, true); /* the window is full: go on when it has room */
}

void relay_publish_delayed(struct relay *relay, int64_t now_ms)
{
    for (size_t i = 0; i < relay->delayed_count && window_room(relay) > 0;) {
        struct delayed delayed = relay->delayed[i];
        if (delayed.due_ms > now_ms) {
            i++;
            continue;
        }
        struct outbox_row row;
        struct err err = {0};
        enum status status = store_outbox_get(relay->store, delayed.seq, &row, &err);
        if (status == STATUS_OK) {
            bool sent = publish(relay, &row, delayed.failures, false);
            free(row.body);
            if (!sent)
                return;
        } else if (status != STATUS_NOT_FOUND) {
            store_failed(relay, &err);
            return;
        }
        relay->delayed[i] = relay->delayed[--relay->delayed_count];
    }
}

/* The times in the outbox are of the wall clock, which may be put back, also while this service is down. */
static void watch_clock(struct relay *relay, int64_t now_ms)
{
    int64_t offset_ms = clock_wall_ms() - now_ms;
    if (offset_ms < relay->wall_offset_ms - CLOCK_SLACK_MS)
        marks_mend(&relay->marks); /* times in the outbox */
    relay->wall_offset_ms = offset_ms;
}

/* A request that nobody answered is sent again, one at a time, while the queue is seen empty with somebody
 * listening: then it is not merely waiting its turn. Not while a confirm is due: under an alarm the broker
 * reads nothing more from who has published, and a look would wait in vain. */
void relay_publish_again(struct relay *relay, int64_t now_ms)
{
    bool unmarked = marks_unfinished(&relay->marks); /* the store may still show one as due */
    if (!atomic_load(relay->config.again_after_ms) || relay_in_flight(relay) > 0 || unmarked ||
        room(relay) == 0 || now_ms < relay->again_look_ms)
        return;
    relay->again_look_ms = now_ms + AGAIN_LOOK_MAX_MS;
    watch_clock(relay, now_ms);
    struct outbox_row row;
    struct amqp_queue queue = {0};
    if (store_outbox_due(relay->store, clock_wall_ms(), &row, NULL) != STATUS_OK)
        return;
    /* What was sent last may be on its way to a consumer still: soon, where a whole queue was purged. */
    relay->again_look_ms = now_ms + relay->again_pause_ms;
    relay->again_pause_ms = relay->again_pause_ms < AGAIN_LOOK_MAX_MS / 2 ? relay->again_pause_ms * 2
                                                                          : AGAIN_LOOK_MAX_MS;
    if (amqp_queue_look(relay->amqp, relay->config.queue, &queue) && queue.exists && queue.messages == 0 &&
        queue.consumers > 0 && store_outbox_take(relay->store, row.seq, NULL) == STATUS_OK)
        (void)publish(relay, &row, 0, true);
    free(row.body);
}
