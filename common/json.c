#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "mem.h"

/* Up to here comparing all pairs beats sorting. */
enum { SMALL_OBJECT_MAX = 16 };

/* Code points of a name in an error text: names come from outside and may be long. */
enum { SHOWN_NAME_POINTS = 32 };

void json_free(cJSON **document)
{
    cJSON_Delete(*document);
    *document = NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *twice_in_small(const cJSON *object)
{
    for (const cJSON *member = object->child; member; member = member->next)
        for (const cJSON *other = member->next; other; other = other->next)
            if (strcmp(member->string, other->string) == 0)
                return member->string;
    return NULL;
}

static const char *twice_in_large(const cJSON *object, size_t count)
{
    const char **names = mem_new(count * sizeof *names);
    size_t filled = 0;
    for (const cJSON *member = object->child; member; member = member->next)
        names[filled++] = member->string;
    qsort(names, count, sizeof *names, compare_names);
    const char *twice = NULL;
    for (size_t i = 1; i < count && !twice; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            twice = names[i];
    free(names);
    return twice;
}

/* A name that some object of the tree has twice; NULL when none. The tree is at most JSON_DEPTH_MAX deep. */
static const char *find_twice(const cJSON *item)
{
    size_t count = 0;
    for (const cJSON *child = item->child; child; child = child->next) {
        count++;
        const char *twice = child->child ? find_twice(child) : NULL;
        if (twice)
            return twice;
    }
    if (!cJSON_IsObject(item))
        return NULL;
    return count <= SMALL_OBJECT_MAX ? twice_in_small(item) : twice_in_large(item, count);
}

enum status json_parse(const char *text, size_t len, cJSON **ret_document, struct err *err)
{
    enum status status = json_check(text, len, err);
    if (status != STATUS_OK)
        return status;
    CLEANUP(json_free) cJSON *document = cJSON_ParseWithLength(text, len);
    if (!document)
        return err_set(err, STATUS_MALFORMED, "JSON mal formé : document refusé");
    const char *twice = find_twice(document);
    if (twice)
        return err_set(err, STATUS_MALFORMED, "JSON mal formé : le champ « %.*s » est présent deux fois",
                       (int)utf8_prefix(twice, SHOWN_NAME_POINTS), twice);
    *ret_document = TAKE(document);
    return STATUS_OK;
}
