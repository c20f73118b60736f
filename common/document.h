/* Documents that never change while the program runs, embedded when it is built (common/embed.cmake): the
 * description of the service (openapi.json) and the page that shows it (docs.html). Any thread. */
#ifndef COMMON_DOCUMENT_H
#define COMMON_DOCUMENT_H

#include <stdint.h>

#include "http_server.h"

struct document {
    const char *name; /* of the file, without its ending */
    const char *text;
};

/* Answers 200 with the document, compressed where the client takes that, or 304; its weak ETag comes from its
 * content. */
void document_answer(struct http_call *call, const struct document *document, const char *content_type);

/* A handler: GET /docs, the page that shows ./openapi.json. */
void document_get_docs(struct http_call *call, void *service);

/* Pure: the version for the ETag, 16 decimal digits of a hash (FNV-1a, 64 bits: not against an adversary, and
 * nobody else writes these documents). */
int64_t document_version(const char *text);

#endif
