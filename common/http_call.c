#include <microhttpd.h>
#include <string.h>
#include <strings.h>

#include "http_internal.h"
#include "mem.h"

const char *http_call_param(const struct http_call *call)
{
    return call->param;
}

const char *http_call_query(const struct http_call *call, const char *name)
{
    for (size_t i = 0; i < call->query_count; i++)
        if (strcmp(call->query[i].name, name) == 0)
            return call->query[i].value;
    return NULL;
}

/* RFC 9110 section 5.5: white space at its end is no part of a value. libmicrohttpd 0.9.75 leaves it there.
 */
static size_t trimmed(const char *value, size_t len)
{
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        len--;
    return len;
}

static char *new_text(struct http_call *call, size_t size)
{
    struct http_joined *joined = mem_grow(NULL, sizeof *joined + size);
    joined->next = call->joined;
    call->joined = joined;
    return joined->text;
}

const char *http_call_value(struct http_call *call, const char *value, size_t len)
{
    size_t kept = trimmed(value, len);
    if (kept == len)
        return value;
    char *copy = new_text(call, kept + 1);
    memcpy(copy, value, kept);
    copy[kept] = '\0';
    return copy;
}

/* One header's lines, in the order they came. */
struct lines {
    const char *name, *first;
    size_t name_len, first_len, count, size; /* size: of all the values, each with two bytes more */
    char *end;                               /* where the next value goes; NULL: they are counted */
};

static enum MHD_Result on_line(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len,
                               const char *value, size_t value_len)
{
    struct lines *lines = arg;
    (void)kind;
    if (name_len != lines->name_len || strncasecmp(name, lines->name, name_len) != 0)
        return MHD_YES;
    value = value ? value : "";
    if (lines->end) {
        lines->end = mempcpy(lines->end, value, trimmed(value, value_len));
        lines->end = mempcpy(lines->end, ", ", 2);
        return MHD_YES;
    }
    if (lines->count++ == 0) {
        lines->first = value;
        lines->first_len = value_len;
    }
    lines->size += value_len + 2;
    return MHD_YES;
}

const char *http_call_header(struct http_call *call, const char *name)
{
    struct lines lines = {.name = name, .name_len = strlen(name)};
    (void)MHD_get_connection_values_n(call->connection, MHD_HEADER_KIND, on_line, &lines);
    if (lines.count <= 1)
        return lines.first ? http_call_value(call, lines.first, lines.first_len) : NULL;
    char *joined = lines.end = new_text(call, lines.size);
    (void)MHD_get_connection_values_n(call->connection, MHD_HEADER_KIND, on_line, &lines);
    lines.end[-2] = '\0'; /* in place of the last comma */
    return joined;
}

const char *http_call_body(const struct http_call *call, size_t *ret_len)
{
    *ret_len = call->body_len;
    return call->body;
}

const char *http_call_method(const struct http_call *call)
{
    const char *name = http_method_name(call->method);
    return name ? name : call->method_text;
}

const char *http_call_path(const struct http_call *call)
{
    return call->path;
}

const char *http_call_query_text(const struct http_call *call)
{
    return call->query_text;
}

size_t http_call_backlog(const struct http_call *call)
{
    return atomic_load_explicit(&call->server->backlog, memory_order_relaxed);
}

const char *http_call_request_id(const struct http_call *call)
{
    return call->request_id;
}
