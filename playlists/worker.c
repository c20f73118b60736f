#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "channels.h"
#include "cleanup.h"
#include "dead_letters.h"
#include "failpoint.h"
#include "in_progress.h"
#include "log.h"
#include "mem.h"
#include "meters.h"
#include "since.h"

enum { ACTIVE_PER_WORKER = 2, CHANNEL_DEAD = 1, CHANNEL_FIRST = 2, CHANNELS_LEAST = 2 };

enum state { STATE_DISCONNECTED, STATE_CONSUMING, STATE_BLOCKED, STATE_STOPPING };

struct worker {
    struct worker_config config;
    const struct delivery_means *means;
    struct amqp *amqp;
    pthread_t thread;
    bool running;
    struct since state; /* enum state */
    atomic_bool stopping;
    atomic_uint workers;

    /* The worker's thread alone. */
    struct channels *channels;
    struct dead_letters *dead;
    struct in_progress *deliveries;
    bool failing; /* the last try to connect failed: log no more of them */
    bool cancelled;
};

/* ---- deliveries that have ended ---- */

static bool is_stale(void *arg, const struct delivery *delivery)
{
    const struct worker *worker = arg;
    return !channels_valid(worker->channels, delivery->channel, delivery->incarnation);
}

static void on_ended(void *arg, struct delivery *delivery)
{
    struct worker *worker = arg;
    FAILPOINT("worker.ack.before");
    delivery->acked = amqp_is_up(worker->amqp) && !is_stale(worker, delivery) &&
                      amqp_ack(worker->amqp, delivery->channel, delivery->tag);
    if (delivery->acked)
        channels_settled(worker->channels, delivery->channel);
}

/* The acks do not wait for the lines about them. */
static void on_all_ended(void *arg)
{
    struct worker *worker = arg;
    (void)amqp_flush(worker->amqp);
    FAILPOINT("worker.ack.after");
}

static void on_over(void *arg, struct delivery *delivery)
{
    (void)arg;
    metrics_count(&meters_deliveries, delivery->acked ? DELIVERY_ACKED : DELIVERY_VOID);
    if (delivery->acked)
        metrics_observe(&meters_delivery_durations, 0, (clock_mono_ms() - delivery->received_ms) * 1000);
    log_event(LOG_INFO, "message.done",
              LOG_FIELDS(LOG_TEXT("soireeId", delivery->message.soiree_id),
                         LOG_TEXT("requestId", delivery->message_id), LOG_TRACE(delivery->traceparent),
                         LOG_NUMBER("durationMs", clock_mono_ms() - delivery->received_ms)),
              "✅ Message traité avec succès\n");
}

/* Not by a nack, which would count against the message on a quorum queue. */
static void on_overdue(void *arg, struct delivery *delivery)
{
    struct worker *worker = arg;
    if (amqp_is_up(worker->amqp))
        (void)amqp_channel_end(worker->amqp, delivery->channel);
    channels_lost(worker->channels, delivery->channel, false);
    metrics_count(&meters_deliveries, DELIVERY_OVERDUE);
}

static void settle(struct worker *worker)
{
    static const struct in_progress_handlers handlers = {on_ended, on_all_ended, on_over, on_overdue,
                                                         is_stale};
    in_progress_settle(worker->deliveries, &handlers, worker);
}

/* ---- messages ---- */

static bool printable(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

static struct delivery *new_delivery(struct worker *worker, const struct amqp_message *message)
{
    struct delivery *delivery = mem_new(sizeof *delivery);
    bool ours = strcmp(message->type, "soiree.reservee") == 0 && printable(message->message_id);
    delivery->channel = message->channel;
    delivery->tag = message->delivery_tag;
    delivery->incarnation = channels_took(worker->channels, message->channel);
    delivery->received_ms = clock_mono_ms();
    delivery->redelivered = message->redelivered;
    if (utf8_valid(message->message_id, strlen(message->message_id)))
        (void)text_copy(delivery->message_id, sizeof delivery->message_id, message->message_id);
    (void)text_copy(delivery->request_id, sizeof delivery->request_id, ours ? message->message_id : "");
    traceparent_continue(message->traceparent, delivery->traceparent);
    return delivery;
}

static void log_received(const struct delivery *delivery, bool redelivered)
{
    const struct message *message = &delivery->message;
    log_event(LOG_INFO, "message.received",
              LOG_FIELDS(LOG_TEXT("soireeId", message->soiree_id),
                         LOG_TEXT("requestId", delivery->message_id), LOG_TEXT("style", message->style),
                         LOG_TEXT("clientId", message->client_id), LOG_TRACE(delivery->traceparent),
                         LOG_NUMBER("redelivered", redelivered)),
              "\n📩 Message reçu pour soirée %s\n   Style: %s\n   Client: %s\n   Timestamp: %s\n",
              message->soiree_id, message->style, message->client_id, message->timestamp);
}

static void on_delivery(struct amqp *amqp, void *arg, const struct amqp_message *message)
{
    struct worker *worker = arg;
    struct err err = {0};
    if (atomic_load(&worker->stopping) || !channels_own(worker->channels, message->channel))
        return; /* left unacked */
    struct delivery *delivery = new_delivery(worker, message);
    if (message_decode(message->body, message->body_len, message->body_size, &delivery->message, &err) !=
        STATUS_OK) {
        dead_letters_add(worker->dead, amqp, message, delivery->incarnation, err.text);
        metrics_count(&meters_deliveries, DELIVERY_DEAD);
        delivery_free(delivery);
        return;
    }
    /* Not under an alarm: RabbitMQ would read nothing more from this connection, the acks neither. */
    if (since_state(&worker->state) == STATE_CONSUMING &&
        dead_letters_renew(worker->dead, amqp, message, delivery->incarnation)) {
        metrics_count(&meters_deliveries, DELIVERY_RENEWED);
        delivery_free(delivery);
        return;
    }
    log_received(delivery, message->redelivered);
    FAILPOINT("worker.received");
    in_progress_add(worker->deliveries, delivery);
}

/* A copy is safe. */
static void settle_copied(void *arg, const struct dead_letters_settled *settled)
{
    struct worker *worker = arg;
    if (!channels_valid(worker->channels, settled->channel, settled->incarnation))
        return;
    if (settled->dead)
        (void)amqp_nack_drop(worker->amqp, settled->channel, settled->tag);
    else
        (void)amqp_ack(worker->amqp, settled->channel, settled->tag);
    channels_settled(worker->channels, settled->channel);
}

/* ---- the connection and its channels ---- */

static unsigned take_size(struct worker *worker)
{
    unsigned workers = atomic_load(&worker->workers);
    channels_resize(worker->channels, workers);
    in_progress_limit(worker->deliveries, ACTIVE_PER_WORKER * workers);
    return workers;
}

static bool on_up(struct amqp *amqp, void *arg)
{
    struct worker *worker = arg;
    unsigned workers = take_size(worker);
    if (!amqp_queue_ensure(amqp, worker->config.queue, worker->config.queue_type) ||
        !dead_letters_up(worker->dead, amqp) || !channels_up(worker->channels, amqp))
        return false;
    worker->failing = false;
    if (!atomic_load(&worker->stopping))
        since_set(&worker->state, STATE_CONSUMING);
    log_event(LOG_REPEATED(LOG_INFO), "worker.consuming",
              LOG_FIELDS(LOG_TEXT("url", amqp_url_shown(amqp)), LOG_NUMBER("workers", workers)),
              "✅ Worker connecté et en écoute sur la queue: %s\n⏳ En attente de messages...",
              worker->config.queue);
    return true;
}

static void on_down(struct amqp *amqp, void *arg, const char *reason, bool was_up)
{
    struct worker *worker = arg;
    channels_down(worker->channels);
    dead_letters_down(worker->dead);
    settle(worker);
    if (!atomic_load(&worker->stopping))
        since_set(&worker->state, STATE_DISCONNECTED);
    if (was_up || !worker->failing)
        log_event(LOG_REPEATED(LOG_ERROR), was_up ? "amqp.lost" : "amqp.unreachable",
                  LOG_FIELDS(LOG_TEXT("url", amqp_url_shown(amqp)), LOG_TEXT("reason", reason)),
                  "❌ Erreur connexion RabbitMQ: %s\n🔄 Tentative de reconnexion...", reason);
    worker->failing = true;
}

static void on_channel_closed(struct amqp *amqp, void *arg, unsigned number, int code, const char *text)
{
    struct worker *worker = arg;
    log_event(LOG_REPEATED(LOG_WARN), "amqp.channel_closed",
              LOG_FIELDS(LOG_NUMBER("channel", number), LOG_NUMBER("code", code)),
              "⚠️ Canal %u fermé par RabbitMQ (%d %s)", number, code, text);
    if (number == CHANNEL_DEAD) {
        amqp_drop(amqp, "canal fermé");
        return;
    }
    dead_letters_forget(worker->dead, number);
    channels_lost(worker->channels, number, code == 404);
}

static void on_cancelled(struct amqp *amqp, void *arg, unsigned number)
{
    struct worker *worker = arg;
    if (number == CHANNEL_DEAD)
        return;
    if (!channels_doubt(worker->channels))
        log_event(LOG_REPEATED(LOG_WARN), "worker.cancelled", NULL,
                  "⚠️ Queue %s supprimée, elle sera déclarée de nouveau", worker->config.queue);
    (void)amqp_channel_end(amqp, number);
    channels_lost(worker->channels, number, true);
}

static void on_confirm(struct amqp *amqp, void *arg, unsigned channel, uint64_t tag, bool multiple, bool ack)
{
    struct worker *worker = arg;
    (void)amqp;
    (void)channel;
    dead_letters_confirm(worker->dead, tag, multiple, ack);
}

static void on_returned(struct amqp *amqp, void *arg, unsigned channel, const char *message_id, int code,
                        const char *text)
{
    struct worker *worker = arg;
    (void)amqp;
    (void)channel;
    (void)message_id;
    (void)text;
    dead_letters_returned(worker->dead, code);
}

static void on_blocked(struct amqp *amqp, void *arg, bool blocked, const char *reason)
{
    struct worker *worker = arg;
    (void)amqp;
    if (!atomic_load(&worker->stopping))
        since_set(&worker->state, blocked ? STATE_BLOCKED : STATE_CONSUMING);
    if (blocked)
        log_event(LOG_REPEATED(LOG_WARN), "amqp.blocked", LOG_FIELDS(LOG_TEXT("reason", reason)),
                  "⚠️ RabbitMQ n'accepte plus de messages : %s", reason);
}

static void on_tick(struct amqp *amqp, void *arg)
{
    struct worker *worker = arg;
    settle(worker);
    if (!amqp_is_up(amqp))
        return;
    if (!atomic_load(&worker->stopping)) {
        (void)take_size(worker);
        channels_tick(worker->channels, amqp);
    } else if (!worker->cancelled) {
        worker->cancelled = true;
        channels_cancel(worker->channels, amqp);
    }
    dead_letters_tick(worker->dead, amqp);
}

/* ---- life ---- */

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    amqp_run(worker->amqp);
    return NULL;
}

enum status worker_new(struct worker **ret_worker, const struct worker_config *config,
                       const struct delivery_means *means, struct err *err)
{
    static const struct amqp_handlers handlers = {
        .up = on_up,
        .down = on_down,
        .delivery = on_delivery,
        .confirm = on_confirm,
        .returned = on_returned,
        .channel_closed = on_channel_closed,
        .cancelled = on_cancelled,
        .blocked = on_blocked,
        .tick = on_tick,
    };
    struct worker *worker = mem_new(sizeof *worker);
    worker->config = *config;
    since_set(&worker->state, STATE_DISCONNECTED);
    worker->config.amqp.channels_least = CHANNELS_LEAST;
    atomic_init(&worker->workers, config->workers);
    worker->means = means;
    worker->channels = channels_new(config->queue, config->queue_type, CHANNEL_FIRST, WORKERS_MAX);
    worker->deliveries = in_progress_new(means, ACTIVE_PER_WORKER * config->workers);
    worker->dead = dead_letters_new(config->queue, config->queue_type, CHANNEL_DEAD, settle_copied, worker);
    enum status status = amqp_new(&worker->amqp, &worker->config.amqp, &handlers, worker, err);
    in_progress_wakes(worker->deliveries, worker->amqp);
    if (status != STATUS_OK)
        worker_free(worker);
    else
        *ret_worker = worker;
    return status;
}

enum status worker_start(struct worker *worker, struct err *err)
{
    log_event(LOG_INFO, "worker.started", LOG_FIELDS(LOG_TEXT("url", amqp_url_shown(worker->amqp))),
              "🚀 Démarrage du worker de génération de playlists...\n📡 Connexion à RabbitMQ: %s",
              amqp_url_shown(worker->amqp));
    int failed = pthread_create(&worker->thread, NULL, worker_main, worker);
    worker->running = failed == 0;
    return failed ? err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed)) : STATUS_OK;
}

void worker_resize(struct worker *worker, unsigned workers)
{
    if (atomic_exchange(&worker->workers, workers) != workers)
        amqp_wake(worker->amqp);
}

void worker_stop_consuming(struct worker *worker)
{
    if (!worker || !worker->running || atomic_load(&worker->stopping))
        return;
    log_event(LOG_INFO, "worker.stopping", LOG_FIELDS(LOG_NUMBER("busy", worker_busy(worker))),
              "\n⚠️ Arrêt du worker...");
    atomic_store(&worker->stopping, true);
    since_set(&worker->state, STATE_STOPPING);
    amqp_wake(worker->amqp);
}

void worker_stop(struct worker *worker, int grace_ms)
{
    if (!worker || !worker->running)
        return;
    worker_stop_consuming(worker);
    in_progress_wait(worker->deliveries, grace_ms);
    amqp_stop(worker->amqp);
    pthread_join(worker->thread, NULL);
}

void worker_abandon(struct worker *worker)
{
    if (worker)
        in_progress_abandon(worker->deliveries);
}

void worker_free(struct worker *worker)
{
    if (!worker)
        return;
    in_progress_free(worker->deliveries); /* what ended after the last tick is among them */
    amqp_free(worker->amqp);
    dead_letters_free(worker->dead);
    channels_free(worker->channels);
    free(worker);
}

const char *const worker_states[] = {"disconnected", "consuming", "blocked", "stopping", NULL};

const char *worker_state(struct worker *worker, int64_t *ret_since_ms)
{
    *ret_since_ms = since_ms(&worker->state);
    return worker_states[since_state(&worker->state)];
}

unsigned worker_count(struct worker *worker)
{
    return atomic_load(&worker->workers);
}

unsigned worker_busy(struct worker *worker)
{
    return in_progress_count(worker->deliveries);
}
