#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "ids.h"
#include "json.h"
#include "mem.h"
#include "utf8.h"

enum {
    LINE_MAX_BYTES = 256 * 1024,
    MESSAGE_MAX_BYTES = 4 * 1024,
    FIELD_MAX_BYTES = 1024,
    FORMAT_MAX_BYTES = 512,
    HELD_BYTES = 16 * 1024,
};

/* Stands for a line end of the format while outside text is put in: so those of the text can be told from it.
 */
enum { LINE_END = 0x1E };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static struct {
    const char *service;
    atomic_bool json, colour;
    atomic_uint level; /* enum log_level */
} logger = {.service = "", .level = LOG_INFO};

static _Thread_local struct {
    bool holding;
    struct buf lines;
} held;

void log_init(const char *service, const char *format, const char *level)
{
    logger.service = service;
    log_change(format, level);
}

void log_change(const char *format, const char *level)
{
    bool json = strcmp(format, "json") == 0;
    atomic_store_explicit(&logger.json, json, memory_order_relaxed);
    const char *no_color = getenv("NO_COLOR"); /* https://no-color.org: an empty one says nothing */
    bool wanted = !no_color || !*no_color;
    atomic_store_explicit(&logger.colour, wanted && !json && isatty(STDOUT_FILENO), memory_order_relaxed);
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (strcmp(level, level_names[i]) == 0)
            atomic_store_explicit(&logger.level, i, memory_order_relaxed);
}

bool log_is_json(void)
{
    return atomic_load_explicit(&logger.json, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return level >= atomic_load_explicit(&logger.level, memory_order_relaxed);
}

static size_t count_line_ends(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += *text == LINE_END;
    return count;
}

/* Appends outside text as a terminal may show it: control characters (ASCII's, and U+0080 to U+009F) and
 * bytes that are no UTF-8 are escaped. `line_end` is what LINE_END becomes, NULL for an escape too. */
static void put_clean(struct buf *out, const char *text, const char *line_end)
{
    for (size_t left = strlen(text), step; left > 0; text += step, left -= step) {
        for (step = 0; step < left && text[step] >= 0x20 && text[step] < 0x7F; step++)
            continue;
        if (step > 0) { /* a run of ASCII */
            buf_append(out, text, step);
            continue;
        }
        const unsigned char *c = (const unsigned char *)text;
        step = utf8_step(text, left);
        bool control = step == 1 || (step == 2 && c[0] == 0xC2 && c[1] < 0xA0);
        if (*c == LINE_END && line_end)
            buf_text(out, line_end);
        else if (step > 0 && !control)
            buf_append(out, text, step);
        else
            buf_format(out, "\\x%02x", c[step == 2]);
        step = step ? step : 1;
    }
}

/* The message with the line ends of its format: text from outside can neither forge a line nor reach the
 * terminal. A text that holds LINE_END itself makes the block one line, and so does a cut, which may have
 * taken as many of the format's as the text brings. */
static void put_message(struct buf *out, const char *format, va_list args)
{
    char ours[FORMAT_MAX_BYTES], message[MESSAGE_MAX_BYTES];
    (void)text_copy(ours, sizeof ours, format);
    for (char *end = ours; (end = strchr(end, '\n')); end++)
        *end = LINE_END;
    int len = vsnprintf(message, sizeof message, ours, args);
    bool whole = len >= 0 && (size_t)len < sizeof message;
    text_mend(message);
    bool known = whole && count_line_ends(ours) == count_line_ends(message);
    put_clean(out, message, known ? "\n" : NULL);
}

static void put_pretty(struct buf *out, enum log_level level, const char *message)
{
    static const char *const colours[] = {"\033[2m", "", "\033[33m", "\033[31m"};
    bool coloured = atomic_load_explicit(&logger.colour, memory_order_relaxed) && colours[level][0];
    if (coloured)
        buf_text(out, colours[level]);
    buf_text(out, message);
    if (coloured)
        buf_text(out, "\033[0m");
    buf_char(out, '\n');
}

static void put_json(struct buf *out, enum log_level level, const char *event, const struct log_field *fields,
                     const char *message)
{
    char time[TIMESTAMP_SIZE];
    timestamp_format(clock_wall_ms(), time);
    buf_format(out, "{\"time\":\"%s\",\"level\":\"%s\"", time, level_names[level]);
    json_put_name(out, "service");
    json_put_text(out, logger.service);
    json_put_name(out, "event");
    json_put_text(out, event);
    json_put_name(out, "message");
    json_put_text(out, message);
    for (; fields && fields->key; fields++) {
        if (fields->text && !fields->text[0])
            continue;
        json_put_name(out, fields->key);
        if (fields->text)
            json_put_text_n(out, fields->text, strnlen(fields->text, FIELD_MAX_BYTES));
        else
            buf_number(out, fields->number);
    }
    buf_text(out, "}\n");
}

/* One thread at a time: a pipe that is full lets others in between the parts of a long write. Nobody can be
 * told that the log itself fails. */
static void write_out(const char *bytes, size_t len)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    while (len > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        bytes += written;
        len -= (size_t)written;
    }
    pthread_mutex_unlock(&mutex);
}

static void write_held(void)
{
    write_out(held.lines.data, held.lines.len);
    buf_clear(&held.lines);
}

void log_hold(void)
{
    if (!held.holding)
        buf_init(&held.lines, HELD_BYTES + LINE_MAX_BYTES);
    held.holding = true;
}

void log_release(void)
{
    if (!held.holding)
        return;
    write_held();
    buf_done(&held.lines);
    held.holding = false;
}

void log_event(enum log_level level, const char *event, const struct log_field *fields, const char *format,
               ...)
{
    if (!log_enabled(level))
        return;
    CLEANUP(buf_done) struct buf message;
    buf_init(&message, LINE_MAX_BYTES / 2);
    va_list args;
    va_start(args, format);
    put_message(&message, format, args);
    va_end(args);

    CLEANUP(buf_done) struct buf line;
    buf_init(&line, LINE_MAX_BYTES);
    if (log_is_json())
        put_json(&line, level, event, fields, buf_get(&message));
    else
        put_pretty(&line, level, buf_get(&message));
    if (!held.holding) {
        write_out(line.data, line.len);
        return;
    }
    buf_append(&held.lines, line.data, line.len);
    if (level >= LOG_WARN || held.lines.len >= HELD_BYTES)
        write_held();
}

enum log_level log_repeated(struct log_repeat *repeat, enum log_level level, int64_t now_ms)
{
    int64_t due_ms = atomic_load(&repeat->due_ms), next_ms;
    do {
        next_ms = (due_ms > now_ms ? due_ms : now_ms) + LOG_REPEAT_MS;
        if (next_ms - now_ms > (int64_t)LOG_REPEAT_BURST * LOG_REPEAT_MS) {
            atomic_fetch_add(&repeat->left_out, 1);
            return LOG_DEBUG;
        }
    } while (!atomic_compare_exchange_weak(&repeat->due_ms, &due_ms, next_ms));
    int64_t left_out = atomic_exchange(&repeat->left_out, 0);
    if (left_out && !log_enabled(LOG_DEBUG))
        log_event(level, "log.left_out", LOG_FIELDS(LOG_NUMBER("count", left_out)),
                  "… %lld lignes semblables à la suivante n'ont pas été écrites", (long long)left_out);
    return level;
}
