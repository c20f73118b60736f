/* What every outside text goes through: UTF-8, cutting at a code point, JSON strings, percent-encoding,
 * dates. */
#include "fuzz.h"
#include "http_client.h"
#include "utf8.h"

static void must_be_prefix(const char *part, const char *whole)
{
    MUST(strncmp(part, whole, strlen(part)) == 0);
}

static void try_cutting(const char *text, size_t size)
{
    CLEANUP(free_text) char *cut = mem_new(size);
    bool whole = text_copy(cut, size, text);
    MUST(whole == (strlen(text) < size) && (!whole || strcmp(cut, text) == 0));
    must_be_prefix(cut, text);
    MUST(strlen(cut) + 4 > (whole ? strlen(text) : size - 1));
    if (is_utf8(text))
        MUST(is_utf8(cut));

    size_t prefix = utf8_prefix(text, size);
    CLEANUP(free_text) char *points = mem_copy(text, prefix);
    MUST(prefix <= strlen(text) && is_utf8(points) && utf8_length(points) <= size);
    if (is_utf8(text))
        MUST(text[prefix] == '\0' || utf8_length(points) == size);
}

/* U+FFFD for each byte that is no UTF-8; all else comes back as it was. */
static void try_json(const char *text)
{
    CLEANUP(buf_done) struct buf json, expected;
    buf_init(&json, 8 * INPUT_MAX);
    buf_init(&expected, 8 * INPUT_MAX);
    json_put_text(&json, text);
    for (size_t at = 0, len = strlen(text); at < len;) {
        size_t step = utf8_step(text + at, len - at);
        buf_append(&expected, step ? text + at : "\xEF\xBF\xBD", step ? step : 3);
        at += step ? step : 1;
    }
    CLEANUP(json_free) cJSON *document = must_be_json(&json);
    MUST(cJSON_IsString(document) && strcmp(document->valuestring, buf_get(&expected)) == 0);
}

static void try_percent(const char *text)
{
    CLEANUP(buf_done) struct buf encoded;
    buf_init(&encoded, 8 * INPUT_MAX);
    http_put_encoded(&encoded, text);
    for (const char *c = buf_get(&encoded); *c; c++, text++) {
        unsigned value = (unsigned char)*c;
        if (*c == '%') {
            MUST(sscanf(c + 1, "%2X", &value) == 1);
            c += 2;
        } else {
            MUST((value | 32) - 'a' < 26 || value - '0' < 10 || strchr("-._~", *c));
        }
        MUST(value == (unsigned char)*text);
    }
    MUST(*text == '\0');
}

static void try_date(const char *text)
{
    int year, month, day, end = 0;
    if (!date_valid(text))
        return;
    MUST(sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &end) == 3 && end == 10 && text[10] == '\0');
    MUST(month >= 1 && month <= 12 && day >= 1 && day <= 31);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_MAX)
        return 0;
    size_t room = (size_t)data[0] + 1;
    CLEANUP(free_text) char *text = as_text(data + 1, size - 1);
    try_cutting(text, room);
    try_json(text);
    try_percent(text);
    try_date(text);
    return 0;
}
