#include "relay.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backoff.h"
#include "cleanup.h"
#include "failpoint.h"
#include "log.h"
#include "marks.h"
#include "mem.h"
#include "meters.h"
#include "since.h"

enum {
    CHANNEL = 1,
    WINDOW = MARKS_MAX, /* published and not yet settled */
    READ_MAX = 64,      /* rows read at a time */
    DELAYED_MAX = 1024,
    BACKOFF_BASE_MS = 200,
    BACKOFF_MAX_MS = 30000,
    AGAIN_LOOK_MIN_MS = 20, /* between two looks for a request to send again */
    AGAIN_LOOK_MAX_MS = 2000,
    CONFIRM_TIMEOUT_MS = 60000,
    CLOCK_SLACK_MS = 1000, /* two readings of two clocks, and the clock's steering */
};

/* A message on its way, at index tag % WINDOW. */
struct flight {
    int64_t seq;
    char message_id[UUID_SIZE], traceparent[TRACEPARENT_SIZE];
    char soiree_id[sizeof((struct outbox_row *)0)->soiree_id];
    bool returned, again;
    unsigned failures;
};

/* A row that was returned or nacked. */
struct delayed {
    int64_t seq, due_ms; /* monotonic */
    unsigned failures;
};

enum state { STATE_DISCONNECTED, STATE_CONNECTED, STATE_BLOCKED };

struct relay {
    struct store *store;
    struct relay_config config;
    struct amqp *amqp;
    pthread_t thread;
    bool running;
    struct since state; /* enum state */

    /* The relay's thread alone. */
    struct flight flights[WINDOW];
    uint64_t first_tag, next_tag; /* in flight: [first_tag, next_tag) */
    int64_t settled_ms;           /* monotonic: when nothing was on its way, or a confirm came */
    int64_t cursor;               /* the last row read; more may be behind it */
    struct delayed delayed[DELAYED_MAX];
    size_t delayed_count;
    bool queue_doubtful;    /* a return: the queue may be gone */
    bool failing;           /* the last try to connect failed: log no more of them */
    int64_t again_look_ms;  /* monotonic: when to look for one again */
    int64_t again_pause_ms; /* until the look after that one */
    int64_t wall_offset_ms; /* wall clock less the monotonic one, at the last look */
    int64_t read_after_ms;  /* monotonic: no reading before, after an error */
    struct marks marks;

    atomic_bool outbox_changed;
};

/* ---- publishing ---- */

static size_t in_flight(const struct relay *relay)
{
    return (size_t)(relay->next_tag - relay->first_tag);
}

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
    FAILPOINT("relay.publish.after");
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
    size_t used = in_flight(relay) + marks_waiting(&relay->marks);
    return used < WINDOW ? WINDOW - used : 0;
}

/* Room in the window, and for what it may come back as. */
static size_t room(const struct relay *relay)
{
    size_t kept = relay->delayed_count + in_flight(relay);
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

static void publish_unsent(struct relay *relay)
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
            more = more && publish(relay, &rows[i], 0, false);
            if (more)
                relay->cursor = rows[i].seq;
            free(rows[i].body);
        }
        if (!more || count < max)
            return;
    }
    atomic_store(&relay->outbox_changed, true); /* the window is full: go on when it has room */
}

static void publish_delayed(struct relay *relay, int64_t now_ms)
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
static void publish_again(struct relay *relay, int64_t now_ms)
{
    bool unmarked = marks_unfinished(&relay->marks); /* the store may still show one as due */
    if (!atomic_load(relay->config.again_after_ms) || in_flight(relay) > 0 || unmarked || room(relay) == 0 ||
        now_ms < relay->again_look_ms)
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
        queue.consumers > 0)
        (void)publish(relay, &row, 0, true);
    free(row.body);
}

/* ---- what the broker answers ---- */

static void delay(struct relay *relay, const struct flight *flight)
{
    relay->delayed[relay->delayed_count++] = (struct delayed){
        .seq = flight->seq,
        .due_ms = clock_mono_ms() + backoff_ms(flight->failures, BACKOFF_BASE_MS, BACKOFF_MAX_MS),
        .failures = flight->failures + 1,
    };
}

static void settle(struct relay *relay, uint64_t tag, bool ack)
{
    struct flight *flight = &relay->flights[tag % WINDOW];
    if (flight->seq == 0)
        return;
    bool sent = ack && !flight->returned;
    metrics_count(&meters_publishes, sent ? PUBLISH_CONFIRMED : ack ? PUBLISH_RETURNED : PUBLISH_NACKED);
    FAILPOINT("relay.confirmed");
    if (flight->again && sent) {
        relay->again_look_ms = 0;
        relay->again_pause_ms = AGAIN_LOOK_MIN_MS;
    }
    if (sent) {
        marks_add(&relay->marks, flight->seq, relay->settled_ms, flight->again);
        meters_confirmed(flight->message_id, flight->again);
        log_event(LOG_INFO, "message.confirmed",
                  LOG_FIELDS(LOG_TEXT("soireeId", flight->soiree_id),
                             LOG_TEXT("requestId", flight->message_id), LOG_TRACE(flight->traceparent)),
                  "📨 Message publié pour soirée %s", flight->soiree_id);
    } else if (!flight->again) { /* one sent again is due again anyway */
        delay(relay, flight);
    }
    flight->seq = 0;
}

static void on_confirm(struct amqp *amqp, void *arg, unsigned channel, uint64_t tag, bool multiple, bool ack)
{
    struct relay *relay = arg;
    (void)amqp;
    (void)channel;
    if (tag < relay->first_tag || tag >= relay->next_tag)
        return;
    relay->settled_ms = clock_mono_ms();
    log_hold(); /* until the turn's end */
    for (uint64_t t = multiple ? relay->first_tag : tag; t <= tag; t++)
        settle(relay, t, ack);
    while (relay->first_tag < relay->next_tag && relay->flights[relay->first_tag % WINDOW].seq == 0)
        relay->first_tag++;
}

static void on_returned(struct amqp *amqp, void *arg, unsigned channel, const char *message_id, int code,
                        const char *text)
{
    struct relay *relay = arg;
    (void)amqp;
    (void)channel;
    for (uint64_t t = relay->first_tag; t < relay->next_tag; t++) {
        struct flight *flight = &relay->flights[t % WINDOW];
        if (flight->seq == 0 || flight->returned || strcmp(flight->message_id, message_id) != 0)
            continue;
        flight->returned = true;
        if (!relay->queue_doubtful)
            log_event(LOG_REPEATED(LOG_WARN), "message.returned",
                      LOG_FIELDS(LOG_TEXT("soireeId", flight->soiree_id), LOG_TEXT("requestId", message_id),
                                 LOG_TRACE(flight->traceparent), LOG_NUMBER("code", code)),
                      "⚠️ Message non routé pour soirée %s (%d %s), il sera renvoyé",
                      flight->soiree_id, code, text);
        relay->queue_doubtful = true;
        return;
    }
}

/* ---- the connection ---- */

static void forget_flights(struct relay *relay)
{
    memset(relay->flights, 0, sizeof relay->flights);
    relay->first_tag = relay->next_tag = 1;
    relay->delayed_count = 0;
    relay->cursor =
        0; /* whatever is unsent is read again; what was confirmed and is not marked yet is sent twice */
    relay->again_pause_ms = AGAIN_LOOK_MAX_MS;
    relay->queue_doubtful = false;
    relay->settled_ms = clock_mono_ms();
}

static bool on_up(struct amqp *amqp, void *arg)
{
    struct relay *relay = arg;
    forget_flights(relay);
    if (!amqp_channel_open(amqp, CHANNEL) ||
        !amqp_queue_ensure(amqp, relay->config.queue, relay->config.queue_type) ||
        !amqp_confirm_select(amqp, CHANNEL))
        return false;
    since_set(&relay->state, STATE_CONNECTED);
    atomic_store(&relay->outbox_changed, true);
    relay->failing = false;
    log_event(LOG_REPEATED(LOG_INFO), "amqp.connected", LOG_FIELDS(LOG_TEXT("url", amqp_url_shown(amqp))),
              "✅ Connecté à RabbitMQ");
    return true;
}

static void on_down(struct amqp *amqp, void *arg, const char *reason, bool was_up)
{
    struct relay *relay = arg;
    forget_flights(relay);
    since_set(&relay->state, STATE_DISCONNECTED);
    if (was_up || !relay->failing)
        log_event(LOG_REPEATED(LOG_ERROR), was_up ? "amqp.lost" : "amqp.unreachable",
                  LOG_FIELDS(LOG_TEXT("url", amqp_url_shown(amqp)), LOG_TEXT("reason", reason)),
                  "❌ Erreur connexion RabbitMQ: %s", reason);
    relay->failing = true;
}

static void on_channel_closed(struct amqp *amqp, void *arg, unsigned channel, int code, const char *text)
{
    (void)arg;
    (void)channel;
    log_event(LOG_REPEATED(LOG_WARN), "amqp.channel_closed", LOG_FIELDS(LOG_NUMBER("code", code)),
              "⚠️ Canal fermé par RabbitMQ (%d %s)", code, text);
    amqp_drop(amqp, "canal fermé"); /* the tags are void: the simplest fresh start */
}

static void on_blocked(struct amqp *amqp, void *arg, bool blocked, const char *reason)
{
    struct relay *relay = arg;
    (void)amqp;
    since_set(&relay->state, blocked ? STATE_BLOCKED : STATE_CONNECTED);
    relay->settled_ms = clock_mono_ms(); /* while it is blocked no confirm is due */
    if (blocked)
        log_event(LOG_REPEATED(LOG_WARN), "amqp.blocked", LOG_FIELDS(LOG_TEXT("reason", reason)),
                  "⚠️ RabbitMQ n'accepte plus de messages : %s", reason);
    else
        log_event(LOG_REPEATED(LOG_INFO), "amqp.unblocked", NULL,
                  "✅ RabbitMQ accepte de nouveau les messages");
    atomic_store(&relay->outbox_changed, true);
}

/* ---- turns ---- */

static void on_tick(struct amqp *amqp, void *arg)
{
    struct relay *relay = arg;
    int64_t now_ms = clock_mono_ms();
    log_release();
    amqp_tick_in(amqp, marks_turn(&relay->marks, now_ms));
    if (since_state(&relay->state) != STATE_CONNECTED || !amqp_is_up(amqp) || now_ms < relay->read_after_ms)
        return;
    if (in_flight(relay) == 0)
        relay->settled_ms = now_ms;
    if (now_ms - relay->settled_ms > CONFIRM_TIMEOUT_MS) {
        amqp_drop(amqp, "aucune confirmation"); /* everything is sent again, with the same ids */
        return;
    }
    if (relay->queue_doubtful) {
        relay->queue_doubtful = false;
        if (!amqp_queue_ensure(amqp, relay->config.queue, relay->config.queue_type))
            return;
    }
    bool changed = atomic_exchange(&relay->outbox_changed, false);
    if (changed || relay->delayed_count) {
        publish_delayed(relay, now_ms);
        if (changed)
            publish_unsent(relay);
    }
    publish_again(relay, now_ms);
    if (relay->again_look_ms > now_ms)
        amqp_tick_in(amqp, relay->again_look_ms - now_ms);
}

/* ---- life ---- */

static void wake(void *arg)
{
    struct relay *relay = arg;
    if (!atomic_exchange(&relay->outbox_changed, true)) /* else it is awake, or has no use for more */
        amqp_wake(relay->amqp);
}

static void next_turn(void *arg)
{
    struct relay *relay = arg;
    amqp_wake(relay->amqp);
}

static void *relay_main(void *arg)
{
    struct relay *relay = arg;
    amqp_run(relay->amqp);
    log_release();
    marks_end(&relay->marks);
    return NULL;
}

enum status relay_new(struct relay **ret_relay, struct store *store, const struct relay_config *config,
                      struct err *err)
{
    static const struct amqp_handlers handlers = {
        .up = on_up,
        .down = on_down,
        .confirm = on_confirm,
        .returned = on_returned,
        .channel_closed = on_channel_closed,
        .blocked = on_blocked,
        .tick = on_tick,
    };
    struct relay *relay = mem_new(sizeof *relay);
    relay->store = store;
    relay->config = *config;
    since_set(&relay->state, STATE_DISCONNECTED);
    relay->first_tag = relay->next_tag = 1;
    marks_init(&relay->marks, store, next_turn, relay);
    relay->wall_offset_ms = INT64_MAX; /* it may have been put back before the start */
    enum status status = amqp_new(&relay->amqp, &config->amqp, &handlers, relay, err);
    if (status != STATUS_OK) {
        free(relay);
        return status;
    }
    store_on_outbox(store, wake, relay);
    *ret_relay = relay;
    return STATUS_OK;
}

enum status relay_start(struct relay *relay, struct err *err)
{
    int failed = pthread_create(&relay->thread, NULL, relay_main, relay);
    relay->running = failed == 0;
    return failed ? err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed)) : STATUS_OK;
}

void relay_stop(struct relay *relay)
{
    if (!relay || !relay->running)
        return;
    amqp_stop(relay->amqp);
    pthread_join(relay->thread, NULL);
}

void relay_free(struct relay *relay)
{
    if (!relay)
        return;
    amqp_free(relay->amqp);
    free(relay);
}

const char *const relay_states[] = {"disconnected", "connected", "blocked", NULL};

const char *relay_state(struct relay *relay, int64_t *ret_since_ms)
{
    *ret_since_ms = since_ms(&relay->state);
    return relay_states[since_state(&relay->state)];
}
