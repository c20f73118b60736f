#include "care.h"

#include <signal.h>
#include <stdio.h>

#include "cleanup.h"

enum { PROBLEMS_MAX_BYTES = 256 * 1024 };

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

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

int care_elsewhere(void)
{
    fprintf(stderr,
            "DATABASE_URL is set: --check and --backup are for SQLite. For PostgreSQL use its own tools:\n"
            "pg_amcheck for a check, pg_dump --schema=soirees (or playlists) for a copy\n");
    return 1;
}

int care_backup(const char *path, const char *to)
{
    const struct sigaction action = {.sa_handler = on_signal};
    struct err err = {0};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    if (db_backup(path, to, &interrupted, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%s: copied to %s\n", path, to);
    return 0;
}
