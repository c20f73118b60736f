/* What is measured of a writer's transactions, under the same names whichever engine it is. Any thread. */
#ifndef COMMON_DB_METERS_H
#define COMMON_DB_METERS_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

/* A transaction with that many jobs has ended, `took_us` after its begin. */
void db_meters_commit(bool ok, int64_t jobs, int64_t took_us);

void db_meters_put(struct buf *out);

#endif
