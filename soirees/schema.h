/* The files of schema/ (SQLite) and of schema/postgres/, in their order, embedded when the program is built
 * (common/embed.cmake). */
#ifndef SOIREES_SCHEMA_H
#define SOIREES_SCHEMA_H

#include <stddef.h>

#include "db_migration.h"

extern const struct db_migration soirees_schema[];
extern const size_t soirees_schema_count;
extern const struct db_migration soirees_postgres_schema[];
extern const size_t soirees_postgres_schema_count;

#endif
