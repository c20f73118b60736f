/* The files of schema/, in their order, embedded when the program is built (common/embed.cmake). */
#ifndef SOIREES_SCHEMA_H
#define SOIREES_SCHEMA_H

#include <stddef.h>

#include "db.h"

extern const struct db_migration soirees_schema[];
extern const size_t soirees_schema_count;

#endif
