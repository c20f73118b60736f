/* Allocation that does not fail: out of memory aborts with one line on stderr. Every lasting buffer has a
 * maximum, so running out means the machine is lost to us, and a killed daemon loses nothing that it
 * acknowledged. Any thread. What is returned is freed with free(). */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* The struct that a member given by pointer is embedded in. */
#define OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* `size` zeroed bytes (1 when 0). */
void *mem_new(size_t size);

/* realloc() to `size` bytes. */
void *mem_grow(void *memory, size_t size);

/* A copy of the string; NULL stays NULL. */
char *mem_text(const char *text);

/* A copy of `len` bytes with a NUL behind. */
char *mem_copy(const char *bytes, size_t len);

/* printf into a new string. */
char *mem_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Drops a code point that a cut has left incomplete at the end of `text`. */
void text_mend(char *text);

/* Copies at most `size - 1` bytes and ends with NUL; a longer text is cut before a code point. Returns
 * whether it was copied whole. */
bool text_copy(char *to, size_t size, const char *text);

/* NULL for the empty text, as databases have it. */
const char *text_or_null(const char *text);

#endif
