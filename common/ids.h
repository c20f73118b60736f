/* Identifiers and time. Any thread. */
#ifndef COMMON_IDS_H
#define COMMON_IDS_H

#include <stdbool.h>
#include <stdint.h>

enum { UUID_SIZE = 37, TIMESTAMP_SIZE = 25, TRACEPARENT_SIZE = 56, TRACE_ID_SIZE = 33 };

/* A new UUIDv7 (RFC 9562 section 5.7) in lower case, 36 characters and NUL. */
void uuid_v7(char out[UUID_SIZE]);

/* Wall clock, ms since 1970, for what people and other services see. */
int64_t clock_wall_ms(void);
/* Monotonic, ms, for every delay and deadline inside a process. */
int64_t clock_mono_ms(void);
/* Monotonic, µs, for measuring. */
int64_t clock_mono_us(void);

/* When a UUIDv7 was made, wall clock ms; -1 for any other text. */
int64_t uuid_time_ms(const char *uuid);

/* "2025-12-02T10:30:00.000Z" (RFC 3339, always UTC and ms). Times outside years 0000-9999 are clamped. */
void timestamp_format(int64_t wall_ms, char out[TIMESTAMP_SIZE]);

/* Uniform in [0, bound); 0 when bound is 0. Not for secrets. */
uint32_t random_below(uint32_t bound);

/* W3C Trace Context level 1, version 00: the caller's trace when its traceparent is valid (lower-case hex,
 * ids not all zero; of a later version what version 00 has of it, section 4.3), with a new parent-id of ours
 * and its sampled flag, the one flag there is; else a new trace that is sampled. `incoming` may be NULL.
 * tracestate is not passed on: there is nothing of ours in it. */
void traceparent_continue(const char *incoming, char out[TRACEPARENT_SIZE]);
bool traceparent_valid(const char *text);

/* The trace-id of a traceparent, for the log, in `out`, which is returned; "" where it is not valid. */
const char *trace_id(const char *traceparent, char out[TRACE_ID_SIZE]);

#endif
