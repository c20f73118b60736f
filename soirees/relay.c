#include "relay_internal.h"

#include <stdlib.h>
#include <string.h>

#include "backoff.h"
#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "meters.h"

enum { BACKOFF_BASE_MS = 200, BACKOFF_MAX_MS = 30000, CONFIRM_TIMEOUT_MS = 60000 };

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
    if (!amqp_channel_begin(amqp, CHANNEL) ||
        !amqp_queue_ensure(amqp, relay->config.queue, relay->config.queue_type) ||
        !amqp_channel_confirms(amqp, CHANNEL))
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
    relay_hold(relay, now_ms);
    if (since_state(&relay->state) != STATE_CONNECTED || !amqp_is_up(amqp) || now_ms < relay->read_after_ms)
        return;
    if (relay_in_flight(relay) == 0)
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
    relay_poll(relay, now_ms);
    uint64_t first_new_tag = relay->next_tag;
    bool changed = atomic_exchange(&relay->outbox_changed, false);
    if (changed || relay->delayed_count) {
        relay_publish_delayed(relay, now_ms);
        if (changed)
            relay_publish_unsent(relay);
    }
    relay_publish_again(relay, now_ms);
    if (relay->next_tag != first_new_tag && amqp_flush(amqp)) /* as the turn's end would */
        FAILPOINT("relay.publish.after");
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
