/* The options --check and --backup of both daemons: what db_care.h does, told to who typed it. */
#ifndef COMMON_CARE_H
#define COMMON_CARE_H

#include "db_care.h"

/* Prints what is wrong with the database at `path`; exit status 0 (nothing) or 1. */
int care_check(const char *path, const struct db_care *care);

/* Says what does their work for PostgreSQL; exit status 1. */
int care_elsewhere(void);

/* Copies the database at `path` to the file `to`; exit status 0 or 1. SIGINT, SIGTERM and SIGHUP end it
 * tidily. */
int care_backup(const char *path, const char *to);

#endif
