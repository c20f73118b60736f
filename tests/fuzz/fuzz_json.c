/* The JSON validator, parser, table decoder and writer, on any bytes. Beyond "no crash", it checks what their
 * users rely on: what passes the check is parsed, what is parsed is written and read back the same, and a
 * decoded struct keeps the bounds of its table. */
#include "fuzz.h"

enum { POINTS = 5, ITEMS = 3 };

struct sample {
    char text[4 * POINTS + 1], style[4 * POINTS + 1], link[4 * POINTS + 1];
    char date[11];
    int64_t integer;
    double number;
    struct json_texts texts;
};

#define MEMBER(name) .offset = offsetof(struct sample, name), .size = sizeof(((struct sample *)0)->name)

/* One-letter names: the fuzzer finds them at once. */
static const struct json_field fields[] = {
    {"t", JSON_TEXT, .min = 1, .max = POINTS, MEMBER(text), .required = true},
    {"s", JSON_TEXT, .min = 1, .max = POINTS, MEMBER(style), .fallback = "\"disco\""},
    {"l", JSON_TEXT, .min = 1, .max = POINTS, MEMBER(link), .nullable = true},
    {"d", JSON_DATE, MEMBER(date)},
    {"i", JSON_INTEGER, .min = -5, .max = 100000, MEMBER(integer), .fallback = "7"},
    {"n", JSON_NUMBER, .min = 0, .max = 1e9, MEMBER(number)},
    {"a", JSON_TEXTS, .max = POINTS, .max_items = ITEMS, MEMBER(texts), .fallback = "[]"},
};
enum { FIELDS = sizeof fields / sizeof *fields };

static void free_sample(struct sample *sample)
{
    free(sample->texts.json);
}

static void put_tree(struct buf *out, const cJSON *item)
{
    if (cJSON_IsString(item)) {
        json_put_text(out, item->valuestring);
    } else if (cJSON_IsNumber(item)) {
        json_put_number(out, item->valuedouble);
    } else if (cJSON_IsObject(item) || cJSON_IsArray(item)) {
        buf_char(out, cJSON_IsObject(item) ? '{' : '[');
        for (const cJSON *child = item->child; child; child = child->next) {
            if (child != item->child)
                buf_char(out, ',');
            if (cJSON_IsObject(item)) {
                json_put_text(out, child->string);
                buf_char(out, ':');
            }
            put_tree(out, child);
        }
        buf_char(out, cJSON_IsObject(item) ? '}' : ']');
    } else {
        buf_text(out, cJSON_IsTrue(item) ? "true" : cJSON_IsFalse(item) ? "false" : "null");
    }
}

static void must_equal(const cJSON *a, const cJSON *b)
{
    MUST(a->type == b->type);
    MUST(!a->string == !b->string && (!a->string || strcmp(a->string, b->string) == 0));
    if (cJSON_IsString(a))
        MUST(strcmp(a->valuestring, b->valuestring) == 0);
    if (cJSON_IsNumber(a))
        MUST(memcmp(&a->valuedouble, &b->valuedouble, sizeof a->valuedouble) == 0);
    const cJSON *of_a = a->child, *of_b = b->child;
    for (; of_a && of_b; of_a = of_a->next, of_b = of_b->next)
        must_equal(of_a, of_b);
    MUST(!of_a && !of_b);
}

static void must_read_back(const cJSON *document)
{
    CLEANUP(json_free) cJSON *again = NULL;
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 6 * INPUT_MAX);
    put_tree(&text, document);
    MUST(buf_ok(&text));
    MUST(json_parse(text.data, text.len, &again, NULL) == STATUS_OK);
    must_equal(document, again);
}

static void must_keep_the_bounds(const struct sample *sample, enum json_mode mode, unsigned present)
{
    bool whole = mode == JSON_CREATE;
    must_fit(sample->text, sizeof sample->text, whole || (present & 1), POINTS);
    must_fit(sample->style, sizeof sample->style, whole || (present & 2), POINTS);
    must_fit(sample->link, sizeof sample->link, 0, POINTS);
    MUST(sample->date[0] == '\0' || date_valid(sample->date));
    MUST(sample->integer >= -5 && sample->integer <= 100000);
    MUST(sample->number >= 0 && sample->number <= 1e9);
    MUST((sample->texts.json != NULL) == (whole || (present & 64)));
    if (!sample->texts.json)
        return;
    CLEANUP(json_free) cJSON *texts = NULL;
    MUST(json_parse(sample->texts.json, strlen(sample->texts.json), &texts, NULL) == STATUS_OK);
    MUST(cJSON_IsArray(texts) && (size_t)cJSON_GetArraySize(texts) == sample->texts.count);
    MUST(sample->texts.count <= ITEMS);
    const cJSON *item;
    cJSON_ArrayForEach (item, texts)
        MUST(cJSON_IsString(item) && utf8_length(item->valuestring) <= POINTS);
}

static void decode(const cJSON *document, enum json_mode mode)
{
    CLEANUP(free_sample) struct sample sample = {0};
    struct problems problems;
    unsigned present = 1u << 31;
    enum status status = json_decode(document, mode, fields, FIELDS, &sample, &present, &problems);
    if (status == STATUS_OK) {
        MUST(problems.count == 0 && cJSON_IsObject(document) && present < 1u << FIELDS);
        must_keep_the_bounds(&sample, mode, present);
    } else {
        MUST(status == STATUS_INVALID && present == 1u << 31);
        must_name_problems(&problems, document);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char prefix[] = "JSON mal formé";
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    if (size > INPUT_MAX)
        return 0;
    enum status checked = json_check((const char *)data, size, NULL);
    if (json_parse(at_the_edge(data, size), size, &document, &err) != STATUS_OK) {
        must_tell(&err, STATUS_MALFORMED);
        MUST(!document && strncmp(err.text, prefix, sizeof prefix - 1) == 0);
        MUST(checked == STATUS_MALFORMED || strstr(err.text, "est présent deux fois"));
        return 0;
    }
    must_tell(&err, STATUS_OK);
    MUST(checked == STATUS_OK && utf8_valid((const char *)data, size));
    must_read_back(document);
    decode(document, JSON_CREATE);
    decode(document, JSON_CHANGE);
    return 0;
}
