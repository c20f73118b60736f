/* What the daemons count and measure, and how GET /metrics shows it: the Prometheus text format 0.0.4
 * (prometheus.io/docs/instrumenting/exposition_formats).
 *
 * Counting is one or two relaxed atomic additions: no lock, no allocation, any thread. A metric is a static
 * struct filled by its designated initialiser; its series are numbered by the values of its one label, so
 * that there can never be more of them than were written down.
 *
 * Names: what either service may have is named after its subject (http_, amqp_, consul_, database_, and
 * Prometheus' own process_), the same in both, and told apart by the scrape's `job`; what is one service's
 * own begins with its name (soirees_, playlists_). Units are base units: seconds, bytes.
 */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

enum { METRICS_SERIES_MAX = 6, METRICS_BOUNDS_MAX = 16, METRICS_MAX_BYTES = 1 << 20 };

/* Counts events. `label` NULL: one series, number 0. Label values are literals without '"', '\' or line ends.
 */
struct metrics_counter {
    const char *name; /* ends in _total */
    const char *help; /* one line */
    const char *label, *values[METRICS_SERIES_MAX];
    _Atomic uint64_t counts[METRICS_SERIES_MAX];
};

static inline void metrics_count(struct metrics_counter *counter, unsigned series)
{
    atomic_fetch_add_explicit(&counter->counts[series], 1, memory_order_relaxed);
}

/* How a histogram divides what it measures. */
struct metrics_scale {
    int64_t units; /* of a measured value in one of the unit shown: 1000000 for µs */
    int64_t bounds[METRICS_BOUNDS_MAX + 1]; /* upper bounds of the buckets, rising; 0 behind the last */
};
extern const struct metrics_scale metrics_fast;  /* µs: 0.5 ms … 10 s */
extern const struct metrics_scale metrics_slow;  /* µs: 1 ms … 30 min */
extern const struct metrics_scale metrics_sizes; /* 1 … 256 */

struct metrics_cells {
    _Atomic uint64_t sum;
    _Atomic uint64_t buckets[METRICS_BOUNDS_MAX + 1]; /* one for each bound, one for what is above all */
};
/* Adds one value; a negative one (a clock was put back) counts as 0. */
void metrics_measure(struct metrics_cells *cells, const struct metrics_scale *scale, int64_t value);

struct metrics_histogram {
    const char *name, *help;
    const struct metrics_scale *scale;
    const char *label, *values[METRICS_SERIES_MAX];
    struct metrics_cells cells[METRICS_SERIES_MAX];
};

static inline void metrics_observe(struct metrics_histogram *histogram, unsigned series, int64_t value)
{
    metrics_measure(&histogram->cells[series], histogram->scale, value);
}

/* ---- showing; each appends to a buffer of at most METRICS_MAX_BYTES ---- */

void metrics_put_counter(struct buf *out, struct metrics_counter *counter);
void metrics_put_histogram(struct buf *out, struct metrics_histogram *histogram);
/* A gauge with one series. */
void metrics_put_gauge(struct buf *out, const char *name, const char *help, double value);
/* A gauge with a series for each of `values` (NULL behind the last), 1 for `current` and 0 for the others. */
void metrics_put_state(struct buf *out, const char *name, const char *help, const char *const *values,
                       const char *current);

/* For metrics with more labels: the two lines before its series, and one series. `labels` is `a="b",c="d"`,
 * or "" for none. */
void metrics_put_head(struct buf *out, const char *name, const char *type, const char *help);
void metrics_put_value(struct buf *out, const char *name, const char *labels, double value);
void metrics_put_cells(struct buf *out, const char *name, const char *labels, struct metrics_cells *cells,
                       const struct metrics_scale *scale);

/* Process CPU, memory, descriptors and start, under the names that Prometheus' client libraries share; what
 * /proc does not tell is left out. `program`_build_info has the version as its label. */
void metrics_put_process(struct buf *out, const char *program);

#endif
