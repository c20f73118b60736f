/* What the REST routes of both services share: bodies, pages, versions, idempotency keys. Functions that
 * return false have answered the call themselves (it is gone then). The pure ones say so. */
#ifndef COMMON_API_H
#define COMMON_API_H

#include <stdbool.h>
#include <stdint.h>

#include "http_server.h"
#include "json.h"

/* Parses the body: 400 when it is not JSON. The document is the caller's. */
bool api_body(struct http_call *call, cJSON **ret_document);

/* Answers 422 with all problems (or the one in `detail` when there is one alone). */
void api_answer_invalid(struct http_call *call, const struct problems *problems);

/* ---- pages ---- */
enum {
    API_LIMIT_DEFAULT = 100,
    API_LIMIT_MAX = 1000,
    API_PAGE_BYTES = 4 << 20,      /* a page that has reached it ends, whatever its limit */
    API_BACKLOG_BYTES = 128 << 20, /* of answers that clients have yet to take: no list is begun above it */
};
struct api_page {
    int64_t limit;  /* 1..API_LIMIT_MAX */
    int64_t before; /* rows with a smaller sequence number; INT64_MAX on the first page */
};
/* Reads `limit` and `cursor`; what is wrong is added to *problems. */
void api_page_read(struct http_call *call, struct api_page *ret_page, struct problems *problems);

/* The answer of a list under construction. The store is asked for one row more than the page holds: it tells
 * whether there is a next page. Where the client takes gzip it is compressed as it grows, so that no more
 * than some rows are ever there as they are. */
struct api_list {
    struct buf body, packed; /* to be compressed, or all of it; compressed */
    struct gzip *gzip;       /* NULL until there is something to compress */
    bool gzip_accepted, more;
    int64_t left, last;
    size_t packed_bytes; /* before they were compressed */
};
/* No row may be longer than `row_bytes`. False: answered with 503, since clients are slow to take what they
 * asked for and memory is not without end. */
bool api_list_init(struct api_list *list, struct http_call *call, const struct api_page *page,
                   size_t row_bytes);
void api_list_done(struct api_list *list); /* for CLEANUP() */
/* Where to write the row with sequence number `seq`; NULL for the one too many: it is the last. */
struct buf *api_list_row(struct api_list *list, int64_t seq);
/* Answers 200 with the rows, compressed or not (`Vary: Accept-Encoding` either way), and with `Link: <…>;
 * rel="next"` when there are more: the query's parameters that `filters` (ended by NULL) lists are repeated
 * in it. */
void api_list_answer(struct http_call *call, struct api_list *list, const struct api_page *page,
                     const char *const *filters);

/* A filter that must be a text of 1..max code points; "" when absent. Borrowed until the answer. */
const char *api_filter_text(struct http_call *call, const char *name, size_t max, struct problems *problems);
const char *api_filter_date(struct http_call *call, const char *name, struct problems *problems);

/* Answers 200 with a text that never changes its form; compressed where the client takes that. `Vary` is the
 * caller's. */
void api_answer_packed(struct http_call *call, const char *content_type, struct buf *body);

/* ---- versions: strong ETags from a counter (RFC 9110 section 8.8.3) ---- */
/* What a change depends on (RFC 9110 sections 13.1.1, 13.1.2): lists of entity tags, NULL where there is no
 * such header. Borrowed from the call, which waits for its write. */
struct api_conditions {
    const char *match;      /* If-Match: tags that are weak or not ours never match */
    const char *none_match; /* If-None-Match: weak ones count too */
};
void api_conditions_read(struct http_call *call, struct api_conditions *ret_conditions);
/* Pure: whether a change of the item at `version` may go on. */
bool api_conditions_hold(const struct api_conditions *conditions, int64_t version);
/* Sets ETag, and answers 304 (returns false) when If-None-Match names this version. */
bool api_etag(struct http_call *call, int64_t version);
/* Sets a weak ETag, and answers 304 (returns false) when If-None-Match names it: for what may come compressed
 * or not, whose forms could not share a strong one (RFC 9110 section 8.8.3.3). */
bool api_weak_etag(struct http_call *call, int64_t version);
/* Pure: whether a list of entity tags, or "*", names the version. Nothing is read behind what is no tag. */
bool api_tags_name(const char *tags, bool weak_too, int64_t version);

/* ---- Idempotency-Key ---- */
enum { API_KEY_MAX = 128, API_KEY_SIZE = TOKEN_NAME_SIZE + 1 + API_KEY_MAX + 1 };
/* The key, "" when the header is absent; 422 when it is not 1..128 printable ASCII characters. Where there
 * are tokens, the token's name and a line end stand before it: one client's keys are not another's. */
bool api_idempotency_key(struct http_call *call, char key[API_KEY_SIZE]);

#endif
