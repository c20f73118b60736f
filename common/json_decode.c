#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "json.h"
#include "mem.h"

enum { POINTER_SIZE = sizeof((struct problem *)0)->pointer };

/* Behind 2^53 - 1 two integers read as one double (RFC 7493 section 2.2). */
static const double integer_max = 9007199254740991;

void problems_add(struct problems *problems, const char *pointer, const char *format, ...)
{
    if (problems->count++ >= PROBLEMS_MAX)
        return;
    struct problem *problem = &problems->items[problems->count - 1];
    (void)text_copy(problem->pointer, sizeof problem->pointer, pointer);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(problem->detail, sizeof problem->detail, format, args);
    va_end(args);
    text_mend(problem->detail);
}

bool date_valid(const char *text)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const char shape[] = "0000-00-00";
    for (size_t i = 0; i < sizeof shape; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == '0' ? !digit : text[i] != shape[i])
            return false;
    }
    int year = (text[0] - '0') * 1000 + (text[1] - '0') * 100 + (text[2] - '0') * 10 + (text[3] - '0');
    int month = (text[5] - '0') * 10 + (text[6] - '0');
    int day = (text[8] - '0') * 10 + (text[9] - '0');
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] + (leap && month == 2);
}

/* The names in the tables need no escape of RFC 6901. */
static void point_to(const struct json_field *field, char pointer[POINTER_SIZE])
{
    pointer[0] = '/';
    (void)text_copy(pointer + 1, POINTER_SIZE - 1, field->name);
}

/* Whether `value` is a string of min..max code points; says at `pointer` what is wrong. */
static bool text_fits(const cJSON *value, double min, double max, const char *pointer,
                      struct problems *problems)
{
    if (!cJSON_IsString(value)) {
        problems_add(problems, pointer, "doit être un texte");
        return false;
    }
    double points = (double)utf8_length(value->valuestring);
    if (points >= min && points <= max)
        return true;
    if (min > 0)
        problems_add(problems, pointer, "doit contenir entre %.0f et %.0f caractères", min, max);
    else
        problems_add(problems, pointer, "doit contenir au plus %.0f caractères", max);
    return false;
}

static void decode_text(const cJSON *value, const struct json_field *field, char *member, const char *pointer,
                        struct problems *problems)
{
    assert((double)field->size > 4 * field->max);
    if (text_fits(value, field->min, field->max, pointer, problems))
        (void)text_copy(member, field->size, value->valuestring);
}

static void add_range_problem(struct problems *problems, const char *pointer, const char *what, double min,
                              double max)
{
    CLEANUP(buf_done) struct buf range;
    buf_init(&range, 128);
    json_put_number(&range, min);
    buf_text(&range, " et ");
    json_put_number(&range, max);
    problems_add(problems, pointer, "doit être un %s entre %s", what, buf_get(&range));
}

static void decode_integer(const cJSON *value, const struct json_field *field, char *member,
                           const char *pointer, struct problems *problems)
{
    assert(field->size == sizeof(int64_t));
    double min = field->min > -integer_max ? field->min : -integer_max;
    double max = field->max < integer_max ? field->max : integer_max;
    double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    int64_t integer = number >= min && number <= max ? (int64_t)number : 0;
    if (number >= min && number <= max && (double)integer == number)
        memcpy(member, &integer, sizeof integer);
    else
        add_range_problem(problems, pointer, "entier", min, max);
}

static void decode_number(const cJSON *value, const struct json_field *field, char *member,
                          const char *pointer, struct problems *problems)
{
    assert(field->size == sizeof(double));
    double number = cJSON_IsNumber(value) ? value->valuedouble + 0.0 : NAN; /* -0 becomes 0 */
    if (number >= field->min && number <= field->max)
        memcpy(member, &number, sizeof number);
    else
        add_range_problem(problems, pointer, "nombre", field->min, field->max);
}

static void decode_date(const cJSON *value, const struct json_field *field, char *member, const char *pointer,
                        struct problems *problems)
{
    assert(field->size == sizeof "YYYY-MM-DD");
    if (cJSON_IsString(value) && date_valid(value->valuestring))
        (void)text_copy(member, field->size, value->valuestring);
    else
        problems_add(problems, pointer, "doit être une date qui existe, au format AAAA-MM-JJ");
}

static void decode_texts(const cJSON *value, const struct json_field *field, char *member,
                         const char *pointer, struct problems *problems)
{
    assert(field->size == sizeof(struct json_texts));
    struct json_texts texts = {0};
    if (!cJSON_IsArray(value) || (size_t)cJSON_GetArraySize(value) > field->max_items) {
        problems_add(problems, pointer, "doit être une liste d'au plus %zu textes", field->max_items);
        return;
    }
    size_t problems_before = problems->count;
    size_t item_max_bytes = 6 * (size_t)field->max + sizeof ",\"\""; /* 6: a control character is \u001f */
    CLEANUP(buf_done) struct buf json;
    buf_init(&json, field->max_items * item_max_bytes + sizeof "[]");
    buf_char(&json, '[');
    const cJSON *item;
    cJSON_ArrayForEach (item, value) {
        char item_pointer[POINTER_SIZE];
        (void)snprintf(item_pointer, sizeof item_pointer, "%s/%zu", pointer, texts.count);
        if (text_fits(item, 0, field->max, item_pointer, problems)) {
            if (texts.count > 0)
                buf_char(&json, ',');
            json_put_text(&json, item->valuestring);
        }
        texts.count++;
    }
    buf_char(&json, ']');
    if (problems->count > problems_before)
        return;
    texts.json = buf_take(&json);
    memcpy(member, &texts, sizeof texts);
}

static void decode_value(const cJSON *value, const struct json_field *field, char *member,
                         struct problems *problems)
{
    static void (*const decoders[])(const cJSON *, const struct json_field *, char *, const char *,
                                    struct problems *) = {
        [JSON_TEXT] = decode_text, [JSON_INTEGER] = decode_integer, [JSON_NUMBER] = decode_number,
        [JSON_DATE] = decode_date, [JSON_TEXTS] = decode_texts,
    };
    char pointer[POINTER_SIZE];
    point_to(field, pointer);
    decoders[field->type](value, field, member, pointer, problems);
}

/* The value of a field that is absent or null. */
static void decode_nothing(const struct json_field *field, bool null, char *member, struct problems *problems)
{
    if (field->required) {
        char pointer[POINTER_SIZE];
        point_to(field, pointer);
        problems_add(problems, pointer, "champ obligatoire");
        return;
    }
    memset(member, 0, field->size);
    if (!field->fallback || (null && field->nullable))
        return;
    /* Decoded like a value from outside: a default that breaks its own field's bounds shows in the first
     * test. */
    CLEANUP(json_free) cJSON *value = cJSON_Parse(field->fallback);
    decode_value(value, field, member, problems);
}

enum status json_decode(const cJSON *document, enum json_mode mode, const struct json_field *fields,
                        size_t field_count, void *out, unsigned *ret_present, struct problems *problems)
{
    unsigned present = 0;
    assert(field_count <= 32);
    problems->count = 0;
    if (!cJSON_IsObject(document)) {
        problems_add(problems, "", "doit être un objet JSON");
        return STATUS_INVALID;
    }
    for (size_t i = 0; i < field_count; i++) {
        const struct json_field *field = &fields[i];
        char *member = (char *)out + field->offset;
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(document, field->name);
        if (value)
            present |= 1u << i;
        if (value && !cJSON_IsNull(value))
            decode_value(value, field, member, problems);
        else if (value || mode == JSON_CREATE)
            decode_nothing(field, value != NULL, member, problems);
    }
    if (problems->count > 0)
        return STATUS_INVALID;
    *ret_present = present;
    return STATUS_OK;
}
