/* Answers compressed with gzip (RFC 1952), over zlib (which gzip.c alone includes). One thread at a time owns
 * a compressor; gzip_accepted is pure. */
#ifndef COMMON_GZIP_H
#define COMMON_GZIP_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"

/* Below this many bytes the plain form is sent: it fits a packet, and gzip's own 18 bytes would be felt. */
enum { GZIP_MIN_BYTES = 1024 };

/* Whether a request with this Accept-Encoding (NULL: none) is to get gzip: it is acceptable ("gzip" or
 * "x-gzip" with a weight over 0, or "*" where it is not named) and not less welcome than the plain form where
 * that has a weight (RFC 9110 section 12.5.3). Members that are no such thing are passed over. */
bool gzip_accepted(const char *accept_encoding);

struct gzip;

/* A compressor, some 270 KB, that writes to `out`, which outlives it. */
struct gzip *gzip_new(struct buf *out);

/* Frees it; NULL and an unfinished one are fine. */
void gzip_free(struct gzip *gzip);

/* Takes more of the content; the compressed bytes come into the output sooner or later. */
void gzip_add(struct gzip *gzip, const char *bytes, size_t len);

/* The content is complete: writes what is left and the trailer. Nothing can be added after it. */
void gzip_end(struct gzip *gzip);

#endif
