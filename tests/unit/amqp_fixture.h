/* For the tests of common/amqp: a connection in a thread of its own, the events of which are counted, and
 * functions run in its thread. One file includes it, so everything is static. */
#ifndef TESTS_AMQP_FIXTURE_H
#define TESTS_AMQP_FIXTURE_H

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "amqp.h"
#include "ids.h"
#include "mem.h"

enum { PATIENCE_S = 30, EVENT_TEXT_SIZE = 300, TAGS_MAX = 4096 };

/* cmocka's assertions work in the test's own thread only. */
#define require(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* What happened so far; guarded by `mutex`, each change is broadcast. */
struct events {
    unsigned ups, downs, deliveries, returns, closes, cancels, ticks;
    unsigned blocks, unblocks, acks, nacks;
    uint64_t confirmed; /* how many tags: `multiple` unrolled */
    uint64_t lowest_unconfirmed;
    bool tags[TAGS_MAX];
    bool return_before_ack; /* a return came, and its ack had not come before */
    char down_reason[EVENT_TEXT_SIZE];
    bool was_up;
    uint64_t epoch; /* this and the URL as of the last up or down */
    char url[EVENT_TEXT_SIZE];
    int code; /* of the last return or channel close */
    char text[EVENT_TEXT_SIZE];
    unsigned channel; /* of the last event on a channel */

    /* The last delivery, and the tags by channel. */
    uint64_t tag;
    bool redelivered;
    char message_id[EVENT_TEXT_SIZE], type[EVENT_TEXT_SIZE], app_id[EVENT_TEXT_SIZE],
        content_type[EVENT_TEXT_SIZE], traceparent[EVENT_TEXT_SIZE];
    char *body;
    size_t body_len;
    uint64_t body_size;
    unsigned delivered_on[AMQP_CHANNELS_MAX + 1];
    uint64_t tag_on[AMQP_CHANNELS_MAX + 1];
};

struct session {
    struct amqp *amqp;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool (*on_up)(struct amqp *amqp, void *arg); /* runs inside up() */
    bool (*task)(struct amqp *amqp, void *arg);  /* runs inside tick() once up */
    void *task_arg;
    bool task_done, task_result;
    void (*on_message)(struct amqp *amqp,
                       struct session *session); /* runs inside delivery(), the events up to date */
    bool is_up;                                  /* the owner's thread alone: between up() and down() */
    struct events events;
};

static void session_change(struct session *session)
{
    pthread_cond_broadcast(&session->changed);
    pthread_mutex_unlock(&session->mutex);
}

static void copy_event_text(char *to, const char *text)
{
    (void)text_copy(to, EVENT_TEXT_SIZE, text);
}

/* ---- handlers ---- */

static bool on_up(struct amqp *amqp, void *arg)
{
    struct session *session = arg;
    require(amqp_is_up(amqp) && !session->is_up);
    session->is_up = true;
    bool kept = !session->on_up || session->on_up(amqp, session);
    pthread_mutex_lock(&session->mutex);
    session->events.ups++;
    session->events.epoch = amqp_epoch(amqp);
    copy_event_text(session->events.url, amqp_url_shown(amqp));
    session_change(session);
    return kept;
}

static void on_down(struct amqp *amqp, void *arg, const char *reason, bool was_up)
{
    struct session *session = arg;
    require(!amqp_is_up(amqp));
    session->is_up = false;
    pthread_mutex_lock(&session->mutex);
    session->events.downs++;
    session->events.epoch = amqp_epoch(amqp);
    copy_event_text(session->events.url, amqp_url_shown(amqp));
    session->events.was_up = was_up;
    copy_event_text(session->events.down_reason, reason);
    session_change(session);
}

static void on_delivery(struct amqp *amqp, void *arg, const struct amqp_message *message)
{
    struct session *session = arg;
    pthread_mutex_lock(&session->mutex);
    struct events *events = &session->events;
    events->deliveries++;
    events->channel = message->channel;
    events->tag = events->tag_on[message->channel] = message->delivery_tag;
    events->delivered_on[message->channel]++;
    events->redelivered = message->redelivered;
    copy_event_text(events->message_id, message->message_id);
    copy_event_text(events->type, message->type);
    copy_event_text(events->app_id, message->app_id);
    copy_event_text(events->content_type, message->content_type);
    copy_event_text(events->traceparent, message->traceparent);
    free(events->body);
    events->body = mem_copy(message->body, message->body_len);
    events->body_len = message->body_len;
    events->body_size = message->body_size;
    session_change(session);
    if (session->on_message)
        session->on_message(amqp, session);
}

static void on_confirm(struct amqp *amqp, void *arg, unsigned channel, uint64_t tag, bool multiple, bool ack)
{
    (void)amqp;
    struct session *session = arg;
    pthread_mutex_lock(&session->mutex);
    struct events *events = &session->events;
    events->channel = channel;
    if (ack)
        events->acks++;
    else
        events->nacks++;
    for (uint64_t t = multiple ? events->lowest_unconfirmed + 1 : tag; t <= tag && t < TAGS_MAX; t++) {
        events->confirmed += !events->tags[t];
        events->tags[t] = true;
    }
    while (events->lowest_unconfirmed + 1 < TAGS_MAX && events->tags[events->lowest_unconfirmed + 1])
        events->lowest_unconfirmed++;
    session_change(session);
}

static void on_returned(struct amqp *amqp, void *arg, unsigned channel, const char *message_id, int code,
                        const char *text)
{
    (void)amqp;
    struct session *session = arg;
    pthread_mutex_lock(&session->mutex);
    session->events.returns++;
    session->events.return_before_ack = session->events.acks == 0;
    session->events.channel = channel;
    session->events.code = code;
    copy_event_text(session->events.text, text);
    copy_event_text(session->events.message_id, message_id);
    session_change(session);
}

static void on_channel_closed(struct amqp *amqp, void *arg, unsigned channel, int code, const char *text)
{
    (void)amqp;
    struct session *session = arg;
    pthread_mutex_lock(&session->mutex);
    session->events.closes++;
    session->events.channel = channel;
    session->events.code = code;
    copy_event_text(session->events.text, text);
    session_change(session);
}

static void on_cancelled(struct amqp *amqp, void *arg, unsigned channel)
{
    (void)amqp;
    struct session *session = arg;
    pthread_mutex_lock(&session->mutex);
    session->events.cancels++;
    session->events.channel = channel;
    session_change(session);
}

static void on_blocked(struct amqp *amqp, void *arg, bool blocked, const char *reason)
{
    struct session *session = arg;
    require(amqp_is_blocked(amqp) == blocked);
    pthread_mutex_lock(&session->mutex);
    if (blocked) {
        session->events.blocks++;
        copy_event_text(session->events.text, reason);
    } else {
        session->events.unblocks++;
    }
    session_change(session);
}

static void on_tick(struct amqp *amqp, void *arg)
{
    struct session *session = arg;
    require(session->is_up || !amqp_is_up(amqp));
    pthread_mutex_lock(&session->mutex);
    session->events.ticks++;
    if (session->task && amqp_is_up(amqp)) {
        bool (*task)(struct amqp *, void *) = session->task;
        void *task_arg = session->task_arg;
        pthread_mutex_unlock(&session->mutex);
        bool result = task(amqp, task_arg);
        pthread_mutex_lock(&session->mutex);
        session->task = NULL;
        session->task_done = true;
        session->task_result = result;
    }
    session_change(session);
}

/* ---- starting, waiting, stopping ---- */

static void *run_session(void *arg)
{
    struct session *session = arg;
    amqp_run(session->amqp);
    return NULL;
}

static const struct amqp_handlers counting_handlers = {
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

/* A connection with `config` (heartbeat and channels 0: 20 s and 8), running. */
static struct session *session_start_with(struct amqp_config config, bool (*on_up_too)(struct amqp *, void *))
{
    struct session *session = mem_new(sizeof *session);
    session->on_up = on_up_too;
    pthread_mutex_init(&session->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&session->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    config.heartbeat_s = config.heartbeat_s ? config.heartbeat_s : 20;
    config.channels = config.channels ? config.channels : 8;
    config.connection_name = config.connection_name ? config.connection_name : "unit test";
    struct err err = {0};
    if (amqp_new(&session->amqp, &config, &counting_handlers, session, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&session->thread, NULL, run_session, session), 0);
    return session;
}

static inline struct session *session_start(const char *urls)
{
    return session_start_with((struct amqp_config){.urls = urls}, NULL);
}

/* Waits until `condition`, an expression of `e` (struct events *), holds. */
#define session_wait(session, condition)                                                                     \
    do {                                                                                                     \
        struct events *e = &(session)->events;                                                               \
        struct timespec until_;                                                                              \
        clock_gettime(CLOCK_MONOTONIC, &until_);                                                             \
        until_.tv_sec += PATIENCE_S;                                                                         \
        int timed_out_ = 0;                                                                                  \
        pthread_mutex_lock(&(session)->mutex);                                                               \
        while (!(condition) && !timed_out_)                                                                  \
            timed_out_ = pthread_cond_timedwait(&(session)->changed, &(session)->mutex, &until_);            \
        bool holds_ = (condition);                                                                           \
        pthread_mutex_unlock(&(session)->mutex);                                                             \
        (void)e;                                                                                             \
        if (!holds_)                                                                                         \
            fail_msg("not within %d s: %s (downs %u: %s, closes %u: %s)", PATIENCE_S, #condition, e->downs,  \
                     e->down_reason, e->closes, e->text);                                                    \
    } while (0)

/* A field of the events as it is now; texts and arrays are good as long as nothing more happens. */
#define seen(session, field)                                                                                 \
    __extension__({                                                                                          \
        pthread_mutex_lock(&(session)->mutex);                                                               \
        __auto_type seen_ = (session)->events.field;                                                         \
        pthread_mutex_unlock(&(session)->mutex);                                                             \
        seen_;                                                                                               \
    })

/* Runs `task` in the owner's thread, in a tick() of a connection that is up, and returns its result. */
static bool session_do(struct session *session, bool (*task)(struct amqp *amqp, void *arg), void *arg)
{
    pthread_mutex_lock(&session->mutex);
    session->task_done = false;
    session->task = task;
    session->task_arg = arg;
    pthread_mutex_unlock(&session->mutex);
    amqp_wake(session->amqp);
    session_wait(session, session->task_done);
    return session->task_result;
}

static void session_stop(struct session *session)
{
    amqp_stop(session->amqp);
    pthread_join(session->thread, NULL);
    amqp_free(session->amqp);
    pthread_mutex_destroy(&session->mutex);
    pthread_cond_destroy(&session->changed);
    free(session->events.body);
    free(session);
}

#endif
