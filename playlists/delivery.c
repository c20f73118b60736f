#include "delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "meters.h"

enum {
    KILLS_MAX = 5, /* starts that ended with the process; then the default playlist */
    HOLD_RETRY_MS = 1000,
    HOLD_MAX_MS = 10 * 60 * 1000,
};

#define FIELDS(delivery, ...)                                                                                \
    LOG_FIELDS(LOG_TEXT("soireeId", (delivery)->message.soiree_id),                                          \
               LOG_TEXT("requestId", (delivery)->message_id), LOG_TRACE((delivery)->traceparent),            \
               __VA_ARGS__)

static void drop_playlist(struct delivery *delivery)
{
    if (delivery->playlist)
        playlist_done(delivery->playlist);
    free(delivery->playlist);
    delivery->playlist = NULL;
}

/* The next step, in the loop's thread. */
static void go_on(struct delivery *delivery, void (*step)(struct http_task *task))
{
    delivery->task.run = step;
    http_client_post(delivery->means->client, &delivery->task);
}

/* ---- link ---- */

static void on_linked(struct link_delivery *link)
{
    struct delivery *delivery = OWNER(link, struct delivery, link);
    delivery->finished(delivery); /* delivered or stored as pending: safe either way */
}

static void log_saved(const struct delivery *delivery)
{
    const struct playlist *playlist = delivery->playlist;
    meters_created(playlist->origine);
    log_event(LOG_INFO, "playlist.saved",
              FIELDS(delivery, LOG_TEXT("playlistId", playlist->id), LOG_TEXT("origine", playlist->origine),
                     LOG_NUMBER("tracks", playlist->tracks.count)),
              "✅ Playlist %s créée et sauvegardée\n   Titre: %s\n   Tracks: %zu", playlist->id, playlist->nom,
              playlist->tracks.count);
}

/* While soirees works on it. */
static void on_link_started(struct link_delivery *link)
{
    const struct delivery *delivery = OWNER(link, struct delivery, link);
    if (delivery->step.kind == STORE_SAVE)
        log_saved(delivery);
    log_event(LOG_INFO, "link.started",
              FIELDS(delivery, LOG_TEXT("playlistId", delivery->step.link.playlist_id)),
              "🔄 Mise à jour de la soirée %s avec playlist %s", delivery->message.soiree_id,
              delivery->step.link.playlist_id);
}

static void link_now(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    delivery->link = (struct link_delivery){
        .link = delivery->step.link, .started = on_link_started, .done = on_linked};
    linker_deliver(delivery->means->linker, &delivery->link);
}

/* ---- begin and save: steps in the store, held while it refuses ---- */

static void on_stepped(struct store_step *step);

static void step_now(struct delivery *delivery)
{
    delivery->step.done = on_stepped;
    store_step(delivery->means->store, &delivery->step);
}

static void on_hold_over(struct http_timer *timer)
{
    step_now(OWNER(timer, struct delivery, timer));
}

static void hold(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    int64_t now_ms = clock_mono_ms();
    if (!delivery->held_since_ms) {
        delivery->held_since_ms = now_ms;
        log_event(LOG_REPEATED(LOG_ERROR), "delivery.held",
                  FIELDS(delivery, LOG_TEXT("reason", delivery->step.err.text)),
                  "❌ Base indisponible pour soirée %s: %s (message gardé)", delivery->message.soiree_id,
                  delivery->step.err.text);
    }
    if (now_ms - delivery->held_since_ms > HOLD_MAX_MS)
        atomic_store(&delivery->overdue, true);
    delivery->timer.fire = on_hold_over;
    http_client_after(delivery->means->client, &delivery->timer, HOLD_RETRY_MS);
}

static void set_begin(struct delivery *delivery)
{
    delivery->step = (struct store_step){
        .kind = STORE_BEGIN,
        .soiree_id = delivery->message.soiree_id,
        .message_id = delivery->message_id,
        .redelivered = delivery->redelivered,
    };
}

static void save(struct delivery *delivery)
{
    (void)snprintf(delivery->playlist->description, sizeof delivery->playlist->description,
                   "Playlist générée automatiquement pour la soirée %s", delivery->message.soiree_id);
    (void)text_copy(delivery->playlist->soiree_id, sizeof delivery->playlist->soiree_id,
                    delivery->message.soiree_id);
    delivery->step.kind = STORE_SAVE;
    delivery->step.request_id = delivery->request_id;
    delivery->step.traceparent = delivery->traceparent;
    delivery->step.playlist = delivery->playlist;
    step_now(delivery);
}

/* ---- generate ---- */

static void on_generated(struct generation *generation)
{
    struct delivery *delivery = OWNER(generation, struct delivery, generation);
    FAILPOINT("delivery.generated");
    delivery->playlist = generation->playlist;
    save(delivery);
}

static void go_on_generating(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    generator_go_on(&delivery->generation);
}

static void on_attempt_failed(struct generation *generation)
{
    struct delivery *delivery = OWNER(generation, struct delivery, generation);
    FAILPOINT("attempt.failed");
    delivery->step.kind = STORE_COUNT_FAILURE;
    step_now(delivery);
}

static void generate(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    delivery->generation = (struct generation){
        .style = delivery->message.style,
        .soiree_id = delivery->message.soiree_id,
        .request_id = delivery->message_id,
        .traceparent = delivery->traceparent,
        .failures = (int)delivery->step.failures,
        .failed = on_attempt_failed,
        .done = on_generated,
    };
    if (delivery->step.starts <= KILLS_MAX) {
        generator_start(&delivery->means->generator, &delivery->generation);
        return;
    }
    log_event(LOG_ERROR, "delivery.poison", FIELDS(delivery, LOG_NUMBER("starts", delivery->step.starts)),
              "⚠️ Soirée %s: %d arrêts brutaux pendant sa demande, playlist par défaut",
              delivery->message.soiree_id, KILLS_MAX);
    delivery->playlist = mem_new(sizeof *delivery->playlist);
    generator_default(delivery->message.style, delivery->playlist);
    save(delivery);
}

/* ---- what the store answered ---- */

static void finish(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    delivery->finished(delivery);
}

/* Another process was faster: what it saved satisfies this request. */
static void begin_again(struct http_task *task)
{
    struct delivery *delivery = OWNER(task, struct delivery, task);
    drop_playlist(delivery);
    set_begin(delivery);
    step_now(delivery);
}

/* Writer's thread: all that it does with a delivery is to hand it back to the loop's. */
static void on_stepped(struct store_step *step)
{
    struct delivery *delivery = OWNER(step, struct delivery, step);
    if (step->kind == STORE_COUNT_FAILURE) {
        FAILPOINT("attempt.counted");
        /* Counted or not: what the database refused costs one more call after a crash, no more than that. */
        go_on(delivery, go_on_generating);
        return;
    }
    FAILPOINT(step->kind == STORE_SAVE ? "delivery.saved" : "delivery.begun");
    if (step->err.status == STATUS_CONFLICT) {
        go_on(delivery, begin_again);
        return;
    }
    if (step->err.status != STATUS_OK) {
        go_on(delivery, hold);
        return;
    }
    if (delivery->held_since_ms)
        log_event(LOG_REPEATED(LOG_INFO), "delivery.resumed",
                  FIELDS(delivery, LOG_NUMBER("kind", step->kind)),
                  "✅ Base de nouveau disponible pour soirée %s", delivery->message.soiree_id);
    delivery->held_since_ms = 0;
    if (step->kind == STORE_SAVE || step->next == STORE_NEXT_LINK)
        go_on(delivery, link_now);
    else if (step->next == STORE_NEXT_GENERATE)
        go_on(delivery, generate);
    else
        go_on(delivery, finish);
}

/* ---- life ---- */

/* What was never begun begins at once; all else is looked up, and counted, by the writer. */
void delivery_start(struct delivery *delivery, const struct delivery_means *means)
{
    delivery->means = means;
    set_begin(delivery);
    if (store_begin_first(means->store, &delivery->step)) {
        FAILPOINT("delivery.begun");
        go_on(delivery, generate);
    } else {
        step_now(delivery);
    }
}

static void on_abandoned(struct store_step *step)
{
    free(step);
}

void delivery_abandon(struct delivery *delivery)
{
    struct store_step *step = mem_new(sizeof *step); /* the delivery's own may be with the writer */
    *step = (struct store_step){
        .kind = STORE_ABANDON,
        .soiree_id = delivery->message.soiree_id,
        .message_id = delivery->message_id,
        .done = on_abandoned,
    };
    store_step(delivery->means->store, step);
}

void delivery_free(struct delivery *delivery)
{
    generation_done(&delivery->generation);
    link_delivery_done(&delivery->link);
    drop_playlist(delivery);
    free(delivery);
}
