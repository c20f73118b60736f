#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

enum { FIRST_CAPACITY = 256 };

void buf_init(struct buf *buf, size_t max_bytes)
{
    *buf = (struct buf){.max_bytes = max_bytes};
}

void buf_done(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){.max_bytes = buf->max_bytes};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->overflowed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

/* Makes room for `len` more bytes and a NUL; false (and marked) where that passes the maximum. */
static bool reserve(struct buf *buf, size_t len)
{
    if (buf->overflowed || len > buf->max_bytes - buf->len) {
        buf->overflowed = true;
        return false;
    }
    size_t needed = buf->len + len + 1;
    if (needed <= buf->capacity)
        return true;
    size_t capacity = buf->capacity ? buf->capacity * 2 : FIRST_CAPACITY;
    if (capacity < needed)
        capacity = needed;
    buf->data = mem_grow(buf->data, capacity);
    buf->capacity = capacity;
    return true;
}

void buf_append(struct buf *buf, const char *bytes, size_t len)
{
    if (len == 0 || !reserve(buf, len))
        return;
    memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void buf_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_char(struct buf *buf, char c)
{
    if (!reserve(buf, 1))
        return;
    buf->data[buf->len++] = c;
    buf->data[buf->len] = '\0';
}

void buf_number(struct buf *buf, long long number)
{
    char digits[24];
    size_t at = sizeof digits;
    unsigned long long left = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    do
        digits[--at] = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        digits[--at] = '-';
    buf_append(buf, digits + at, sizeof digits - at);
}

void buf_format(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    size_t room = buf->capacity ? buf->capacity - buf->len : 0; /* mostly enough, for the NUL too */
    int len = vsnprintf(room ? buf->data + buf->len : NULL, room, format, args);
    bool fits = len > 0 && reserve(buf, (size_t)len);
    if (fits && (size_t)len >= room)
        (void)vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
    if (fits)
        buf->len += (size_t)len;
    else if (room)
        buf->data[buf->len] = '\0';
    va_end(again);
    va_end(args);
}

bool buf_ok(const struct buf *buf)
{
    return !buf->overflowed;
}

const char *buf_get(const struct buf *buf)
{
    return buf->data ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
    char *data = buf->data ? buf->data : mem_copy("", 0);
    *buf = (struct buf){.max_bytes = buf->max_bytes};
    return data;
}
