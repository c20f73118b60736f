/* SQLite on a disk that fails when the test says so: a VFS before the default one whose files give the wanted result
 * instead of syncing or writing. Only databases opened after failing_vfs_install() are concerned. */
#ifndef TESTS_FAILING_VFS_H
#define TESTS_FAILING_VFS_H

#include <sqlite3.h>
#include <stdatomic.h>

/* SQLITE_OK: works. */
static atomic_int failing_sync, failing_write;
static atomic_int vfs_syncs; /* since the start */

static sqlite3_vfs *vfs_below;
static const sqlite3_io_methods *methods_below;

/* The two sorts of files of a database in WAL mode: below, their methods differ in the locks alone. */
static sqlite3_io_methods main_methods, wal_methods;

static inline int vfs_sync(sqlite3_file *file, int flags)
{
    atomic_fetch_add(&vfs_syncs, 1);
    int result = atomic_load(&failing_sync);
    return result != SQLITE_OK ? result : methods_below->xSync(file, flags);
}

static inline int vfs_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
    int result = atomic_load(&failing_write);
    return result != SQLITE_OK ? result : methods_below->xWrite(file, bytes, len, at);
}

static inline int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    (void)vfs;
    int result = vfs_below->xOpen(vfs_below, name, file, flags, ret_flags);
    if (result != SQLITE_OK || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)))
        return result;
    sqlite3_io_methods *ours = flags & SQLITE_OPEN_WAL ? &wal_methods : &main_methods;
    if (!ours->xSync) {
        *ours = *file->pMethods;
        ours->xSync = vfs_sync;
        ours->xWrite = vfs_write;
        methods_below = file->pMethods;
    }
    file->pMethods = ours;
    return SQLITE_OK;
}

/* Once, in the test's thread, before any thread uses SQLite. */
static inline void failing_vfs_install(void)
{
    static sqlite3_vfs vfs;
    vfs_below = sqlite3_vfs_find(NULL);
    vfs = *vfs_below;
    vfs.zName = "failing";
    vfs.xOpen = vfs_open;
    vfs.pNext = NULL;
    (void)sqlite3_vfs_register(&vfs, 1);
}

static inline void disk_works(void)
{
    atomic_store(&failing_sync, SQLITE_OK);
    atomic_store(&failing_write, SQLITE_OK);
}

#endif
