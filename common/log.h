/* Log lines: written where an error stops or a step is done, never by a library module. Any thread; a line
 * (or the block of a multi-line message) goes out whole, in one write(2) to stdout.
 *
 * LOG_FORMAT=pretty prints the message alone, for people (French, the specification's own lines).
 * LOG_FORMAT=json prints one object a line: time, level, service, event, message, and the fields.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ids.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;  /* JSON name; NULL ends a list */
    const char *text; /* NULL: the number is meant; a field whose text is "" is left out */
    int64_t number;
};
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {0}})
#define LOG_TEXT(name, value)                                                                                \
    {                                                                                                        \
        .key = (name), .text = (value)                                                                       \
    }
/* The trace that a traceparent belongs to (ids.h). */
#define LOG_TRACE(traceparent) LOG_TEXT("traceId", trace_id((traceparent), (char[TRACE_ID_SIZE]){0}))
#define LOG_NUMBER(name, value)                                                                              \
    {                                                                                                        \
        .key = (name), .number = (int64_t)(value)                                                            \
    }

/* Before threads start. `service` is borrowed for good. Unknown names: pretty, info. */
void log_init(const char *service, const char *format, const char *level);
/* Any thread, any time: other names of the same from here on. */
void log_change(const char *format, const char *level);

bool log_enabled(enum log_level level);
bool log_is_json(void);

/* For a line that comes again for as long as something lasts: the level for it, `level` for the first
 * LOG_REPEAT_BURST and then for one every LOG_REPEAT_MS, LOG_DEBUG for the others. Before the next one that
 * is written a line says how many were not. Each place in the code has its own count:
 *
 *     log_event(LOG_REPEATED(LOG_ERROR), "amqp.lost", …)
 *
 * Any thread, no lock. */
enum { LOG_REPEAT_BURST = 10, LOG_REPEAT_MS = 5 * 60 * 1000 };
#define LOG_REPEATED(level)                                                                                  \
    __extension__({                                                                                          \
        static struct log_repeat repeat_;                                                                    \
        log_repeated(&repeat_, (level), clock_mono_ms());                                                    \
    })
struct log_repeat {
    _Atomic int64_t due_ms; /* monotonic: when the burst is whole again */
    _Atomic int64_t left_out;
};
enum log_level log_repeated(struct log_repeat *repeat, enum log_level level, int64_t now_ms);

/* `event` is a stable dotted name ("worker.received"); `fields` may be NULL; the rest is the message, printf
 * style. Line ends belong to the format alone (at most 511 bytes): control characters that come in through an
 * argument are escaped. A message over 4 KiB is cut. */
void log_event(enum log_level level, const char *event, const struct log_field *fields, const char *format,
               ...) __attribute__((format(printf, 4, 5)));

/* For a thread that logs many lines in a turn: what it logs from log_hold() on is written together, by
 * log_release(), where it passes 16 KiB, and with a line of LOG_WARN or above, so that a crash costs no more
 * than what a turn has done. Holding twice is holding once; releasing without holding does nothing. */
void log_hold(void);
void log_release(void);

#endif
