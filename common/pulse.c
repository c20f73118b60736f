#include "pulse.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "ids.h"
#include "mem.h"

struct pulse {
    const char *name;
    _Atomic int64_t due_ms;
    struct pulse *previous, *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct pulse *pulses;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* for its destructor: libmicrohttpd's threads end without telling us */
static _Thread_local struct pulse *own;

static void thread_ended(void *arg)
{
    struct pulse *pulse = arg;
    pthread_mutex_lock(&mutex);
    if (pulse->next)
        pulse->next->previous = pulse->previous;
    if (pulse->previous)
        pulse->previous->next = pulse->next;
    else
        pulses = pulse->next;
    pthread_mutex_unlock(&mutex);
    free(pulse);
}

static void make_key(void)
{
    if (pthread_key_create(&key, thread_ended) != 0)
        abort();
}

static void enlist(const char *name)
{
    (void)pthread_once(&once, make_key);
    own = mem_new(sizeof *own);
    own->name = name;
    (void)pthread_setname_np(pthread_self(), name);
    atomic_init(&own->due_ms, INT64_MAX);
    if (pthread_setspecific(key, own) != 0)
        abort();
    pthread_mutex_lock(&mutex);
    own->next = pulses;
    if (pulses)
        pulses->previous = own;
    pulses = own;
    pthread_mutex_unlock(&mutex);
}

void pulse_beat(const char *name, int64_t wait_ms)
{
    if (!own)
        enlist(name);
    int64_t due_ms = wait_ms < 0 ? INT64_MAX : clock_mono_ms() + wait_ms;
    atomic_store_explicit(&own->due_ms, due_ms, memory_order_relaxed);
}

const char *pulse_late(int64_t limit_ms, int64_t *ret_late_ms)
{
    const char *name = NULL;
    int64_t now_ms = clock_mono_ms(), first_ms = now_ms - limit_ms;
    pthread_mutex_lock(&mutex);
    for (const struct pulse *pulse = pulses; pulse; pulse = pulse->next) {
        int64_t due_ms = atomic_load_explicit(&pulse->due_ms, memory_order_relaxed);
        if (due_ms >= first_ms)
            continue;
        first_ms = due_ms;
        name = pulse->name;
        *ret_late_ms = now_ms - due_ms;
    }
    pthread_mutex_unlock(&mutex);
    return name;
}
