#include "in_progress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mem.h"

struct in_progress {
    const struct delivery_means *means;
    struct amqp *amqp;

    /* The worker's thread alone. */
    unsigned active_max;
    struct delivery *active;  /* the newest first */
    struct delivery *waiting; /* the oldest first */

    atomic_uint count; /* of the active */
    pthread_mutex_t mutex;
    pthread_cond_t none;       /* count fell to 0 */
    struct delivery *finished; /* still among the active; linked by next_finished; under the mutex */
};

/* Whether one playlist would satisfy both. */
static bool same_request(const struct delivery *a, const struct delivery *b)
{
    bool any = !a->message_id[0] || !b->message_id[0];
    return strcmp(a->message.soiree_id, b->message.soiree_id) == 0 &&
           (any || strcmp(a->message_id, b->message_id) == 0);
}

static bool may_start(const struct in_progress *set, const struct delivery *delivery)
{
    if (atomic_load(&set->count) >= set->active_max)
        return false; /* reconnects must not pile up work without bound */
    for (const struct delivery *active = set->active; active; active = active->next)
        if (same_request(active, delivery))
            return false;
    return true;
}

/* Any thread. */
static void on_finished(struct delivery *delivery)
{
    struct in_progress *set = delivery->arg;
    pthread_mutex_lock(&set->mutex);
    delivery->next_finished = set->finished;
    set->finished = delivery;
    pthread_mutex_unlock(&set->mutex);
    amqp_wake(set->amqp);
}

static void start(struct in_progress *set, struct delivery *delivery)
{
    delivery->next = set->active;
    set->active = delivery;
    atomic_fetch_add(&set->count, 1);
    delivery->finished = on_finished;
    delivery->arg = set;
    delivery_start(delivery, set->means);
}

/* Else what a few are given would wait until many have ended. */
void in_progress_limit(struct in_progress *set, unsigned active_max)
{
    if (active_max >= set->active_max || atomic_load(&set->count) <= active_max)
        set->active_max = active_max;
}

void in_progress_add(struct in_progress *set, struct delivery *delivery)
{
    if (may_start(set, delivery)) {
        start(set, delivery);
        return;
    }
    struct delivery **at = &set->waiting;
    while (*at)
        at = &(*at)->next;
    delivery->next = NULL;
    *at = delivery;
}

static void unlink_active(struct in_progress *set, struct delivery *delivery)
{
    struct delivery **at = &set->active;
    while (*at != delivery)
        at = &(*at)->next;
    *at = delivery->next;
    if (atomic_fetch_sub(&set->count, 1) == 1) {
        pthread_mutex_lock(&set->mutex);
        pthread_cond_signal(&set->none);
        pthread_mutex_unlock(&set->mutex);
    }
}

static void settle_finished(struct in_progress *set, const struct in_progress_handlers *handlers, void *arg)
{
    pthread_mutex_lock(&set->mutex);
    struct delivery *delivery = set->finished;
    set->finished = NULL;
    pthread_mutex_unlock(&set->mutex);
    if (!delivery)
        return;
    for (struct delivery *ended = delivery; ended; ended = ended->next_finished)
        handlers->ended(arg, ended);
    handlers->all_ended(arg);
    while (delivery) {
        struct delivery *next = delivery->next_finished;
        handlers->over(arg, delivery);
        unlink_active(set, delivery);
        delivery_free(delivery);
        delivery = next;
    }
}

static void settle_waiting(struct in_progress *set, const struct in_progress_handlers *handlers, void *arg)
{
    for (struct delivery **at = &set->waiting; *at;) {
        struct delivery *delivery = *at;
        bool dropped = handlers->stale(arg, delivery);
        if (!dropped && !may_start(set, delivery)) {
            at = &delivery->next;
            continue;
        }
        *at = delivery->next;
        if (dropped)
            delivery_free(delivery);
        else
            start(set, delivery);
    }
}

void in_progress_settle(struct in_progress *set, const struct in_progress_handlers *handlers, void *arg)
{
    settle_finished(set, handlers, arg);
    for (struct delivery *delivery = set->active; delivery; delivery = delivery->next)
        if (atomic_load(&delivery->overdue) && !handlers->stale(arg, delivery))
            handlers->overdue(arg, delivery);
    settle_waiting(set, handlers, arg);
}

unsigned in_progress_count(struct in_progress *set)
{
    return atomic_load(&set->count);
}

void in_progress_wait(struct in_progress *set, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&set->mutex);
    while (atomic_load(&set->count) > 0 && pthread_cond_timedwait(&set->none, &set->mutex, &until) == 0)
        continue;
    pthread_mutex_unlock(&set->mutex);
}

void in_progress_abandon(struct in_progress *set)
{
    for (struct delivery *delivery = set->active; delivery; delivery = delivery->next)
        delivery_abandon(delivery);
}

struct in_progress *in_progress_new(const struct delivery_means *means, unsigned active_max)
{
    struct in_progress *set = mem_new(sizeof *set);
    set->means = means;
    set->active_max = active_max;
    pthread_mutex_init(&set->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&set->none, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return set;
}

void in_progress_wakes(struct in_progress *set, struct amqp *amqp)
{
    set->amqp = amqp;
}

static void free_all(struct delivery *delivery)
{
    while (delivery) {
        struct delivery *next = delivery->next;
        delivery_free(delivery);
        delivery = next;
    }
}

void in_progress_free(struct in_progress *set)
{
    free_all(set->active);
    free_all(set->waiting);
    pthread_cond_destroy(&set->none);
    pthread_mutex_destroy(&set->mutex);
    free(set);
}
