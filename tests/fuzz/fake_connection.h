/* A connection of libmicrohttpd without a thread or a socket: the functions by which http_request.c and
 * http_reply.c look at one, over a head that lies in memory as libmicrohttpd 0.9.75 leaves it. The program's
 * own functions take precedence over the shared library's. One inclusion a program. */
#ifndef TESTS_FAKE_CONNECTION_H
#define TESTS_FAKE_CONNECTION_H

#include <microhttpd.h>
#include <pthread.h>
#include <strings.h>

#include "fuzz.h"
#include "http_internal.h"

enum { FAKE_HEADERS_MAX = 64, FAKE_BODY_PIECES = 3 };

struct fake_header {
    const char *name, *value;
    size_t name_len, value_len;
};

struct MHD_Connection {
    char *text; /* the request, NULs put in place of separators */
    size_t len, head_size;
    const char *method, *target, *version;
    struct fake_header headers[FAKE_HEADERS_MAX];
    size_t count;
    unsigned queued; /* answers */
    unsigned status;
    char link[16 * 1024]; /* the header Link of the answer */
};

/* Ends a line with a NUL and returns the next one's start; NULL where there is no line. */
static inline char *cut_line(char *line, const char *end)
{
    char *newline = memchr(line, '\n', (size_t)(end - line));
    if (!newline)
        return NULL;
    *newline = '\0';
    if (newline > line && newline[-1] == '\r')
        newline[-1] = '\0';
    return newline + 1;
}

/* False for what libmicrohttpd refuses by itself. */
static inline bool take_header(struct MHD_Connection *connection, char *line)
{
    char *colon = strchr(line, ':');
    if (!colon || colon == line || connection->count == FAKE_HEADERS_MAX)
        return false;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    connection->headers[connection->count++] = (struct fake_header){line, value, (size_t)(colon - line),
                                                                    strlen(value)};
    return true;
}

/* Takes the request apart; the body is what is behind the empty line. */
static inline bool connection_open(struct MHD_Connection *connection, const char *bytes, size_t len)
{
    *connection = (struct MHD_Connection){.text = mem_copy(bytes, len), .len = len};
    char *end = connection->text + len, *line = connection->text, *next = cut_line(line, end);
    char *target = next ? strchr(line, ' ') : NULL, *version = target ? strrchr(target + 1, ' ') : NULL;
    if (!version || target == line)
        return false;
    *target++ = *version++ = '\0';
    connection->method = line;
    connection->target = target;
    connection->version = version;
    while ((line = next)) {
        next = cut_line(line, end);
        if (next && !*line) {
            connection->head_size = (size_t)(next - connection->text);
            return strncmp(connection->version, "HTTP/1.", 7) == 0;
        }
        if (next && !take_header(connection, line))
            return false;
    }
    return false;
}

static inline void connection_close(struct MHD_Connection *connection)
{
    free(connection->text);
}

/* ---- libmicrohttpd's functions ---- */

const char *MHD_get_version(void)
{
    return "0.9.75";
}

int MHD_get_connection_values_n(struct MHD_Connection *connection, enum MHD_ValueKind kind,
                                MHD_KeyValueIteratorN take, void *arg)
{
    size_t i = 0;
    MUST(kind == MHD_HEADER_KIND);
    for (; i < connection->count; i++) {
        const struct fake_header *header = &connection->headers[i];
        if (take(arg, kind, header->name, header->name_len, header->value, header->value_len) != MHD_YES)
            break;
    }
    return (int)i;
}

const char *MHD_lookup_connection_value(struct MHD_Connection *connection, enum MHD_ValueKind kind,
                                        const char *name)
{
    MUST(kind == MHD_HEADER_KIND);
    for (size_t i = 0; i < connection->count; i++)
        if (strcasecmp(connection->headers[i].name, name) == 0)
            return connection->headers[i].value;
    return NULL;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *connection,
                                                        enum MHD_ConnectionInfoType type, ...)
{
    static union MHD_ConnectionInfo info;
    MUST(type == MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    info.header_size = connection->head_size;
    return &info;
}

static enum MHD_Result on_response_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                          const char *value)
{
    struct MHD_Connection *connection = arg;
    (void)kind;
    MUST(name[0] && value[0] && !strpbrk(name, "\r\n") && !strpbrk(value, "\r\n"));
    if (strcmp(name, "Link") == 0)
        MUST(text_copy(connection->link, sizeof connection->link, value));
    return MHD_YES;
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *connection, unsigned status,
                                   struct MHD_Response *response)
{
    connection->queued++;
    connection->status = status;
    (void)MHD_get_response_headers(response, on_response_header, connection);
    return MHD_YES;
}

/* ---- a server that never listens ---- */

static inline struct http_server *fake_server(const struct http_route *routes, size_t count,
                                              size_t max_body_bytes)
{
    static struct http_server server;
    if (server.matches)
        return &server;
    server.config = (struct http_server_config){
        .max_body_bytes = max_body_bytes, .cors_origin = "*", .routes = routes, .route_count = count};
    server.matches = mem_new(count * sizeof *server.matches);
    http_metrics_init(&server);
    for (size_t i = 0; i < count; i++)
        server.matches[i] = (struct http_match){.method = http_method_parse(routes[i].method),
                                                .prefix = strcspn(routes[i].path, "{"),
                                                .has_param = strchr(routes[i].path, '{') != NULL};
    return &server;
}

static inline void must_answer_well(const struct http_call *call)
{
    MUST(call->answered && call->status >= 200 && call->status <= 599);
    MUST(strlen(call->request_id) >= 1 && strlen(call->request_id) <= HTTP_REQUEST_ID_MAX);
    if (call->answer_len == 0)
        return;
    CLEANUP(json_free) cJSON *answer = NULL;
    MUST(json_parse(call->answer, call->answer_len, &answer, NULL) == STATUS_OK);
    if (!call->is_problem)
        return;
    MUST(call->status >= 400 && cJSON_GetObjectItemCaseSensitive(answer, "status")->valueint == call->status);
    const cJSON *errors = cJSON_GetObjectItemCaseSensitive(answer, "errors"), *error;
    MUST(!errors || call->status == 422);
    cJSON_ArrayForEach (error, errors)
        MUST(cJSON_GetObjectItemCaseSensitive(error, "pointer")->valuestring[0] == '/' ||
             cJSON_GetArraySize(errors) == 1);
    must_have_text(answer, "error", cJSON_GetObjectItemCaseSensitive(answer, "detail")->valuestring);
    if (is_utf8(call->path))
        must_have_text(answer, "instance", call->path);
}

/* What libmicrohttpd would hand over of what follows the head. */
static inline size_t body_size(struct MHD_Connection *connection)
{
    size_t left = connection->len - connection->head_size;
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    if (!length)
        return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding") ? left : 0;
    unsigned long long announced = strtoull(length, NULL, 10);
    return announced < left ? (size_t)announced : left;
}

/* One request from its first byte to its answer, as http_server.c takes it through. False where
 * libmicrohttpd, or the server by breaking the connection, would have ended it without an answer of ours. */
static inline bool fake_exchange(struct http_server *server, struct MHD_Connection *connection)
{
    struct http_call *call = http_call_new(server, connection, NULL, connection->target);
    bool bearable = true;
    if (!http_call_begin(call, connection->method, connection->version)) {
        const char *body = connection->text + connection->head_size;
        size_t left = body_size(connection), piece = left / FAKE_BODY_PIECES + 1;
        for (; left > 0 && bearable; left -= piece, body += piece) {
            piece = piece < left ? piece : left;
            bearable = http_call_take(call, body, piece);
        }
    } else {
        MUST(call->refusal.status != STATUS_OK);
    }
    if (bearable) {
        http_call_run(call, false);
        must_answer_well(call);
        MUST(http_reply_queue(call) && connection->queued == 1);
        MUST(!call->bad_head || connection->status == 400);
    }
    http_call_free(call);
    return bearable;
}

#endif
