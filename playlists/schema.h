/* The files of schema/, in their order, embedded when the program is built (common/embed.cmake). */
#ifndef PLAYLISTS_SCHEMA_H
#define PLAYLISTS_SCHEMA_H

#include <stddef.h>

#include "db.h"

extern const struct db_migration playlists_schema[];
extern const size_t playlists_schema_count;

#endif
