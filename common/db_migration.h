/* One file of a service's schema folder, embedded when the program is built (common/embed.cmake). */
#ifndef COMMON_DB_MIGRATION_H
#define COMMON_DB_MIGRATION_H

struct db_migration {
    const char *name; /* "0001-create" */
    const char *sql;
};

#endif
