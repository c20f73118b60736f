/* Identifiers and time. Any thread. */
#ifndef COMMON_IDS_H
#define COMMON_IDS_H

#include <stdbool.h>
#include <stdint.h>

enum { UUID_SIZE = 37, TIMESTAMP_SIZE = 25, TRACEPARENT_SIZE = 56 };

/* A new UUIDv7 (RFC 9562 section 5.7) in lower case, 36 characters and NUL. */
void uuid_v7(char out[UUID_SIZE]);

/* Wall clock, ms since 1970, for what people and other services see. */
int64_t clock_wall_ms(void);
/* Monotonic, ms, for every delay and deadline inside a process. */
int64_t clock_mono_ms(void);

/* "2025-12-02T10:30:00.000Z" (RFC 3339, always UTC and ms). Times outside years 0000-9999 are clamped. */
void timestamp_format(int64_t wall_ms, char out[TIMESTAMP_SIZE]);

/* Uniform in [0, bound); 0 when bound is 0. Not for secrets. */
uint32_t random_below(uint32_t bound);

/* W3C Trace Context level 1: the caller's traceparent when it is valid (version 00, lower-case hex, ids not
 * all zero), with a new parent-id of ours, else a new trace that is sampled. `incoming` may be NULL. */
void traceparent_continue(const char *incoming, char out[TRACEPARENT_SIZE]);
bool traceparent_valid(const char *text);

#endif
