/* A whole HTTP request as libmicrohttpd hands it over: target, query, cursor, headers, body. */
#include "api.h"
#include "fake_connection.h"
#include "log.h"

/* What a list last read, to compare a page with the one its Link leads to. */
static struct {
    struct api_page page;
    char client_id[512], date[11];
    bool is_list;
} seen;

static void get_list(struct http_call *call, void *service)
{
    static const char *const filters[] = {"clientId", "dateFrom", NULL};
    enum { LAST = 0x2a };
    struct problems problems = {0};
    (void)service;
    memset(&seen, 0, sizeof seen);
    api_page_read(call, &seen.page, &problems);
    const char *client_id = api_filter_text(call, "clientId", 128, &problems);
    const char *date = api_filter_date(call, "dateFrom", &problems);
    if (problems.count) {
        api_answer_invalid(call, &problems);
        return;
    }
    MUST(seen.page.limit >= 1 && seen.page.limit <= API_LIMIT_MAX && seen.page.before >= 1);
    MUST(is_utf8(client_id) && utf8_length(client_id) <= 128 &&
         text_copy(seen.client_id, sizeof seen.client_id, client_id));
    MUST((!*date || date_valid(date)) && text_copy(seen.date, sizeof seen.date, date));
    seen.is_list = true;

    struct api_list list;
    MUST(api_list_init(&list, call, &seen.page, 2));
    for (int64_t i = 0; i <= seen.page.limit; i++) {
        struct buf *row = api_list_row(&list, LAST);
        MUST((row != NULL) == (i < seen.page.limit));
        if (row)
            buf_text(row, "{}");
    }
    api_list_answer(call, &list, &seen.page, filters);
    api_list_done(&list);
}

static void get_item(struct http_call *call, void *service)
{
    (void)service;
    const char *id = http_call_param(call);
    MUST(id[0] && is_utf8(id) && !strchr(id, '/'));
    if (api_etag(call, 7))
        http_answer_empty(call, 204);
}

static void write_item(struct http_call *call, void *service)
{
    char key[API_KEY_SIZE];
    size_t len = 0;
    const char *body = http_call_body(call, &len);
    struct api_conditions conditions;
    cJSON *document = NULL;
    (void)service;
    MUST(len <= call->server->config.max_body_bytes && body[len] == '\0');
    api_conditions_read(call, &conditions);
    if (!api_idempotency_key(call, key) || !api_body(call, &document))
        return;
    json_free(&document);
    http_answer_empty(call, 204);
}

static const struct http_route routes[] = {
    {"GET", "/a", get_list, 0},
    {"POST", "/a", write_item, HTTP_TAKES_JSON},
    {"GET", "/a/{id}", get_item, 0},
    {"PATCH", "/a/{id}", write_item, HTTP_TAKES_JSON},
};
enum { BODY_MAX = 4096 };

/* The next page has the same filters and begins where this one ended. */
static void must_lead_on(struct http_server *server, const char *link)
{
    static const char behind[] = ">; rel=\"next\"";
    const char *end = strstr(link, behind);
    MUST(link[0] == '<' && link[1] == '/' && end && end[sizeof behind - 1] == '\0');
    CLEANUP(free_text)
    char *text = mem_format("GET %.*s HTTP/1.1\r\nHost: a\r\n\r\n", (int)(end - link - 1), link + 1);
    __auto_type first = seen;
    struct MHD_Connection connection;
    MUST(connection_open(&connection, text, strlen(text)) && fake_exchange(server, &connection));
    MUST(connection.status == 200 && seen.is_list && seen.page.before == 0x2a);
    MUST(seen.page.limit == first.page.limit);
    MUST(strcmp(seen.client_id, first.client_id) == 0 && strcmp(seen.date, first.date) == 0);
    connection_close(&connection);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_server *server = fake_server(routes, COUNT(routes), BODY_MAX);
    struct MHD_Connection connection;
    silence_stdout();
    seen.is_list = false;
    if (size <= INPUT_MAX && connection_open(&connection, (const char *)data, size) &&
        fake_exchange(server, &connection) && seen.is_list && connection.status == 200) {
        MUST(connection.link[0]); /* the list always has more */
        must_lead_on(server, connection.link);
    }
    if (size <= INPUT_MAX)
        connection_close(&connection);
    return 0;
}
