#include "mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_abort(void *memory)
{
    if (memory)
        return memory;
    (void)fputs("out of memory\n", stderr);
    abort();
}

void *mem_new(size_t size)
{
    return or_abort(calloc(1, size ? size : 1));
}

void *mem_grow(void *memory, size_t size)
{
    return or_abort(realloc(memory, size ? size : 1));
}

char *mem_text(const char *text)
{
    return text ? or_abort(strdup(text)) : NULL;
}

char *mem_copy(const char *bytes, size_t len)
{
    char *copy = mem_new(len + 1);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

char *mem_format(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int written = vasprintf(&text, format, args);
    va_end(args);
    return or_abort(written < 0 ? NULL : text);
}

void text_mend(char *text)
{
    size_t len = strlen(text), lead = len;
    while (lead > 0 && len - lead < 3 && ((unsigned char)text[lead - 1] & 0xC0) == 0x80)
        lead--;
    if (lead == 0)
        return;
    unsigned char first = (unsigned char)text[lead - 1];
    size_t wanted = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
    if (len - (lead - 1) < wanted)
        text[lead - 1] = '\0';
}

bool text_copy(char *to, size_t size, const char *text)
{
    size_t len = strlen(text);
    bool whole = len < size;
    if (!whole)
        len = size - 1;
    memcpy(to, text, len);
    to[len] = '\0';
    if (!whole)
        text_mend(to);
    return whole;
}

const char *text_or_null(const char *text)
{
    return text[0] ? text : NULL;
}
