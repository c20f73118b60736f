/* The files of schema/ (SQLite) and of schema/postgres/, in their order, embedded when the program is built
 * (common/embed.cmake). */
#ifndef PLAYLISTS_SCHEMA_H
#define PLAYLISTS_SCHEMA_H

#include <stddef.h>

#include "db_migration.h"

extern const struct db_migration playlists_schema[];
extern const size_t playlists_schema_count;
extern const struct db_migration playlists_postgres_schema[];
extern const size_t playlists_postgres_schema_count;

#endif
