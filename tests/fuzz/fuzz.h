/* What the fuzz targets share. A target is one fuzz_<decoder>.c with its seeds in corpus/<decoder>/: a
 * function that takes any bytes and checks what the decoder's users rely on. It is linked with libFuzzer
 * (scripts/fuzz, clang), and with replay.c for the unit tests, which give it every file of its corpus once.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "json.h"
#include "mem.h"
#include "status.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Not assert(): it must hold in every kind of build. */
#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

enum { INPUT_MAX = 64 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of at most INPUT_MAX bytes with a page behind it that nobody may read: what a library does that was
 * built without sanitizers shows too. Lasts until the next call. */
static inline const char *at_the_edge(const uint8_t *data, size_t size)
{
    static char *room;
    if (!room) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        room = mmap(NULL, INPUT_MAX + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(room != MAP_FAILED && mprotect(room + INPUT_MAX, page, PROT_NONE) == 0);
    }
    return size > 0 ? memcpy(room + INPUT_MAX - size, data, size) : room + INPUT_MAX;
}

/* The bytes up to a NUL, as a string of its own: what reads behind its end is seen. */
static inline char *as_text(const uint8_t *data, size_t size)
{
    const void *nul = size > 0 ? memchr(data, '\0', size) : NULL;
    return mem_copy((const char *)data, nul ? (size_t)((const uint8_t *)nul - data) : size);
}

/* The next part of the input, up to `separator` or its end, as a string; "" behind the end. */
static inline char *next_text(const uint8_t **data, size_t *size, char separator)
{
    const uint8_t *end = *size > 0 ? memchr(*data, separator, *size) : NULL;
    size_t len = end ? (size_t)(end - *data) : *size;
    char *text = as_text(*data, len);
    *data += len + (end != NULL);
    *size -= len + (end != NULL);
    return text;
}

/* What logs must not drown the fuzzer's own lines, which go to stderr. */
static inline void silence_stdout(void)
{
    static bool silent;
    if (!silent)
        MUST(freopen("/dev/null", "w", stdout));
    silent = true;
}

static inline bool is_utf8(const char *text)
{
    return utf8_valid(text, strlen(text));
}

/* The text ends inside its array, is UTF-8, and has min..max code points. */
static inline void must_fit(const char *text, size_t size, size_t min_points, size_t max_points)
{
    MUST(strnlen(text, size) < size);
    MUST(is_utf8(text));
    MUST(utf8_length(text) >= min_points && utf8_length(text) <= max_points);
}

/* *err, zeroed before a call that returned `status`, is set exactly when that failed. */
static inline void must_tell(const struct err *err, enum status status)
{
    MUST(status < STATUS_COUNT && err->status == status);
    MUST(strnlen(err->text, sizeof err->text) < sizeof err->text);
    MUST((err->text[0] != '\0') == (status != STATUS_OK) && is_utf8(err->text));
}

/* RFC 6901 section 3 and 4: the pointer names a place in the document. The last name may be one that is
 * missing. */
static inline void must_point_into(const cJSON *document, const char *pointer)
{
    const cJSON *at = document;
    MUST(pointer[0] == '/' || pointer[0] == '\0');
    while (*pointer == '/') {
        char name[64];
        size_t len = strcspn(++pointer, "/");
        MUST(len < sizeof name && !memchr(pointer, '~', len)); /* our names need no escape */
        memcpy(name, pointer, len);
        name[len] = '\0';
        pointer += len;
        MUST(cJSON_IsObject(at) || cJSON_IsArray(at));
        const cJSON *child = cJSON_IsObject(at) ? cJSON_GetObjectItemCaseSensitive(at, name)
                                                : cJSON_GetArrayItem(at, atoi(name));
        MUST(child || (cJSON_IsObject(at) && *pointer == '\0'));
        at = child;
    }
    MUST(*pointer == '\0');
}

/* The problems of a refused document: at least one, each with its place and a text for a person. */
static inline void must_name_problems(const struct problems *problems, const cJSON *document)
{
    MUST(problems->count > 0);
    for (size_t i = 0; i < problems->count && i < PROBLEMS_MAX; i++) {
        const struct problem *problem = &problems->items[i];
        must_fit(problem->pointer, sizeof problem->pointer, 0, sizeof problem->pointer);
        must_fit(problem->detail, sizeof problem->detail, 1, sizeof problem->detail);
        must_point_into(document, problem->pointer);
        MUST(problem->pointer[0] || (problems->count == 1 && !cJSON_IsObject(document)));
    }
}

/* What our writers wrote, read by our reader. */
static inline cJSON *must_be_json(const struct buf *text)
{
    cJSON *document = NULL;
    struct err err = {0};
    MUST(buf_ok(text));
    MUST(json_parse(buf_get(text), text->len, &document, &err) == STATUS_OK);
    must_tell(&err, STATUS_OK);
    return document;
}

static inline void must_have_text(const cJSON *object, const char *name, const char *text)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    MUST(cJSON_IsString(member) && strcmp(member->valuestring, text) == 0);
}

#endif
