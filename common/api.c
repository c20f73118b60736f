#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "gzip.h"
#include "http_client.h"
#include "mem.h"

bool api_body(struct http_call *call, cJSON **ret_document)
{
    size_t len = 0;
    struct err err = {0};
    const char *body = http_call_body(call, &len);
    if (json_parse(body, len, ret_document, &err) == STATUS_OK)
        return true;
    http_answer_problem(call, err.status, err.text, NULL);
    return false;
}

void api_answer_invalid(struct http_call *call, const struct problems *problems)
{
    char detail[256] = "Plusieurs champs sont invalides";
    const struct problem *first = &problems->items[0];
    if (problems->count == 1)
        (void)snprintf(detail, sizeof detail, "%s%s%s", first->pointer[0] ? first->pointer + 1 : "",
                       first->pointer[0] ? " : " : "", first->detail);
    http_answer_problem(call, STATUS_INVALID, detail, problems);
}

/* ---- pages ---- */

enum { PACK_BYTES = 64 * 1024 }; /* of a list are compressed at a time */

/* Digits alone, no sign, no space: strtoll takes too much. */
static bool read_number(const char *text, int base, int64_t min, int64_t max, int64_t *ret_number)
{
    const char *allowed = base == 16 ? "0123456789abcdef" : "0123456789";
    size_t len = strlen(text);
    if (len == 0 || len > 16 || strspn(text, allowed) != len)
        return false;
    uint64_t number = strtoull(text, NULL, base);
    if (number < (uint64_t)min || number > (uint64_t)max)
        return false;
    *ret_number = (int64_t)number;
    return true;
}

void api_page_read(struct http_call *call, struct api_page *ret_page, struct problems *problems)
{
    *ret_page = (struct api_page){.limit = API_LIMIT_DEFAULT, .before = INT64_MAX};
    const char *limit = http_call_query(call, "limit"), *cursor = http_call_query(call, "cursor");
    if (limit && !read_number(limit, 10, 1, API_LIMIT_MAX, &ret_page->limit))
        problems_add(problems, "/limit", "doit être un entier entre 1 et %d", API_LIMIT_MAX);
    if (cursor && (*cursor != 'p' || !read_number(cursor + 1, 16, 1, INT64_MAX, &ret_page->before)))
        problems_add(problems, "/cursor", "n'est pas un curseur donné par cette liste");
}

bool api_list_init(struct api_list *list, struct http_call *call, const struct api_page *page,
                   size_t row_bytes)
{
    size_t max_bytes = API_PAGE_BYTES + row_bytes + 64; /* the brackets, the comma, what gzip adds */
    if (http_call_backlog(call) > API_BACKLOG_BYTES) {
        http_answer_problem(call, STATUS_BUSY, "Trop de réponses attendent encore leurs clients", NULL);
        return false;
    }
    *list = (struct api_list){
        .left = page->limit,
        .last = INT64_MAX,
        .gzip_accepted = gzip_accepted(http_call_header(call, "Accept-Encoding")),
    };
    buf_init(&list->body, max_bytes);
    buf_init(&list->packed, max_bytes + max_bytes / 1000);
    buf_char(&list->body, '[');
    return true;
}

void api_list_done(struct api_list *list)
{
    gzip_free(list->gzip);
    list->gzip = NULL;
    buf_done(&list->body);
    buf_done(&list->packed);
}

/* Moves what is there to the compressed side. */
static void pack(struct api_list *list)
{
    if (!list->gzip)
        list->gzip = gzip_new(&list->packed);
    gzip_add(list->gzip, list->body.data, list->body.len);
    list->packed_bytes += list->body.len;
    buf_clear(&list->body);
}

struct buf *api_list_row(struct api_list *list, int64_t seq)
{
    list->more = list->left-- == 0 || list->packed_bytes + list->body.len >= API_PAGE_BYTES;
    if (list->more)
        return NULL;
    if (list->gzip_accepted && list->body.len >= PACK_BYTES && buf_ok(&list->body))
        pack(list);
    if (list->last < INT64_MAX)
        buf_char(&list->body, ',');
    list->last = seq;
    return &list->body;
}

static void set_next(struct http_call *call, const struct api_page *page, int64_t last,
                     const char *const *filters)
{
    CLEANUP(buf_done) struct buf url;
    buf_init(&url, 16 * 1024);
    buf_format(&url, "%s?limit=%lld&cursor=p%llx", http_call_path(call), (long long)page->limit,
               (unsigned long long)last);
    for (; *filters; filters++) {
        const char *value = http_call_query(call, *filters);
        if (!value)
            continue;
        buf_format(&url, "&%s=", *filters);
        http_put_encoded(&url, value);
    }
    if (buf_ok(&url))
        http_call_set(call, "Link", "<%s>; rel=\"next\"", buf_get(&url));
}

void api_list_answer(struct http_call *call, struct api_list *list, const struct api_page *page,
                     const char *const *filters)
{
    buf_char(&list->body, ']');
    if (list->more)
        set_next(call, page, list->last, filters);
    http_call_set(call, "Vary", "Accept-Encoding");
    if (!list->gzip_accepted || (!list->gzip && list->body.len < GZIP_MIN_BYTES) || !buf_ok(&list->body)) {
        http_answer_json(call, 200, &list->body);
        return;
    }
    pack(list);
    gzip_end(list->gzip);
    http_call_set(call, "Content-Encoding", "gzip");
    http_answer_json(call, 200, &list->packed);
}

void api_answer_packed(struct http_call *call, const char *content_type, struct buf *body)
{
    CLEANUP(buf_done) struct buf packed;
    buf_init(&packed, body->max_bytes);
    if (body->len >= GZIP_MIN_BYTES && buf_ok(body) &&
        gzip_accepted(http_call_header(call, "Accept-Encoding"))) {
        struct gzip *gzip = gzip_new(&packed);
        gzip_add(gzip, body->data, body->len);
        gzip_end(gzip);
        gzip_free(gzip);
        buf_done(body);
        http_call_set(call, "Content-Encoding", "gzip");
        body = &packed;
    }
    http_answer_bytes(call, 200, content_type, body);
}

const char *api_filter_text(struct http_call *call, const char *name, size_t max, struct problems *problems)
{
    const char *value = http_call_query(call, name);
    size_t length = value ? utf8_length(value) : 1;
    if (length >= 1 && length <= max)
        return value ? value : "";
    char pointer[64];
    (void)snprintf(pointer, sizeof pointer, "/%s", name);
    problems_add(problems, pointer, "doit contenir entre 1 et %zu caractères", max);
    return "";
}

const char *api_filter_date(struct http_call *call, const char *name, struct problems *problems)
{
    const char *value = http_call_query(call, name);
    if (!value || date_valid(value))
        return value ? value : "";
    char pointer[64];
    (void)snprintf(pointer, sizeof pointer, "/%s", name);
    problems_add(problems, pointer, "doit être une date existante, AAAA-MM-JJ");
    return "";
}

/* ---- versions ---- */

bool api_tags_name(const char *tags, bool weak_too, int64_t version)
{
    tags += strspn(tags, " \t");
    bool found = tags[0] == '*' && tags[1 + strspn(tags + 1, " \t")] == '\0';
    while (!found) {
        tags += strspn(tags, " \t,");
        bool weak = strncmp(tags, "W/", 2) == 0;
        tags += weak ? 2 : 0;
        const char *end = *tags == '"' ? strchr(tags + 1, '"') : NULL;
        if (!end)
            return false;
        CLEANUP(free_text) char *tag = mem_copy(tags + 1, (size_t)(end - tags - 1));
        int64_t named = 0;
        found = (!weak || weak_too) && tag[0] != '0' && read_number(tag, 10, 1, INT64_MAX, &named) &&
                named == version;
        tags = end + 1;
    }
    return true;
}

void api_conditions_read(struct http_call *call, struct api_conditions *ret_conditions)
{
    ret_conditions->match = http_call_header(call, "If-Match");
    ret_conditions->none_match = http_call_header(call, "If-None-Match");
}

bool api_conditions_hold(const struct api_conditions *conditions, int64_t version)
{
    return (!conditions->match || api_tags_name(conditions->match, false, version)) &&
           (!conditions->none_match || !api_tags_name(conditions->none_match, true, version));
}

static bool answer_unless_known(struct http_call *call, int64_t version)
{
    const char *known = http_call_header(call, "If-None-Match");
    if (!known || !api_tags_name(known, true, version))
        return true;
    http_answer_empty(call, 304);
    return false;
}

bool api_etag(struct http_call *call, int64_t version)
{
    http_call_set(call, "ETag", "\"%lld\"", (long long)version);
    return answer_unless_known(call, version);
}

bool api_weak_etag(struct http_call *call, int64_t version)
{
    http_call_set(call, "ETag", "W/\"%lld\"", (long long)version);
    return answer_unless_known(call, version);
}

/* ---- Idempotency-Key ---- */

bool api_idempotency_key(struct http_call *call, char key[API_KEY_SIZE])
{
    const char *header = http_call_header(call, "Idempotency-Key");
    key[0] = '\0';
    if (!header)
        return true;
    size_t len = strlen(header);
    const char *owner = http_call_token_name(call);
    bool printable = len >= 1 && len <= API_KEY_MAX;
    for (size_t i = 0; printable && i < len; i++)
        printable = header[i] >= ' ' && header[i] <= '~';
    if (printable) {
        (void)snprintf(key, API_KEY_SIZE, "%s%s%s", owner, *owner ? "\n" : "", header);
        return true;
    }
    http_answer_problem(call, STATUS_INVALID,
                        "L'en-tête Idempotency-Key doit contenir entre 1 et 128 caractères ASCII imprimables",
                        NULL);
    return false;
}
