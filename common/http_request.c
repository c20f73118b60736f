#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_internal.h"
#include "ids.h"
#include "mem.h"

enum {
    /* libmicrohttpd keeps 32 KB for both heads; where the answer's does not fit it closes without one, too
     * late to matter if the handler has run. */
    HEAD_MAX_BYTES = 24 * 1024,
    /* Who sends more than this many times the allowed body, without having said so beforehand, is cut off. */
    PATIENCE = 4,
};

static void refuse(struct http_call *call, enum status status, const char *detail)
{
    if (call->refusal.status == STATUS_OK)
        err_set(&call->refusal, status, "%s", detail);
}

/* ---- the target ---- */

/* RFC 9112 section 3.2.2: the absolute form must be understood too. */
static const char *skip_authority(const char *target)
{
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    return scheme ? target + scheme + strcspn(target + scheme, "/?") : target;
}

static void keep_target(struct http_call *call, const char *target)
{
    const char *path = skip_authority(target);
    bool rootless = path != target && *path != '/';
    size_t size = strlen(path) + rootless + 1;

    call->target = call->target_small;
    call->decoded = call->decoded_small;
    if (size > sizeof call->target_small) {
        call->target_heap = mem_grow(NULL, 2 * size);
        call->target = call->target_heap;
        call->decoded = call->target_heap + size;
    }
    call->target[0] = '/';
    memcpy(call->target + rootless, path, size - rootless);
    call->target_len = strlen(target);
    for (const unsigned char *c = (const unsigned char *)call->target; *c; c++)
        call->bad_head = call->bad_head || *c <= ' ' || *c == 0x7F;

    size_t path_len = strcspn(call->target, "?");
    call->path = call->target;
    call->query_text = call->target + path_len + (call->target[path_len] == '?');
    call->target[path_len] = '\0';
}

struct http_call *http_call_new(struct http_server *server, struct MHD_Connection *connection,
                                struct http_connection *peer, const char *target)
{
    struct http_call *call = mem_grow(NULL, sizeof *call);
    memset(call, 0, offsetof(struct http_call, request_id));
    call->server = server;
    call->connection = connection;
    call->peer = peer;
    call->began_us = clock_mono_us();
    call->param = "";
    call->body = call->body_small;
    call->body_capacity = sizeof call->body_small;
    call->body_small[0] = '\0';
    keep_target(call, target);
    return call;
}

void http_call_free(struct http_call *call)
{
    (void)atomic_fetch_sub_explicit(&call->server->backlog, call->backlog, memory_order_relaxed);
    for (size_t i = 0; i < call->set_count; i++)
        if (call->set[i].owned)
            free(call->set[i].value);
    if (call->body != call->body_small)
        free(call->body);
    free(call->answer);
    free(call->target_heap);
    for (struct http_joined *next, *joined = call->joined; joined; joined = next) {
        next = joined->next;
        free(joined);
    }
    free(call);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Writes text[0..len) to call->decoded, its %XX decoded (and in a query '+' as a space), with a NUL behind.
 * NULL for a wrong escape, %00, what is not UTF-8, and in a path %2F, which would make two paths one. */
static char *decode(struct http_call *call, const char *text, size_t len, bool query)
{
    char *start = call->decoded, *to = start;
    bool sound = true;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 1 < len ? hex_digit(text[i + 1]) : -1,
                low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
            c = (char)(high < 0 || low < 0 ? 0 : high << 4 | low);
            sound = sound && c && (query || c != '/');
            i += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        *to++ = c;
    }
    *to = '\0';
    if (!sound || !utf8_valid(start, (size_t)(to - start)))
        return NULL;
    call->decoded = to + 1;
    return start;
}

static void parse_query(struct http_call *call)
{
    for (const char *part = call->query_text; *part;) {
        size_t len = strcspn(part, "&"), name_len = strcspn(part, "&=");
        if (len > 0) {
            const char *name = decode(call, part, name_len, true);
            /* Without '=' there is no room for a NUL but the name's: what is decoded is never longer than the
             * target. */
            const char *value = name && name_len == len ? name + strlen(name) : NULL;
            if (name && name_len < len)
                value = decode(call, part + name_len + 1, len - name_len - 1, true);
            if (!value) {
                refuse(call, STATUS_INVALID, "Paramètre de requête mal encodé");
                return;
            }
            if (http_call_query(call, name)) {
                err_set(&call->refusal, STATUS_INVALID, "Paramètre de requête donné deux fois : %.*s",
                        (int)utf8_prefix(name, 40), name);
                return;
            }
            if (call->query_count == HTTP_QUERY_MAX) {
                refuse(call, STATUS_INVALID, "Trop de paramètres de requête");
                return;
            }
            call->query[call->query_count++] = (struct http_query){name, value};
        }
        part += len + (part[len] == '&');
    }
}

/* ---- the headers ---- */

static const char *const known_headers[HTTP_KNOWN_COUNT] = {
    [HTTP_CONTENT_ENCODING] = "Content-Encoding",
    [HTTP_AUTHORIZATION] = "Authorization",
    [HTTP_CONTENT_LENGTH] = "Content-Length",
    [HTTP_CONTENT_TYPE] = "Content-Type",
    [HTTP_EXPECT] = "Expect",
    [HTTP_HOST] = "Host",
    [HTTP_ORIGIN] = "Origin",
    [HTTP_PREFLIGHT_METHOD] = "Access-Control-Request-Method",
    [HTTP_REQUEST_ID] = "X-Request-Id",
    [HTTP_TRANSFER_ENCODING] = "Transfer-Encoding",
};

/* RFC 9110 section 5.6.2 */
static bool is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i], letter = (char)(c | 32);
        bool alphanumeric = (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9');
        if (!alphanumeric && (c == '\0' || !strchr("-_!#$%&'*+.^`|~", c)))
            return false;
    }
    return len > 0;
}

/* libmicrohttpd 0.9.75 cuts a value at a NUL, and glues a folded line to the header's name (`Content-Length:
 * 5`, then ` 0`, makes `Content-Length0: 5`): a proxy in front may have read another request. Both show in
 * memory, where it leaves the head as it came but for NULs in place of separators: each part must begin where
 * the one before ended. */
static bool follows(const char *end, const char *start)
{
    return start == end + 1 || start == end + 2; /* LF alone is allowed, RFC 9112 section 2.2 */
}

static bool is_in_place(const struct http_call *call, const char *name, size_t name_len, const char *value)
{
    const char *gap = name + name_len + 1;
    if (!follows(call->head_end, name) || (uintptr_t)value < (uintptr_t)gap)
        return false;
    while (gap < value && (*gap == ' ' || *gap == '\t'))
        gap++;
    return gap == value;
}

/* What libmicrohttpd goes by itself must be seen here as it sees it. */
static bool is_framing(size_t known)
{
    return known == HTTP_CONTENT_LENGTH || known == HTTP_TRANSFER_ENCODING || known == HTTP_HOST;
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                 const char *value, size_t value_len)
{
    struct http_call *call = arg;
    (void)kind;
    if (!is_token(name, name_len) || (value_len > 0 && memchr(value, '\r', value_len)))
        call->bad_head = true;
    if (call->head_end) {
        call->bad_head = call->bad_head || !is_in_place(call, name, name_len, value);
        call->head_end = value + value_len;
    }
    for (size_t i = 0; i < HTTP_KNOWN_COUNT; i++) {
        const char *known = known_headers[i];
        if ((*known | 32) != (*name | 32) || strncasecmp(known, name, name_len) != 0 || known[name_len])
            continue;
        if (call->known[i])
            call->repeated |= 1u << i;
        else
            call->known[i] = !value ? "" : is_framing(i) ? value : http_call_value(call, value, value_len);
        break;
    }
    return call->bad_head ? MHD_NO : MHD_YES;
}

static void read_headers(struct http_call *call, const char *method, const char *version)
{
    static const char known_layout[] = "0.9.75";
    bool checks_layout = strcmp(MHD_get_version(), known_layout) == 0;
    if (checks_layout) {
        call->head_end = version + strlen(version);
        call->bad_head = call->bad_head || version != method + strlen(method) + 1 + call->target_len + 1;
    }
    (void)MHD_get_connection_values_n(call->connection, MHD_HEADER_KIND, on_header, call);
    const union MHD_ConnectionInfo *size = MHD_get_connection_info(call->connection,
                                                                   MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    call->head_size = size ? size->header_size : 0;
    if (checks_layout && !call->bad_head && size) {
        ptrdiff_t rest = method + call->head_size - call->head_end;
        call->bad_head = rest < 2 || rest > 4;
    }
}

/* RFC 9112 section 3.2: a Host that can be none is refused. A comma could be, but hints at two hosts in one.
 */
static bool is_host(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-._~%!$&'()*+;=:[]";
    return text[strspn(text, allowed)] == '\0';
}

/* The shapes by which two servers can be made to see different requests in the same bytes (RFC 9112
 * section 11.2). */
static bool is_sound(const struct http_call *call, const char *version)
{
    const unsigned single = 1u << HTTP_CONTENT_LENGTH | 1u << HTTP_TRANSFER_ENCODING | 1u << HTTP_HOST |
                            1u << HTTP_CONTENT_TYPE;
    const char *encoding = call->known[HTTP_TRANSFER_ENCODING];
    bool modern = strcmp(version, "HTTP/1.1") == 0;
    if (call->bad_head || (call->repeated & single))
        return false;
    if (encoding && (!modern || call->known[HTTP_CONTENT_LENGTH] || strcasecmp(encoding, "chunked") != 0))
        return false;
    const char *host = call->known[HTTP_HOST];
    return host ? is_host(host) : !modern;
}

static void choose_request_id(struct http_call *call)
{
    const char *theirs = call->known[HTTP_REQUEST_ID];
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";
    size_t len = theirs ? strlen(theirs) : 0;
    bool sole = !(call->repeated & 1u << HTTP_REQUEST_ID);
    if (sole && len > 0 && len <= HTTP_REQUEST_ID_MAX && strspn(theirs, allowed) == len)
        memcpy(call->request_id, theirs, len + 1);
    else
        uuid_v7(call->request_id);
}

/* Whether `type` is JSON for the method, in UTF-8 if it says what it is in (RFC 9110 section 8.3). */
static bool is_json(const char *type, enum http_method method)
{
    size_t len = strcspn(type, "; \t");
    bool accepted = (len == 16 && strncasecmp(type, "application/json", len) == 0) ||
                    (method == HTTP_PATCH && len == 28 &&
                     strncasecmp(type, "application/merge-patch+json", len) == 0);
    for (const char *p = type + len + strspn(type + len, " \t"); accepted && *p; p += strspn(p, " \t")) {
        if (*p++ != ';')
            return false;
        p += strspn(p, " \t");
        bool is_charset = strncasecmp(p, "charset=", 8) == 0;
        p += strcspn(p, "=;");
        if (*p != '=')
            continue;
        bool quoted = *++p == '"';
        p += quoted;
        size_t value_len = strcspn(p, quoted ? "\"" : "; \t");
        accepted = !is_charset || (value_len == 5 && strncasecmp(p, "utf-8", 5) == 0);
        p += value_len;
        if (quoted && *p++ != '"')
            return false;
    }
    return accepted;
}

/* ---- the route ---- */

static const char *const method_names[HTTP_ROUTED_COUNT] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

const char *http_method_name(enum http_method method)
{
    return method < HTTP_ROUTED_COUNT ? method_names[method] : NULL;
}

enum http_method http_method_parse(const char *text)
{
    for (size_t i = 0; i < HTTP_ROUTED_COUNT; i++)
        if (strcmp(text, method_names[i]) == 0)
            return (enum http_method)i;
    return strcmp(text, "HEAD") == 0 ? HTTP_GET : strcmp(text, "OPTIONS") == 0 ? HTTP_OPTIONS : HTTP_OTHER;
}

void http_allow_format(unsigned allowed, char out[HTTP_ALLOW_SIZE])
{
    int len = 0;
    for (size_t i = 0; i < HTTP_ROUTED_COUNT; i++)
        if (allowed & 1u << i)
            len += snprintf(out + len, (size_t)(HTTP_ALLOW_SIZE - len), "%s, %s", method_names[i],
                            i == HTTP_GET ? "HEAD, " : "");
    (void)snprintf(out + len, (size_t)(HTTP_ALLOW_SIZE - len), "OPTIONS");
}

static bool route_fits(const struct http_match *match, const char *route_path, const char *path, size_t len)
{
    if (len < match->prefix || memcmp(route_path, path, match->prefix) != 0)
        return false;
    if (!match->has_param)
        return len == match->prefix;
    return len > match->prefix && !memchr(path + match->prefix, '/', len - match->prefix);
}

static void find_route(struct http_call *call)
{
    const struct http_server_config *config = &call->server->config;
    char *path = decode(call, call->path, strlen(call->path), false);
    size_t len = path ? strlen(path) : 0;
    bool everything = call->method == HTTP_OPTIONS && path &&
                      strcmp(path, "*") == 0;                    /* RFC 9110 section 9.3.7 */
    if (len > 1 && path[len - 1] == '/' && path[len - 2] != '/') /* "/api/soirees/" is "/api/soirees" */
        path[--len] = '\0';

    for (size_t i = 0; i < config->route_count && path; i++) {
        const struct http_match *match = &call->server->matches[i];
        if (!everything && !route_fits(match, config->routes[i].path, path, len))
            continue;
        call->allowed |= 1u << match->method;
        if (!everything && (!call->matched || !match->has_param))
            call->matched = match;
        if (match->method == call->method && (!call->route || !match->has_param)) {
            call->route = &config->routes[i];
            call->param = path + match->prefix;
        }
    }
    if (!call->allowed)
        refuse(call, STATUS_NOT_FOUND, "Aucune ressource à ce chemin");
    else if (!call->route && call->method != HTTP_OPTIONS)
        refuse(call, STATUS_METHOD, "Cette ressource ne connaît pas cette méthode");
}

/* ---- one request, in the order it arrives ---- */

bool http_call_begin(struct http_call *call, const char *method, const char *version)
{
    call->begun = true;
    call->method_text = method;
    call->method = http_method_parse(method);
    read_headers(call, method, version);
    choose_request_id(call);
    bool sound = is_sound(call, version);
    if (!sound || call->head_size > HEAD_MAX_BYTES) {
        refuse(call, STATUS_MALFORMED,
               sound ? "L'en-tête de la requête est trop volumineux"
                     : "La ligne de requête ou un en-tête est invalide");
        call->close = true;
        return true;
    }
    find_route(call);
    http_access_check(call);

    size_t max_bytes = call->server->config.max_body_bytes;
    const char *length = call->known[HTTP_CONTENT_LENGTH];
    unsigned long long content_length = length ? strtoull(length, NULL, 10) : 0;
    bool has_body = content_length > 0 || call->known[HTTP_TRANSFER_ENCODING];
    if (content_length > max_bytes) {
        refuse(call, STATUS_TOO_LARGE, "Le corps de la requête est trop volumineux");
        call->close = true;
        return true;
    }
    const char *type = call->known[HTTP_CONTENT_TYPE];
    const char *coding = call->known[HTTP_CONTENT_ENCODING];
    bool coded = coding && coding[0] && strcasecmp(coding, "identity") != 0;
    if (call->route && (call->route->flags & HTTP_TAKES_JSON) && has_body &&
        (coded || !(type && is_json(type, call->method))))
        refuse(call, STATUS_MEDIA_TYPE,
               coded ? "Le corps ne doit pas être compressé"
                     : "Le corps doit être du JSON en UTF-8 (Content-Type: application/json)");
    if (call->refusal.status == STATUS_OK)
        parse_query(call);
    if (content_length >= sizeof call->body_small && call->refusal.status == STATUS_OK) {
        call->body_capacity = (size_t)content_length + 1;
        call->body = mem_grow(NULL, call->body_capacity);
    }
    const char *expect = call->known[HTTP_EXPECT];
    return call->refusal.status != STATUS_OK && has_body && expect && strcasecmp(expect, "100-continue") == 0;
}

bool http_call_take(struct http_call *call, const char *bytes, size_t len)
{
    size_t max_bytes = call->server->config.max_body_bytes;
    call->body_seen += len;
    if (call->body_seen > max_bytes)
        refuse(call, STATUS_TOO_LARGE, "Le corps de la requête est trop volumineux");
    if (call->refusal.status != STATUS_OK)
        return call->body_seen <= PATIENCE * max_bytes;

    if (call->body_len + len >= call->body_capacity) {
        size_t capacity = 2 * call->body_capacity > call->body_len + len ? 2 * call->body_capacity
                                                                         : call->body_len + len + 1;
        char *old = call->body == call->body_small ? NULL : call->body;
        call->body = mem_grow(old, capacity);
        call->body_capacity = capacity;
        if (!old)
            memcpy(call->body, call->body_small, call->body_len);
    }
    memcpy(call->body + call->body_len, bytes, len);
    call->body_len += len;
    return true;
}

void http_call_run(struct http_call *call, bool stopped)
{
    call->run = true;
    if (stopped)
        refuse(call, STATUS_STOPPING, "Le service s'arrête");
    call->body[call->body_len] = '\0';
    if (call->refusal.status == STATUS_METHOD) {
        char allow[HTTP_ALLOW_SIZE];
        http_allow_format(call->allowed, allow);
        http_call_set(call, "Allow", "%s", allow);
    }
    if (call->refusal.status != STATUS_OK)
        http_answer_problem(call, call->refusal.status, call->refusal.text, NULL);
    else if (call->method == HTTP_OPTIONS)
        http_reply_options(call);
    else
        call->route->handler(call, call->server->config.service);
}
