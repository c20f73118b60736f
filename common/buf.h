/* A growing byte buffer with a maximum fixed at construction. Owned by one thread at a time.
 * Appending past the maximum appends nothing more and marks the buffer overflowed; check once, at the end,
 * with buf_ok(). The content always has a NUL behind it (not counted), so text can be used as a C string. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL while nothing was appended */
    size_t len, capacity, max_bytes;
    bool overflowed;
};

/* An empty buffer that holds up to `max_bytes` (over 0). Allocates nothing yet. */
void buf_init(struct buf *buf, size_t max_bytes);

/* Frees the content; a zeroed or already freed buffer is fine. For CLEANUP(). */
void buf_done(struct buf *buf);

/* Empties it and keeps the memory. */
void buf_clear(struct buf *buf);

void buf_append(struct buf *buf, const char *bytes, size_t len);
void buf_text(struct buf *buf, const char *text);
void buf_char(struct buf *buf, char c);
void buf_number(struct buf *buf, long long number);
void buf_format(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* False when something did not fit. */
bool buf_ok(const struct buf *buf);

/* The content as a C string ("" when empty), borrowed until the next append. */
const char *buf_get(const struct buf *buf);

/* Moves the content to the caller (free() it; never NULL) and leaves the buffer empty, its maximum kept. */
char *buf_take(struct buf *buf);

#endif
