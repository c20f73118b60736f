#include "db_care.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "db_internal.h"
#include "mem.h"

enum { STEPS_A_LOOK = 10000 }; /* of SQLite's machine, between two looks at *stop */

static void close_handle(sqlite3 **handle)
{
    (void)sqlite3_close(*handle);
}

static void finalize(sqlite3_stmt **statement)
{
    (void)sqlite3_finalize(*statement);
}

static enum status fail_path(const char *path, enum status status, const char *reason, struct err *err)
{
    return err_set(err, status, "%s: %s", path, reason);
}

static enum status fail_errno(const char *path, struct err *err)
{
    return fail_path(path, errno == ENOSPC ? STATUS_FULL : STATUS_IO, strerror(errno), err);
}

static enum status fail_handle(const char *path, sqlite3 *handle, struct err *err)
{
    return fail_path(path, db_status(sqlite3_extended_errcode(handle)), sqlite3_errmsg(handle), err);
}

static enum status open_readonly(sqlite3 **ret_handle, const char *path, struct err *err)
{
    struct stat file;
    if (stat(path, &file) != 0)
        return fail_errno(path, err); /* SQLite's own words for it are "unable to open database file" */
    int result = sqlite3_open_v2(path, ret_handle, SQLITE_OPEN_READONLY | SQLITE_OPEN_EXRESCODE, NULL);
    if (result != SQLITE_OK)
        return fail_path(path, db_status(result), sqlite3_errstr(result), err);
    (void)sqlite3_busy_timeout(*ret_handle, DB_BUSY_TIMEOUT_MS);
    return STATUS_OK;
}

/* ---- checking ---- */

struct findings {
    struct buf *problems;
    unsigned count;
};

static void add_finding(struct findings *findings, const char *text)
{
    if (findings->count < DB_PROBLEMS_MAX)
        buf_format(findings->problems, "%s\n", text);
    else if (findings->count == DB_PROBLEMS_MAX)
        buf_text(findings->problems, "… and more\n");
    findings->count++;
}

/* Every row of the query but `fine` is a finding. A damaged file may make the query itself fail: that is one
 * too, where it is the damage. */
static enum status find(sqlite3 *handle, const char *path, const char *sql, const char *fine,
                        struct findings *findings, struct err *err)
{
    CLEANUP(finalize) sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(handle, sql, -1, &statement, NULL);
    while (result == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (!text || strcmp(text, fine) != 0)
            add_finding(findings, text ? text : "NULL");
    }
    result = sqlite3_errcode(handle) & 0xFF;
    if (result == SQLITE_OK || result == SQLITE_ROW || result == SQLITE_DONE)
        return STATUS_OK;
    if (result != SQLITE_CORRUPT)
        return fail_handle(path, handle, err);
    add_finding(findings, sqlite3_errmsg(handle));
    return STATUS_OK;
}

/* The whole schema as one text, NULL where it cannot be read. free() it. */
static char *schema_text(sqlite3 *handle)
{
    static const char sql[] =
        "SELECT group_concat(line, char(10)) FROM (SELECT type || ' ' || name || ': ' || sql AS line"
        " FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%' ORDER BY line)";
    CLEANUP(finalize) sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(handle, sql, -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW)
        return NULL;
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    return mem_text(text ? text : "");
}

/* What a new database of that version has. */
static char *expected_schema(const struct db_care *care, size_t version)
{
    CLEANUP(close_handle) sqlite3 *handle = NULL;
    if (sqlite3_open_v2(":memory:", &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL) != SQLITE_OK)
        abort();
    for (size_t i = 0; i < version; i++)
        if (db_exec(handle, care->migrations[i].sql, NULL) != STATUS_OK)
            abort(); /* they are in the program */
    return schema_text(handle);
}

static enum status check_schema(sqlite3 *handle, const char *path, const struct db_care *care,
                                struct findings *findings, struct err *err)
{
    size_t version = 0;
    char text[128];
    if (db_schema_version(handle, &version, NULL) != STATUS_OK)
        return fail_handle(path, handle, err);
    if (version > care->migration_count) {
        (void)snprintf(text, sizeof text, "its schema (version %zu) is newer than this program (%zu)",
                       version, care->migration_count);
        add_finding(findings, text);
        return STATUS_OK;
    }
    CLEANUP(free_text) char *found = schema_text(handle);
    CLEANUP(free_text) char *expected = expected_schema(care, version);
    if (!found || strcmp(found, expected) != 0) {
        (void)snprintf(text, sizeof text, "its tables are not those of schema version %zu", version);
        add_finding(findings, text);
        return STATUS_OK;
    }
    if (version == 0) /* what SQLite makes of an empty file: a backup that was cut off */
        add_finding(findings, "it is empty: no table, no schema");
    enum status status = STATUS_OK;
    for (size_t i = 0; version == care->migration_count && status == STATUS_OK && i < care->check_count; i++)
        status = find(handle, path, care->checks[i], "", findings, err);
    return status;
}

enum status db_check(const char *path, const struct db_care *care, struct buf *problems, struct err *err)
{
    CLEANUP(close_handle) sqlite3 *handle = NULL;
    struct findings findings = {.problems = problems};
    enum status status = open_readonly(&handle, path, err);
    if (status == STATUS_OK && sqlite3_exec(handle, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        status = fail_handle(path, handle, err); /* all of it of one moment: the daemon may be at work */
    if (status == STATUS_OK)
        status = find(handle, path, "PRAGMA integrity_check", "ok", &findings, err);
    if (status == STATUS_OK)
        status = find(
            handle, path,
            "SELECT \"table\" || ': row ' || ifnull(rowid, '?') || ' refers to a row of ' || parent ||"
            " ' that is not there' FROM pragma_foreign_key_check",
            "", &findings, err);
    return status == STATUS_OK ? check_schema(handle, path, care, &findings, err) : status;
}

/* ---- backup ---- */

/* Whether the name is that of a file which some database needs beside it. */
static bool is_part_of_database(const char *to)
{
    static const char *const endings[] = {"-wal", "-shm", "-journal", ".lock"};
    size_t len = strlen(to);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t end = strlen(endings[i]);
        if (len <= end || strcmp(to + len - end, endings[i]) != 0)
            continue;
        CLEANUP(free_text) char *database = mem_text(to);
        database[len - end] = '\0';
        if (access(database, F_OK) == 0)
            return true;
    }
    return false;
}

/* Refuses to put the copy over the database itself, over a part of it or of another one, or over another one
 * that may be open or whose log is still beside it: SQLite would apply that log to the copy. */
static enum status check_target(const char *path, const char *to, struct err *err)
{
    struct stat source, target;
    CLEANUP(free_text) char *wal = mem_format("%s-wal", to);
    CLEANUP(free_text) char *journal = mem_format("%s-journal", to);
    if (stat(path, &source) == 0 && stat(to, &target) == 0) {
        if (source.st_dev == target.st_dev && source.st_ino == target.st_ino)
            return fail_path(to, STATUS_IO, "is the database itself", err);
        if (!S_ISREG(target.st_mode))
            return fail_path(to, STATUS_IO, "is no regular file", err);
    }
    if (is_part_of_database(to))
        return fail_path(to, STATUS_IO, "is a part of a database", err);
    if (access(wal, F_OK) == 0 || access(journal, F_OK) == 0)
        return fail_path(to, STATUS_IO, "is a database in use (there is a -wal or -journal file)", err);
    return STATUS_OK;
}

/* Behind a pointer of its own: SQLite's argument is no pointer to const. */
struct stopper {
    const volatile sig_atomic_t *stop;
};

static int must_stop(void *arg)
{
    return *((struct stopper *)arg)->stop != 0;
}

static enum status vacuum_into(const char *path, const char *to, const volatile sig_atomic_t *stop,
                               struct err *err)
{
    CLEANUP(close_handle) sqlite3 *handle = NULL;
    enum status status = open_readonly(&handle, path, err);
    if (status != STATUS_OK)
        return status;
    struct stopper stopper = {stop};
    sqlite3_progress_handler(handle, STEPS_A_LOOK, must_stop, &stopper);
    CLEANUP(finalize) sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(handle, "VACUUM INTO ?1", -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_bind_text(statement, 1, to, -1, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_DONE)
        return *stop ? fail_path(to, STATUS_STOPPING, "interrupted", err) : fail_handle(path, handle, err);
    return STATUS_OK;
}

static enum status check_copy(const char *path, struct err *err)
{
    CLEANUP(close_handle) sqlite3 *handle = NULL;
    CLEANUP(buf_done) struct buf problems;
    buf_init(&problems, 64 * 1024);
    struct findings findings = {.problems = &problems};
    enum status status = open_readonly(&handle, path, err);
    if (status == STATUS_OK)
        status = find(handle, path, "PRAGMA integrity_check", "ok", &findings, err);
    if (status == STATUS_OK && findings.count > 0)
        return err_set(err, STATUS_IO, "the copy is damaged: %s", buf_get(&problems));
    return status;
}

/* On the disk, then under its name, then the name on the disk. */
static enum status publish(int fd, const char *temporary, const char *to, struct err *err)
{
    CLEANUP(free_text) char *copy = mem_text(to);
    const char *folder = dirname(copy);
    if (fsync(fd) != 0 || rename(temporary, to) != 0)
        return fail_errno(to, err);
    int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = folder_fd < 0 || fsync(folder_fd) != 0 ? fail_errno(folder, err) : STATUS_OK;
    close_fd(&folder_fd);
    return status;
}

enum status db_backup(const char *path, const char *to, const volatile sig_atomic_t *stop, struct err *err)
{
    enum status status = check_target(path, to, err);
    if (status != STATUS_OK)
        return status;
    /* "./": SQLite takes "file:…" for a URI */
    CLEANUP(free_text) char *temporary = mem_format("%s%s.XXXXXX", *to == '/' ? "" : "./", to);
    CLEANUP(close_fd) int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        return fail_errno(to, err);
    status = vacuum_into(path, temporary, stop, err);
    if (status == STATUS_OK)
        status = check_copy(temporary, err);
    if (status == STATUS_OK && *stop)
        status = fail_path(to, STATUS_STOPPING, "interrupted", err);
    if (status == STATUS_OK)
        status = publish(fd, temporary, to, err);
    if (status != STATUS_OK)
        (void)unlink(temporary);
    return status;
}
