#include "metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

const struct metrics_scale metrics_fast = {
    .units = 1000000,
    .bounds = {500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
               10000000},
};
const struct metrics_scale metrics_slow = {
    .units = 1000000,
    .bounds = {1000, 10000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000,
               30000000, 60000000, 90000000, 300000000, 1800000000},
};
const struct metrics_scale metrics_sizes = {
    .units = 1,
    .bounds = {1, 2, 4, 8, 16, 32, 64, 128, 256},
};

void metrics_measure(struct metrics_cells *cells, const struct metrics_scale *scale, int64_t value)
{
    unsigned bucket = 0;
    while (scale->bounds[bucket] && value > scale->bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(&cells->buckets[bucket], 1, memory_order_relaxed);
    if (value > 0)
        atomic_fetch_add_explicit(&cells->sum, (uint64_t)value, memory_order_relaxed);
}

/* ---- the text format ---- */

void metrics_put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_number(struct buf *out, double value)
{
    buf_format(out, "%.15g", value);
}

void metrics_put_value(struct buf *out, const char *name, const char *labels, double value)
{
    buf_format(out, *labels ? "%s{%s} " : "%s%s ", name, labels);
    put_number(out, value);
    buf_char(out, '\n');
}

static void label_text(char *text, size_t size, const char *label, const char *value)
{
    text[0] = '\0';
    if (label)
        (void)snprintf(text, size, "%s=\"%s\"", label, value);
}

/* How many series a metric has. */
static unsigned series_count(const char *label, const char *const *values)
{
    unsigned count = 0;
    while (label && count < METRICS_SERIES_MAX && values[count])
        count++;
    return label ? count : 1;
}

void metrics_put_counter(struct buf *out, struct metrics_counter *counter)
{
    metrics_put_head(out, counter->name, "counter", counter->help);
    for (unsigned i = 0; i < series_count(counter->label, counter->values); i++) {
        char labels[128];
        label_text(labels, sizeof labels, counter->label, counter->values[i]);
        uint64_t count = atomic_load_explicit(&counter->counts[i], memory_order_relaxed);
        metrics_put_value(out, counter->name, labels, (double)count);
    }
}

void metrics_put_cells(struct buf *out, const char *name, const char *labels, struct metrics_cells *cells,
                       const struct metrics_scale *scale)
{
    const char *comma = *labels ? "," : "";
    uint64_t count = 0;
    for (unsigned i = 0;; i++) {
        int64_t bound = scale->bounds[i];
        count += atomic_load_explicit(&cells->buckets[i], memory_order_relaxed);
        if (bound)
            buf_format(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma,
                       (double)bound / (double)scale->units, (unsigned long long)count);
        else
            buf_format(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma,
                       (unsigned long long)count);
        if (!bound)
            break;
    }
    char part[128];
    uint64_t sum = atomic_load_explicit(&cells->sum, memory_order_relaxed);
    (void)snprintf(part, sizeof part, "%s_sum", name);
    metrics_put_value(out, part, labels, (double)sum / (double)scale->units);
    (void)snprintf(part, sizeof part, "%s_count", name);
    metrics_put_value(out, part, labels, (double)count);
}

void metrics_put_histogram(struct buf *out, struct metrics_histogram *histogram)
{
    metrics_put_head(out, histogram->name, "histogram", histogram->help);
    for (unsigned i = 0; i < series_count(histogram->label, histogram->values); i++) {
        char labels[128];
        label_text(labels, sizeof labels, histogram->label, histogram->values[i]);
        metrics_put_cells(out, histogram->name, labels, &histogram->cells[i], histogram->scale);
    }
}

void metrics_put_gauge(struct buf *out, const char *name, const char *help, double value)
{
    metrics_put_head(out, name, "gauge", help);
    metrics_put_value(out, name, "", value);
}

void metrics_put_state(struct buf *out, const char *name, const char *help, const char *const *values,
                       const char *current)
{
    metrics_put_head(out, name, "gauge", help);
    for (; *values; values++) {
        char labels[128];
        label_text(labels, sizeof labels, "state", *values);
        metrics_put_value(out, name, labels, strcmp(*values, current) == 0);
    }
}

/* ---- the process ---- */

/* A number in a small file of /proc: `skip` words behind the last ')' (a process name may hold anything), or
 * from the start where there is none. Negative when it cannot be read. */
static double proc_number(const char *path, int skip)
{
    char text[1024];
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    size_t len = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[len] = '\0';
    char *name_end = strrchr(text, ')');
    const char *at = name_end ? name_end + 1 : text;
    for (at += strspn(at, " "); skip > 0 && *at; skip--) {
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    char *end = NULL;
    double number = strtod(at, &end);
    return end != at ? number : -1;
}

static double seconds(clockid_t clock)
{
    struct timespec time = {0};
    (void)clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    if (!folder)
        return -1;
    while (readdir(folder)) /* cppcheck-suppress readdirCalled; each stream has its own state (POSIX 2024) */
        count++;
    (void)closedir(folder);
    return count - 3; /* ".", ".." and the folder's own */
}

static void put_known(struct buf *out, const char *name, const char *help, double value)
{
    if (value >= 0)
        metrics_put_gauge(out, name, help, value);
}

/* /proc/self/stat counts from the boot (man 5 proc, field 22, the 20th behind the name). The wall clock is
 * steered, the start is not: so it is found once. */
static double start_time(void)
{
    static _Atomic double found;
    double ticks = proc_number("/proc/self/stat", 19), known = atomic_load(&found);
    if (known <= 0 && ticks >= 0) {
        known = seconds(CLOCK_REALTIME) - seconds(CLOCK_BOOTTIME) + ticks / (double)sysconf(_SC_CLK_TCK);
        atomic_store(&found, known);
    }
    return known > 0 ? known : -1;
}

void metrics_put_process(struct buf *out, const char *program)
{
    double page = (double)sysconf(_SC_PAGESIZE), resident = proc_number("/proc/self/statm", 1);
    struct rlimit descriptors;

    metrics_put_head(out, "process_cpu_seconds_total", "counter", "User and system CPU time, seconds.");
    metrics_put_value(out, "process_cpu_seconds_total", "", seconds(CLOCK_PROCESS_CPUTIME_ID));
    put_known(out, "process_resident_memory_bytes", "Resident memory.", resident < 0 ? -1 : resident * page);
    put_known(out, "process_virtual_memory_bytes", "Virtual memory.", proc_number("/proc/self/stat", 20));
    put_known(out, "process_threads", "Threads.", proc_number("/proc/self/stat", 17));
    put_known(out, "process_open_fds", "Open file descriptors.", count_descriptors());
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0)
        metrics_put_gauge(out, "process_max_fds", "File descriptors that may be open.",
                          (double)descriptors.rlim_cur);
    put_known(out, "process_start_time_seconds", "Start of the process, seconds since 1970.", start_time());

    char name[64];
    (void)snprintf(name, sizeof name, "%s_build_info", program);
    metrics_put_head(out, name, "gauge", "1; the version is its label.");
    metrics_put_value(out, name, "version=\"" PROJECT_VERSION "\"", 1);
}
