/* JSON in and out. In: one strict validator (RFC 8259, stricter where interoperability asks for it, RFC 8259
 * section 4 and RFC 7493) in front of cJSON, then a table of fields that decodes an object into a struct and
 * names every problem at once. Out: a small writer over struct buf that keeps every valid string byte for
 * byte. No state, no I/O: any thread. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "status.h"

enum { JSON_DEPTH_MAX = 16 };

/* ---- in ---- */

/* Checks that text[0..len) is exactly one JSON document: RFC 8259 grammar, valid UTF-8 (RFC 3629: no
 * surrogates, no overlong forms), no BOM, no lone surrogate escape, no \u0000, no raw NUL, depth at most
 * JSON_DEPTH_MAX, numbers that fit a finite double, nothing behind but white space. Duplicate keys are found
 * by json_parse, on unescaped names. MALFORMED with the reason (French) and byte offset in *err. Time is
 * linear in len. */
enum status json_check(const char *text, size_t len, struct err *err);

/* json_check, then cJSON; also refuses an object with two equal names (after unescaping, n log n).
 * On OK *ret_document is the caller's (cJSON_Delete). MALFORMED otherwise. `text` needs no NUL behind it. */
enum status json_parse(const char *text, size_t len, cJSON **ret_document, struct err *err);

/* For CLEANUP(): cJSON_Delete on *document. */
void json_free(cJSON **document);

/* The problems of one document, all at once: the `errors` of a 422 (RFC 9457 extension). */
enum { PROBLEMS_MAX = 32 };
struct problem {
    char pointer[64]; /* RFC 6901, "/nombreInvites", "/tracks/3" */
    char detail[160]; /* French, for a person */
};
struct problems {
    size_t count; /* more than PROBLEMS_MAX are counted and not kept */
    struct problem items[PROBLEMS_MAX];
};
void problems_add(struct problems *problems, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum json_type {
    JSON_TEXT,    /* char[size], UTF-8, min..max code points; the array holds 4 * max + 1 bytes */
    JSON_INTEGER, /* int64_t, min..max; 50.0 is an integer, 50.5 is not */
    JSON_NUMBER,  /* double, min..max */
    JSON_DATE,    /* char[11], YYYY-MM-DD, a date that exists (proleptic Gregorian, years 0000-9999) */
    JSON_TEXTS,   /* struct json_texts: array of at most `max_items` strings of 0..max code points */
};

/* A list of strings as the JSON text that stores and answers it, `["a","b"]`, compact. free() json. */
struct json_texts {
    char *json;
    size_t count;
};

struct json_field {
    const char *name;
    enum json_type type;
    double min, max;     /* code points, or the number itself */
    size_t max_items;    /* JSON_TEXTS */
    size_t offset, size; /* where in the struct, offsetof and sizeof the member */
    bool required;       /* JSON_CREATE: must be there and not null */
    bool nullable;       /* null is a value of its own, kept as "" (JSON_TEXT) */
    const char
        *fallback; /* JSON_CREATE, absent or null, JSON syntax: "\"disco\"", "0", "[]"; NULL = zero bytes */
};

/* JSON_CREATE: absent fields take their fallback, required ones must be there.
 * JSON_CHANGE: absent fields are left alone in *out; null means: required 422, else the fallback
 *              (RFC 7396 reads null as "remove": here back to the default). */
enum json_mode { JSON_CREATE, JSON_CHANGE };

/* Decodes the object's known fields into *out by the table (at most 32 fields); unknown names are ignored;
 * names are compared byte for byte. *ret_present gets bit i for field i that was in the document (null too).
 * Returns INVALID when the document is no object (pointer "") or any field is wrong: then *problems lists all
 * of them and *out is half written; JSON_TEXTS members already decoded stay the caller's to free. */
enum status json_decode(const cJSON *document, enum json_mode mode, const struct json_field *fields,
                        size_t field_count, void *out, unsigned *ret_present, struct problems *problems);

/* Code points of a valid UTF-8 string. */
size_t utf8_length(const char *text);

/* Bytes of the longest prefix of `text` with at most `max_points` code points. */
size_t utf8_prefix(const char *text, size_t max_points);

/* Whether the bytes are valid UTF-8 (RFC 3629). */
bool utf8_valid(const char *bytes, size_t len);

/* Whether `text` is YYYY-MM-DD and that day exists. */
bool date_valid(const char *text);

/* ---- out ---- */

/* "text" with the escapes that RFC 8259 section 7 requires and no others. NULL gives null. */
void json_put_text(struct buf *out, const char *text);
void json_put_text_n(struct buf *out, const char *bytes, size_t len);

/* The shortest digits that read back as the same double; integers without exponent or point; no NaN or
 * infinity (written as null). */
void json_put_number(struct buf *out, double number);

/* ,"name":  — the comma only when the byte before is not an opening bracket; `name` needs no escape. */
void json_put_name(struct buf *out, const char *name);

/* ,"name":"text", and a time as RFC 3339, UTC, ms (timestamp_format). */
void json_put_field(struct buf *out, const char *name, const char *text);
void json_put_time_field(struct buf *out, const char *name, int64_t wall_ms);

#endif
