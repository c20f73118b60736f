/* Exponential backoff with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
 * 2015): the n-th wait is uniform in (base / 2, min(max, base * 2^n)]. Base and maximum are over 0 and at
 * most 2^31 ms. Pure but for the random number. */
#ifndef COMMON_BACKOFF_H
#define COMMON_BACKOFF_H

#include <stdint.h>

/* The upper bound of the wait after `failures` failures (from 0), in ms: min(max_ms, base_ms << failures). */
int64_t backoff_bound_ms(unsigned failures, int64_t base_ms, int64_t max_ms);

/* A wait drawn for it. */
int64_t backoff_ms(unsigned failures, int64_t base_ms, int64_t max_ms);

#endif
