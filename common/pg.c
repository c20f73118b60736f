#include "pg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "db_meters.h"
#include "mem.h"
#include "metrics.h"
#include "pg_internal.h"

enum { STALLED_MS = 10000 };

/* ---- opening ---- */

static void init_conditions(struct pg *pg)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pg->reader_free, &monotonic);
    pthread_cond_init(&pg->connector_work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

enum status pg_open(struct pg **ret_pg, const struct pg_config *config, struct err *err)
{
    enum status status = pg_check_url(config->url, err);
    if (status != STATUS_OK)
        return status;
    struct pg *pg = mem_new(sizeof *pg);
    *pg = (struct pg){.config = *config, .writer_wanted = true};
    (void)err_set(&pg->health, STATUS_IO, "PostgreSQL: pas encore connecté");
    since_set(&pg->write_ok, false);
    pthread_mutex_init(&pg->mutex, NULL);
    init_conditions(pg);
    pg->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pg->wake_fd < 0)
        status = err_set(err, STATUS_IO, "eventfd: %s", strerror(errno));
    if (status == STATUS_OK)
        status = pg_writer_start(pg, err);
    if (status == STATUS_OK)
        status = pg_connector_start(pg, err);
    if (status == STATUS_OK)
        *ret_pg = pg;
    else
        pg_close(pg);
    return status;
}

void pg_close(struct pg *pg)
{
    if (!pg)
        return;
    pg_writer_stop(pg);
    if (pg_connector_stop(pg))
        pg_free(pg);
}

enum status pg_health(struct pg *pg, int64_t *ret_since_ms, struct err *err)
{
    pthread_mutex_lock(&pg->mutex);
    struct err health = pg->health;
    pthread_mutex_unlock(&pg->mutex);
    int64_t began_ms = atomic_load(&pg->write_began_ms);
    int64_t stalled_ms = began_ms ? clock_mono_ms() - began_ms : 0;
    *ret_since_ms = since_ms(&pg->write_ok);
    if (health.status == STATUS_OK && stalled_ms > STALLED_MS) {
        *ret_since_ms = clock_wall_ms() - stalled_ms;
        return err_set(err, STATUS_BUSY, "une écriture n'a pas abouti depuis %lld s",
                       (long long)stalled_ms / 1000);
    }
    if (err && health.status != STATUS_OK)
        *err = health;
    return health.status;
}

void pg_put_metrics(struct pg *pg, struct buf *out)
{
    metrics_put_gauge(out, "database_writable", "Whether the database can be written now.",
                      pg_health(pg, &(int64_t){0}, NULL) == STATUS_OK);
    pg_pool_put_metrics(pg, out);
    db_meters_put(out);
}

/* ---- rows ---- */

bool pg_next(struct pg_rows *rows)
{
    if (rows->row + 1 >= PQntuples(rows->result))
        return false;
    rows->row++;
    return true;
}

const char *pg_text(const struct pg_rows *rows, int column)
{
    return PQgetvalue(rows->result, rows->row, column);
}

bool pg_is_null(const struct pg_rows *rows, int column)
{
    return PQgetisnull(rows->result, rows->row, column);
}

int64_t pg_int(const struct pg_rows *rows, int column)
{
    return strtoll(pg_text(rows, column), NULL, 10);
}

double pg_double(const struct pg_rows *rows, int column)
{
    return strtod(pg_text(rows, column), NULL);
}

int64_t pg_changes(const struct pg_rows *rows)
{
    return strtoll(PQcmdTuples(rows->result), NULL, 10);
}

void pg_rows_done(struct pg_rows *rows)
{
    PQclear(rows->result);
    rows->result = NULL;
}
