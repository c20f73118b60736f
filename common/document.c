#include "document.h"

#include <string.h>

#include "api.h"

enum { DOCUMENT_MAX_BYTES = 1 << 20 };

extern const struct document common_pages[]; /* docs.html, embedded */

/* The page's one script and one style by their hashes, so that nothing that gets into the page runs; a test
 * says what they are when the page has changed. */
static const char page_policy[] = "default-src 'none'; connect-src 'self'; img-src data:; "
                                  "script-src 'sha256-Tiklj6j8PdY8UuXruPQnebnY3T0FgwntP3AReARhgfM='; "
                                  "style-src 'sha256-/6xrghK/Dbo0pONiP602KuxgRBTh5h4WHrFd2rzhq2M='; "
                                  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

int64_t document_version(const char *text)
{
    static const int64_t least = 1000000000000000, count = 9000000000000000;
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
    return least + (int64_t)(hash % (uint64_t)count);
}

void document_answer(struct http_call *call, const struct document *document, const char *content_type)
{
    http_call_set(call, "Vary", "Accept-Encoding");
    if (!api_weak_etag(call, document_version(document->text)))
        return;
    struct buf body;
    buf_init(&body, DOCUMENT_MAX_BYTES);
    buf_text(&body, document->text);
    api_answer_packed(call, content_type, &body);
}

void document_get_docs(struct http_call *call, void *service)
{
    (void)service;
    http_call_set(call, "Content-Security-Policy", "%s", page_policy);
    http_call_set(call, "X-Content-Type-Options", "nosniff");
    http_call_set(call, "Referrer-Policy", "no-referrer");
    document_answer(call, &common_pages[0], "text/html; charset=utf-8");
}
