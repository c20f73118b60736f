/* A folder of its own for a test, and waiting for other threads. Everything fails the test by itself. */
#ifndef TESTS_TEMP_FOLDER_H
#define TESTS_TEMP_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { WAIT_MAX_S = 20 };

/* A new, empty folder; drop_folder it. */
static inline char *temp_folder(void)
{
    const char *parent = getenv("TMPDIR");
    char *folder = mem_format("%s/soirees-unit-XXXXXX", parent && *parent ? parent : "/tmp");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static inline int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

/* Removes the folder and all it holds; for CLEANUP(). */
static inline void drop_folder(char **folder)
{
    if (*folder)
        (void)nftw(*folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    free_text(folder);
}

static inline void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Waits until another thread has posted. */
static inline void wait_for(sem_t *posted)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MAX_S;
    int result;
    do
        result = sem_timedwait(posted, &until);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        fail_msg("nothing happened for %d s", WAIT_MAX_S);
}

/* For a condition that nobody signals: calls it again and again until it holds. */
static inline void wait_until(bool (*holds)(void *arg), void *arg)
{
    for (int left = WAIT_MAX_S * 200; !holds(arg); left--) {
        if (left == 0)
            fail_msg("nothing happened for %d s", WAIT_MAX_S);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

#endif
