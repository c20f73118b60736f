#include "failpoint.h"

#ifdef FAILPOINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void failpoint_pass(const char *name)
{
    static atomic_long passed;
    const char *wanted = getenv("FAILPOINT");
    size_t len = strlen(name);
    if (!wanted || strncmp(wanted, name, len) != 0 || (wanted[len] && wanted[len] != ':'))
        return;
    long nth = wanted[len] ? strtol(wanted + len + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&passed, 1) + 1 < nth)
        return;
    while (getenv("FAILPOINT_HANGS"))
        (void)pause();
    (void)kill(getpid(), SIGKILL);
}

#else

typedef int failpoint_none; /* ISO C wants a declaration in every file */

#endif
