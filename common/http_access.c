/* Who is calling, and whether they may. */
#include <microhttpd.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "http_internal.h"

enum { FORWARDED_MAX_BYTES = 4096 };

/* RFC 6750 section 3: no error is named to who sent no token. */
static void challenge(struct http_call *call, enum status status)
{
    const char *error = status == STATUS_FORBIDDEN        ? ", error=\"insufficient_scope\", scope=\"write\""
                        : call->known[HTTP_AUTHORIZATION] ? ", error=\"invalid_token\""
                                                          : "";
    http_call_set(call, "WWW-Authenticate", "Bearer realm=\"soirees\"%s", error);
}

static bool is_open(const struct http_call *call)
{
    unsigned flags = call->route->flags;
    return (flags & HTTP_OPEN) || ((flags & HTTP_METRICS) && call->server->config.metrics_open);
}

void http_access_check(struct http_call *call)
{
    struct tokens *tokens = call->server->config.tokens;
    if (!tokens || !call->route || is_open(call) || call->refusal.status != STATUS_OK)
        return;
    /* two of them could be read differently by a proxy in front */
    bool single = !(call->repeated & 1u << HTTP_AUTHORIZATION);
    enum status status = tokens_check(tokens, single ? call->known[HTTP_AUTHORIZATION] : NULL,
                                      call->method == HTTP_GET ? TOKEN_READ : TOKEN_WRITE, call->token_name,
                                      &call->refusal);
    if (status != STATUS_OK)
        challenge(call, status);
}

const char *http_call_token_name(const struct http_call *call)
{
    return call->token_name;
}

static enum MHD_Result on_forwarded(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct buf *joined = arg;
    (void)kind;
    if (strcasecmp(name, "X-Forwarded-For") == 0 && value)
        buf_format(joined, "%s%s", joined->len ? "," : "", value);
    return MHD_YES;
}

void http_access_client(const struct http_call *call, char out[ADDRESS_SIZE])
{
    static const struct proxies none;
    const struct proxies *proxies = call->server->config.proxies ? call->server->config.proxies : &none;
    const union MHD_ConnectionInfo *peer = MHD_get_connection_info(call->connection,
                                                                   MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    CLEANUP(buf_done) struct buf forwarded;
    buf_init(&forwarded, FORWARDED_MAX_BYTES);
    if (proxies->count)
        (void)MHD_get_connection_values(call->connection, MHD_HEADER_KIND, on_forwarded, &forwarded);
    proxies_client(proxies, peer ? peer->client_addr : NULL, buf_ok(&forwarded) ? buf_get(&forwarded) : NULL,
                   out);
}
