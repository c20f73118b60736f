/* The values of the request headers that the API reads, each line of the input one of them: entity tags, the
 * Idempotency-Key, the trace, the request id, the content type. */
#include "api.h"
#include "fake_connection.h"
#include "ids.h"
#include "log.h"

static const char *const names[] = {"If-Match",    "If-None-Match", "Idempotency-Key", "X-Request-Id",
                                    "traceparent", "Content-Type",  "Playlist-Request"};
enum { IF_MATCH, IF_NONE_MATCH, KEY, REQUEST_ID, TRACE, TYPE };

static void try_tags(const char *text, bool weak_too)
{
    static const int64_t versions[] = {1, 2, 10, 123, INT64_MAX};
    bool any = api_tags_name(text, weak_too, INT64_MAX); /* no tag is that long: "*" alone names it */
    MUST(!any || text[strspn(text, " \t")] == '*');
    for (size_t i = 0; i < COUNT(versions); i++) {
        char tag[32];
        (void)snprintf(tag, sizeof tag, "\"%lld\"", (long long)versions[i]);
        bool strong = api_tags_name(text, false, versions[i]), weak = api_tags_name(text, true, versions[i]);
        MUST(!weak || any || strstr(text, tag));
        MUST(!strong || weak);
        MUST(api_conditions_hold(&(struct api_conditions){.match = text}, versions[i]) == strong);
        MUST(api_conditions_hold(&(struct api_conditions){.none_match = text}, versions[i]) != weak);
    }
}

static void try_trace(const char *text)
{
    char first[TRACEPARENT_SIZE], second[TRACEPARENT_SIZE];
    traceparent_continue(text, first);
    traceparent_continue(text, second);
    MUST(traceparent_valid(first) && traceparent_valid(second) && memcmp(first + 36, second + 36, 16) != 0);
    MUST(!traceparent_valid(text) || memcmp(first + 2, text + 2, 34) == 0);
    MUST(traceparent_valid(text) == (memcmp(first, second, 35) == 0));
}

static void write_item(struct http_call *call, void *service)
{
    char key[API_KEY_SIZE];
    struct api_conditions conditions;
    const char *given = http_call_header(call, names[KEY]), *wanted = http_call_header(call, names[IF_MATCH]);
    (void)service;
    api_conditions_read(call, &conditions);
    MUST(!conditions.match == !wanted);
    if (!api_idempotency_key(call, key)) {
        MUST(given && call->status == 422);
        return;
    }
    MUST(strcmp(key, given ? given : "") == 0);
    for (const char *c = key; *c; c++)
        MUST(*c >= ' ' && *c <= '~');
    if (api_etag(call, 1))
        http_answer_empty(call, 204);
    else
        MUST(call->status == 304 && http_call_header(call, names[IF_NONE_MATCH]));
}

static const struct http_route routes[] = {{"PATCH", "/", write_item, HTTP_TAKES_JSON}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(buf_done) struct buf request;
    struct MHD_Connection connection;
    silence_stdout();
    if (size > 8192)
        return 0;
    buf_init(&request, INPUT_MAX);
    buf_text(&request, "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n");
    for (size_t i = 0; i < COUNT(names) && size > 0; i++) {
        CLEANUP(free_text) char *value = next_text(&data, &size, '\n');
        try_tags(value, i & 1);
        try_trace(value);
        if (*value)
            buf_format(&request, "%s: %s\r\n", names[i], value);
    }
    buf_text(&request, "\r\n{}");
    MUST(buf_ok(&request));
    if (connection_open(&connection, buf_get(&request), request.len))
        MUST(fake_exchange(fake_server(routes, COUNT(routes), 1024), &connection));
    connection_close(&connection);
    return 0;
}
