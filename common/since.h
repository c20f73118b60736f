/* A state and when it began, for one writer or several and any number of readers: both in one atomic word, so
 * that a reader never sees one's time with another's state. Any thread. */
#ifndef COMMON_SINCE_H
#define COMMON_SINCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ids.h"

struct since {
    _Atomic int64_t word; /* wall clock ms << 8 | state; 0: never set */
};

/* The state is `state` (0..255) from now on; the same one again keeps its time. Returns whether it was
 * another one: of several callers one is told. */
static inline bool since_set(struct since *since, int state)
{
    int64_t old = atomic_load(&since->word);
    while (!old || (old & 0xFF) != state)
        if (atomic_compare_exchange_weak(&since->word, &old, clock_wall_ms() * 256 + state))
            return old != 0;
    return false;
}

static inline int since_state(struct since *since)
{
    return (int)(atomic_load(&since->word) & 0xFF);
}

/* Wall clock, ms; 0 where it was never set. */
static inline int64_t since_ms(struct since *since)
{
    return atomic_load(&since->word) >> 8;
}

#endif
