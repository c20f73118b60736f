/* Scoped cleanup: the one extension beyond C11 this project uses, `__attribute__((cleanup))` (gcc, clang).
 *
 *     CLEANUP(buf_done) struct buf body = {0};      freed on every way out of the scope
 *     CLEANUP(free_text) char *text = …;
 *     return TAKE(text);                            ownership moves to the caller, visibly
 */
#ifndef COMMON_CLEANUP_H
#define COMMON_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

/* Gives the pointer's value and leaves NULL behind, so that its CLEANUP does nothing. */
#define TAKE(pointer)                                                                                        \
    __extension__({                                                                                          \
        __auto_type taken_ = (pointer);                                                                      \
        (pointer) = NULL;                                                                                    \
        taken_;                                                                                              \
    })

static inline void free_text(char **text)
{
    free(*text);
    *text = NULL;
}

/* free() for a pointer to anything: CLEANUP gives the pointer's address. */
static inline void free_pointer(void *address)
{
    free(*(void **)address);
}

/* Closes a descriptor held in an int; a negative one is "none". */
static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

#endif
