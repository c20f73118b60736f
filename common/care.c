#include "care.h"

#include <stdio.h>

#include "cleanup.h"

enum { PROBLEMS_MAX_BYTES = 256 * 1024 };

int care_check(const char *path, const struct db_care *care)
{
    CLEANUP(buf_done) struct buf problems;
    buf_init(&problems, PROBLEMS_MAX_BYTES);
    struct err err = {0};
    if (db_check(path, care, &problems, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (problems.len == 0) {
        printf("%s: OK\n", path);
        return 0;
    }
    fprintf(stderr, "%s: something is wrong:\n%s", path, buf_get(&problems));
    return 1;
}

int care_backup(const char *path, const char *to)
{
    struct err err = {0};
    if (db_backup(path, to, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%s: copied to %s\n", path, to);
    return 0;
}
