#include "backoff.h"

#include "ids.h"

int64_t backoff_bound_ms(unsigned failures, int64_t base_ms, int64_t max_ms)
{
    int64_t bound = base_ms;
    while (failures-- > 0 && bound < max_ms)
        bound *= 2;
    return bound < max_ms ? bound : max_ms;
}

int64_t backoff_ms(unsigned failures, int64_t base_ms, int64_t max_ms)
{
    int64_t bound = backoff_bound_ms(failures, base_ms, max_ms);
    int64_t least = base_ms / 2;
    if (bound <= least)
        return bound;
    return least + (int64_t)random_below((uint32_t)(bound - least)) + 1;
}
