#include "db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "db_internal.h"
#include "db_meters.h"
#include "failpoint.h"
#include "mem.h"
#include "metrics.h"

static const unsigned long long LEAST_FREE_BYTES = 64ULL << 20;

enum status db_status(int result)
{
    if (result == SQLITE_IOERR_FSYNC || result == SQLITE_IOERR_DIR_FSYNC)
        return STATUS_UNSYNCED; /* the kernel may have dropped the pages: nobody knows what is on the disk */
    switch (result & 0xFF) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return STATUS_OK;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return STATUS_BUSY; /* somebody else's lock: passes */
    case SQLITE_FULL:
        return STATUS_FULL; /* passes when the operator makes room */
    case SQLITE_CONSTRAINT:
        return result == SQLITE_CONSTRAINT_UNIQUE || result == SQLITE_CONSTRAINT_PRIMARYKEY ? STATUS_CONFLICT
                                                                                            : STATUS_INTERNAL;
    case SQLITE_NOMEM:
        abort();
    default:
        return STATUS_IO; /* IOERR, CORRUPT, NOTADB, CANTOPEN, READONLY: a repair away, not the caller's fault
                           */
    }
}

enum status db_failed(sqlite3 *handle, struct err *err)
{
    return err_set(err, db_status(sqlite3_extended_errcode(handle)), "SQLite: %s", sqlite3_errmsg(handle));
}

enum status db_exec(sqlite3 *handle, const char *sql, struct err *err)
{
    return sqlite3_exec(handle, sql, NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : db_failed(handle, err);
}

static enum status step_once(struct db_conn *conn, sqlite3_stmt *statement, struct err *err)
{
    enum status status = sqlite3_step(statement) == SQLITE_DONE ? STATUS_OK : db_failed(conn->handle, err);
    (void)sqlite3_reset(statement);
    return status;
}

static enum status prepare(struct db_conn *conn, sqlite3_stmt **slot, const char *sql, struct err *err)
{
    if (*slot ||
        sqlite3_prepare_v3(conn->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL) == SQLITE_OK)
        return STATUS_OK;
    return db_failed(conn->handle, err);
}

enum status db_control(struct db_conn *conn, enum db_control control, struct err *err)
{
    static const char *const sql[DB_CONTROLS] = {
        [DB_BEGIN] = "BEGIN IMMEDIATE",       [DB_COMMIT] = "COMMIT",
        [DB_SAVEPOINT] = "SAVEPOINT job",     [DB_RELEASE] = "RELEASE job",
        [DB_ROLLBACK_TO] = "ROLLBACK TO job",
    };
    enum status status = prepare(conn, &conn->controls[control], sql[control], err);
    return status == STATUS_OK ? step_once(conn, conn->controls[control], err) : status;
}

enum status db_transaction(struct db_conn *conn, enum status (*body)(void *arg, struct err *err), void *arg,
                           struct err *err)
{
    enum status status = db_control(conn, DB_BEGIN, err);
    if (status != STATUS_OK)
        return status;
    status = body(arg, err);
    FAILPOINT("db.commit.before");
    if (status == STATUS_OK)
        status = db_control(conn, DB_COMMIT, err);
    FAILPOINT("db.commit.after");
    if (status != STATUS_OK && !sqlite3_get_autocommit(conn->handle))
        (void)db_exec(conn->handle, "ROLLBACK", NULL);
    return status;
}

/* ---- opening ---- */

static enum status make_folders(const char *path, struct err *err)
{
    CLEANUP(free_text) char *folder = mem_text(path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0750) != 0 && errno != EEXIST)
            return err_set(err, STATUS_IO, "%s: %s", folder, strerror(errno));
        *slash = '/';
    }
    return STATUS_OK;
}

/* A lock file beside the database: SQLite itself would let a second process in, and two outboxes would be
 * relayed. */
static enum status take_lock(struct db *db, struct err *err)
{
    CLEANUP(free_text) char *path = mem_format("%s.lock", db->path);
    db->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (db->lock_fd < 0)
        return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
    if (flock(db->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(err, STATUS_BUSY, "%s: another process uses this database", db->path);
    return STATUS_OK;
}

static enum status open_conn(struct db *db, struct db_conn *conn, int flags, struct err *err)
{
    conn->config = &db->config;
    conn->statements = mem_new(db->config.statement_count * sizeof(sqlite3_stmt *));
    int result = sqlite3_open_v2(db->path, &conn->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (result != SQLITE_OK) {
        int reason = conn->handle ? sqlite3_system_errno(conn->handle) : 0;
        return err_set(err, STATUS_IO, "%s: %s%s%s", db->path, sqlite3_errstr(result), reason ? ": " : "",
                       reason ? strerror(reason) : "");
    }
    if (!(flags & SQLITE_OPEN_READONLY) && sqlite3_db_readonly(conn->handle, "main") == 1)
        return err_set(err, STATUS_IO, "%s: the file is readonly", db->path);
    (void)sqlite3_extended_result_codes(conn->handle, 1);
    (void)sqlite3_busy_timeout(conn->handle, DB_BUSY_TIMEOUT_MS);
    return db_exec(conn->handle, "PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY", err);
}

static void close_conn(struct db_conn *conn)
{
    for (size_t i = 0; conn->statements && i < conn->config->statement_count; i++)
        (void)sqlite3_finalize(conn->statements[i]);
    for (size_t i = 0; i < DB_CONTROLS; i++)
        (void)sqlite3_finalize(conn->controls[i]);
    free(conn->statements);
    (void)sqlite3_close(conn->handle);
}

enum status db_schema_version(sqlite3 *handle, size_t *ret_version, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(handle, "PRAGMA user_version", -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW) {
        enum status status = db_failed(handle, err);
        (void)sqlite3_finalize(statement);
        return status;
    }
    *ret_version = (size_t)sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement);
    return STATUS_OK;
}

static enum status migrate(void *arg, struct err *err)
{
    struct db *db = arg;
    sqlite3 *handle = db->writer.handle;
    size_t version = 0;
    enum status status = db_schema_version(handle, &version, err);
    if (status == STATUS_OK && version > db->config.migration_count)
        return err_set(err, STATUS_IO, "%s: its schema (version %zu) is newer than this program (%zu)",
                       db->path, version, db->config.migration_count);
    for (size_t i = version; status == STATUS_OK && i < db->config.migration_count; i++)
        status = db_exec(handle, db->config.migrations[i].sql, err);
    char set[48];
    (void)snprintf(set, sizeof set, "PRAGMA user_version = %zu", db->config.migration_count);
    return status == STATUS_OK && version < db->config.migration_count ? db_exec(handle, set, err) : status;
}

/* Both services count their schemas from 1: the version alone does not tell whose database it is. */
static enum status check_statements(struct db *db, struct err *err)
{
    for (size_t i = 0; i < db->config.statement_count; i++) {
        sqlite3_stmt *statement = NULL;
        int result = sqlite3_prepare_v2(db->writer.handle, db->config.statements[i], -1, &statement, NULL);
        (void)sqlite3_finalize(statement);
        if (result == SQLITE_ERROR)
            return err_set(err, STATUS_IO, "%s: not a database of this program (%s)", db->path,
                           sqlite3_errmsg(db->writer.handle));
        if (result != SQLITE_OK)
            return db_failed(db->writer.handle, err);
    }
    return STATUS_OK;
}

static enum status open_writer(struct db *db, struct err *err)
{
    enum status status = open_conn(db, &db->writer,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE, err);
    if (status == STATUS_OK)
        status = db_exec(db->writer.handle,
                         "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                         "PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864",
                         err);
    if (status == STATUS_OK)
        status = db_transaction(&db->writer, migrate, db, err);
    if (status == STATUS_OK)
        status = check_statements(db, err);
    db->synced = true;
    if (status != STATUS_OK && err && !strstr(err->text, db->path)) {
        struct err reason = *err;
        (void)err_set(err, status, "%s: %s", db->path, reason.text);
    }
    return status;
}

static enum status open_readers(struct db *db, struct err *err)
{
    db->readers = mem_new(db->config.readers * sizeof *db->readers);
    for (unsigned i = 0; i < db->config.readers; i++) {
        enum status status = open_conn(db, &db->readers[i], SQLITE_OPEN_READONLY, err);
        if (status != STATUS_OK)
            return status;
        db->readers[i].next = db->free_readers;
        db->free_readers = &db->readers[i];
    }
    return STATUS_OK;
}

enum status db_open(struct db **ret_db, const struct db_config *config, struct err *err)
{
    /* Nobody asks SQLite how much memory it uses, and counting it takes a lock of the process for every
     * allocation. Refused once the library is at work: then it goes on counting. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    struct db *db = mem_new(sizeof *db);
    *db = (struct db){.config = *config, .path = mem_text(config->path), .lock_fd = -1};
    db->wal_path = mem_format("%s-wal", db->path);
    db->writer.config = &db->config;
    since_set(&db->write_ok, true);
    since_set(&db->space_ok, true);
    pthread_mutex_init(&db->mutex, NULL);
    pthread_cond_init(&db->reader_free, NULL);

    enum status status = make_folders(db->path, err);
    if (status == STATUS_OK)
        status = take_lock(db, err);
    if (status == STATUS_OK)
        status = open_writer(db, err);
    if (status == STATUS_OK)
        status = open_readers(db, err);
    if (status == STATUS_OK)
        status = db_writer_start(db, err);
    if (status != STATUS_OK)
        db_close(db);
    else
        *ret_db = db;
    return status;
}

void db_close(struct db *db)
{
    if (!db)
        return;
    db_writer_stop(db);
    for (unsigned i = 0; db->readers && i < db->config.readers && db->readers[i].config; i++)
        close_conn(&db->readers[i]);
    free(db->readers);
    close_conn(&db->writer); /* last: it checkpoints and removes the WAL */
    close_fd(&db->lock_fd);
    pthread_cond_destroy(&db->reader_free);
    pthread_mutex_destroy(&db->mutex);
    free(db->wal_path);
    free(db->path);
    free(db);
}

static bool read_space(const struct db *db, unsigned long long *ret_available, unsigned long long *ret_least)
{
    struct statvfs fs;
    if (statvfs(db->path, &fs) != 0)
        return false;
    unsigned long long least = (unsigned long long)fs.f_blocks * fs.f_frsize / 20;
    *ret_available = (unsigned long long)fs.f_bavail * fs.f_frsize;
    *ret_least = least < LEAST_FREE_BYTES ? LEAST_FREE_BYTES : least;
    return true;
}

void db_tell(struct db *db, const struct err *err)
{
    if (db->config.changed && (err->status != STATUS_OK || db_was_well(db)))
        db->config.changed(err->status == STATUS_OK ? NULL : err->text);
}

enum status db_check_space(struct db *db, struct err *err)
{
    unsigned long long available = 0, least = 0;
    enum status status = STATUS_OK;
    if (!read_space(db, &available, &least))
        status = err_set(err, STATUS_IO, "%s: %s", db->path, strerror(errno));
    else if (available < least)
        status = err_set(err, STATUS_FULL, "espace disque insuffisant : %llu Mio libres, %llu nécessaires",
                         available >> 20, least >> 20);
    struct err well = {0};
    if (since_set(&db->space_ok, status == STATUS_OK))
        db_tell(db, status == STATUS_OK ? &well : err);
    return status;
}

static void put_size(struct buf *out, const char *name, const char *help, const char *path)
{
    struct stat file;
    metrics_put_gauge(out, name, help, stat(path, &file) == 0 ? (double)file.st_size : 0);
}

void db_put_metrics(struct db *db, struct buf *out)
{
    unsigned long long available = 0, least = 0;
    put_size(out, "database_size_bytes", "Size of the database's file.", db->path);
    put_size(out, "database_wal_size_bytes", "Size of its write-ahead log.", db->wal_path);
    if (read_space(db, &available, &least)) {
        metrics_put_gauge(out, "database_disk_free_bytes", "Free space on its file system.",
                          (double)available);
        metrics_put_gauge(out, "database_disk_least_free_bytes", "With less free space nothing is stored.",
                          (double)least);
    }
    metrics_put_gauge(out, "database_writable", "Whether the database can be written now.",
                      db_health(db, &(int64_t){0}, NULL) == STATUS_OK);
    db_meters_put(out);
}

/* ---- the readers' pool ---- */

struct db_conn *db_reader_get(struct db *db)
{
    pthread_mutex_lock(&db->mutex);
    while (!db->free_readers)
        pthread_cond_wait(&db->reader_free, &db->mutex);
    struct db_conn *conn = db->free_readers;
    db->free_readers = conn->next;
    pthread_mutex_unlock(&db->mutex);
    return conn;
}

void db_reader_put(struct db *db, struct db_conn *conn)
{
    pthread_mutex_lock(&db->mutex);
    conn->next = db->free_readers;
    db->free_readers = conn;
    pthread_cond_signal(&db->reader_free);
    pthread_mutex_unlock(&db->mutex);
}

/* ---- statements ---- */

static enum status bind_all(sqlite3_stmt *statement, const char *types, va_list args)
{
    int result = SQLITE_OK;
    for (int i = 1; *types && result == SQLITE_OK; types++, i++) {
        switch (*types) {
        case 't':
            result = sqlite3_bind_text(statement, i, va_arg(args, const char *), -1, SQLITE_STATIC);
            break;
        case 'i':
            result = sqlite3_bind_int64(statement, i, va_arg(args, int64_t));
            break;
        case 'd':
            result = sqlite3_bind_double(statement, i, va_arg(args, double));
            break;
        default:
            abort();
        }
    }
    return db_status(result);
}

static enum status start(struct db_conn *conn, unsigned number, sqlite3_stmt **ret_statement, struct err *err,
                         const char *types, va_list args)
{
    sqlite3_stmt **slot = &conn->statements[number];
    enum status status = prepare(conn, slot, conn->config->statements[number], err);
    if (status != STATUS_OK)
        return status;
    if (bind_all(*slot, types, args) != STATUS_OK)
        return db_failed(conn->handle, err);
    *ret_statement = *slot;
    return STATUS_OK;
}

enum status db_run(struct db_conn *conn, unsigned statement, struct err *err, const char *types, ...)
{
    sqlite3_stmt *running = NULL;
    va_list args;
    va_start(args, types);
    enum status status = start(conn, statement, &running, err, types, args);
    va_end(args);
    if (status != STATUS_OK)
        return status;
    status = step_once(conn, running, err);
    (void)sqlite3_clear_bindings(running);
    return status;
}

int64_t db_changes(struct db_conn *conn)
{
    return sqlite3_changes64(conn->handle);
}

int64_t db_last_rowid(struct db_conn *conn)
{
    return sqlite3_last_insert_rowid(conn->handle);
}

enum status db_query(struct db_conn *conn, unsigned statement, struct db_rows *ret_rows, struct err *err,
                     const char *types, ...)
{
    *ret_rows = (struct db_rows){.conn = conn};
    va_list args;
    va_start(args, types);
    enum status status = start(conn, statement, &ret_rows->statement, err, types, args);
    va_end(args);
    return status;
}

enum status db_next(struct db_rows *rows, struct err *err)
{
    switch (sqlite3_step(rows->statement)) {
    case SQLITE_ROW:
        return STATUS_OK;
    case SQLITE_DONE:
        return STATUS_NOT_FOUND;
    default:
        return db_failed(rows->conn->handle, err);
    }
}

void db_rows_done(struct db_rows *rows)
{
    if (rows->statement) {
        (void)sqlite3_reset(rows->statement);
        (void)sqlite3_clear_bindings(rows->statement);
    }
    rows->statement = NULL;
}

const char *db_text(struct db_rows *rows, int column)
{
    const char *text = (const char *)sqlite3_column_text(rows->statement, column);
    return text ? text : "";
}

bool db_is_null(struct db_rows *rows, int column)
{
    return sqlite3_column_type(rows->statement, column) == SQLITE_NULL;
}

int64_t db_int(struct db_rows *rows, int column)
{
    return sqlite3_column_int64(rows->statement, column);
}

double db_double(struct db_rows *rows, int column)
{
    return sqlite3_column_double(rows->statement, column);
}

enum status db_look(struct db *db, unsigned statement, struct db_look *ret_look, struct err *err)
{
    struct db_conn *conn = db_reader_get(db);
    struct db_rows rows = {0};
    enum status status = db_query(conn, statement, &rows, err, "");
    if (status == STATUS_OK && (status = db_next(&rows, err)) == STATUS_OK) {
        (void)text_copy(ret_look->text, sizeof ret_look->text, db_text(&rows, 0));
        ret_look->number = db_int(&rows, 0);
    }
    db_rows_done(&rows);
    db_reader_put(db, conn);
    return status;
}
