/* What tests reach of http_client.c beside its interface. */
#ifndef COMMON_HTTP_CLIENT_INTERNAL_H
#define COMMON_HTTP_CLIENT_INTERNAL_H

#include "http_client.h"

/* Takes one header line of a reply, as libcurl gives it: not terminated, its line end in it or not. Of
 * interest is X-Consul-Index alone: what is no number is 0, one that is too large the largest. */
void http_exchange_take_header(struct http_exchange *exchange, const char *bytes, size_t len);

#endif
