/* A database's care from the command line: is it sound, and a copy of it while the daemon works on it. Both
 * open the file read-only, beside a running daemon or without one, and take no lock that would hold it up.
 * (Read-only also because a second connection that checkpoints can corrupt a database in WAL mode with SQLite
 * before 3.51.3: sqlite.org/wal.html#walresetbug.) The main thread. */
#ifndef COMMON_DB_CARE_H
#define COMMON_DB_CARE_H

#include <signal.h>
#include <stddef.h>

#include "buf.h"
#include "db.h"
#include "status.h"

/* What is known of a service's database. */
struct db_care {
    const struct db_migration *migrations;
    size_t migration_count;
    /* Queries whose every row is a text that names something that cannot be; of the newest schema. */
    const char *const *checks;
    size_t check_count;
};

enum { DB_PROBLEMS_MAX = 50 };

/* Looks for what is wrong: SQLite's integrity_check and foreign_key_check, a schema that is not the one its
 * version's migrations make or is newer than they are, and the service's own checks (only where the schema is
 * the newest). Each finding is a line in `problems`, at most DB_PROBLEMS_MAX. An error where it could not be
 * looked at: IO (not there, not readable, no database), BUSY. */
enum status db_check(const char *path, const struct db_care *care, struct buf *problems, struct err *err);

/* Writes a copy of the database as it was at one moment after the call began to the file `to`, without empty
 * pages. The copy is checked (integrity_check) and on the disk before it takes that name, in one step,
 * replacing what had it: there is never half a file. On error nothing has changed: IO (also where `to` is a
 * database in use), BUSY, FULL; STOPPING once *stop is not 0 (a signal handler may set it). */
enum status db_backup(const char *path, const char *to, const volatile sig_atomic_t *stop, struct err *err);

#endif
