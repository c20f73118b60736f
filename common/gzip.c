#include "gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#define ZLIB_CONST /* input is const */
#include <zlib.h>

#include "mem.h"

enum { WINDOW_BITS = 15, GZIP_FORMAT = 16, MEMORY_LEVEL = 8, PIECE_BYTES = 16 * 1024 };

/* ---- what the client accepts ---- */

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* Reads `;q=0.5` at *at, in thousandths, and moves behind it; 1000 where there is none, -1 for anything else.
 */
static int read_weight(const char **at)
{
    const char *text = skip_blanks(*at);
    int weight = 1000;
    if (*text == ';') {
        text = skip_blanks(text + 1);
        if (strncasecmp(text, "q=", 2) != 0 || (text[2] != '0' && text[2] != '1'))
            return -1;
        weight = text[2] == '1' ? 1000 : 0;
        text += 3;
        if (*text == '.') {
            text++;
            for (int unit = 100; unit > 0 && *text >= '0' && *text <= '9'; unit /= 10)
                weight += (*text++ - '0') * unit;
        }
        text = skip_blanks(text);
    }
    *at = text;
    return weight <= 1000 && (*text == ',' || *text == '\0') ? weight : -1;
}

bool gzip_accepted(const char *accept_encoding)
{
    int gzip = -1, plain = -1, others = -1; /* weights; -1: not named */
    for (const char *at = accept_encoding ? accept_encoding : ""; *at;) {
        at += strspn(at, " \t,");
        size_t len = strcspn(at, " \t,;");
        const char *name = at;
        at += len;
        int weight = read_weight(&at);
        if (weight < 0)
            at += strcspn(at, ",");
        else if ((len == 4 && strncasecmp(name, "gzip", len) == 0) ||
                 (len == 6 && strncasecmp(name, "x-gzip", len) == 0))
            gzip = weight;
        else if (len == 8 && strncasecmp(name, "identity", len) == 0)
            plain = weight;
        else if (len == 1 && *name == '*')
            others = weight;
    }
    gzip = gzip >= 0 ? gzip : others;
    plain = plain >= 0 ? plain : others;
    return gzip > 0 && gzip >= plain;
}

/* ---- the compressor ---- */

struct gzip {
    z_stream stream;
    struct buf *out;
};

static void *allocate(void *arg, unsigned count, unsigned size)
{
    (void)arg;
    return mem_new((size_t)count * size);
}

static void release(void *arg, void *memory)
{
    (void)arg;
    free(memory);
}

struct gzip *gzip_new(struct buf *out)
{
    struct gzip *gzip = mem_new(sizeof *gzip);
    gzip->out = out;
    gzip->stream.zalloc = allocate;
    gzip->stream.zfree = release;
    /* The fastest level: lists of like items shrink to a tenth with it, and the thread has others to serve.
     */
    if (deflateInit2(&gzip->stream, Z_BEST_SPEED, Z_DEFLATED, WINDOW_BITS + GZIP_FORMAT, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        abort(); /* memory does not run out, and the arguments are right */
    return gzip;
}

void gzip_free(struct gzip *gzip)
{
    if (!gzip)
        return;
    (void)deflateEnd(&gzip->stream);
    free(gzip);
}

/* deflate() until it has no more to say; it cannot fail with a stream that is in order. */
static void run(struct gzip *gzip, int flush)
{
    char piece[PIECE_BYTES];
    do {
        gzip->stream.next_out = (unsigned char *)piece;
        gzip->stream.avail_out = sizeof piece;
        if (deflate(&gzip->stream, flush) == Z_STREAM_ERROR)
            abort();
        buf_append(gzip->out, piece, sizeof piece - gzip->stream.avail_out);
    } while (gzip->stream.avail_out == 0);
}

void gzip_add(struct gzip *gzip, const char *bytes, size_t len)
{
    while (len > 0) {
        unsigned count = len < UINT_MAX ? (unsigned)len : UINT_MAX;
        gzip->stream.next_in = (const unsigned char *)bytes;
        gzip->stream.avail_in = count;
        run(gzip, Z_NO_FLUSH);
        bytes += count;
        len -= count;
    }
}

void gzip_end(struct gzip *gzip)
{
    gzip->stream.next_in = NULL;
    gzip->stream.avail_in = 0;
    run(gzip, Z_FINISH);
}
