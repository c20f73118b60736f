#include "idempotency.h"

#include <string.h>

#include "cleanup.h"
#include "mem.h"

enum { FIND, KEEP, FORGET };
static const int64_t KEPT_MS = 24LL * 3600 * 1000;

enum status idempotency_find(struct db_conn *conn, unsigned first, const char *key, const char *document,
                             int64_t now_ms, char *ret_id, size_t size, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = db_query(conn, first + FIND, &rows, err, "ti", key, now_ms - KEPT_MS);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status != STATUS_OK)
        return status;
    if (strcmp(db_text(&rows, 0), document) != 0)
        return err_set(err, STATUS_INVALID, "Cette Idempotency-Key a déjà servi pour un autre document");
    (void)text_copy(ret_id, size, db_text(&rows, 1));
    return STATUS_OK;
}

enum status idempotency_keep(struct db_conn *conn, unsigned first, const char *key, const char *document,
                             const char *id, int64_t now_ms, struct err *err)
{
    enum status status = db_run(conn, first + KEEP, err, "ttti", key, document, id, now_ms);
    return status == STATUS_OK ? db_run(conn, first + FORGET, err, "i", now_ms - KEPT_MS) : status;
}
