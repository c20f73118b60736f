#include "pg_keys.h"

#include <string.h>

#include "mem.h"

enum { TAKE_KEY, FIND_KEY, FORGET_KEYS };

void pg_keys_take(struct pg_job *job, unsigned first, const char *key, const char *document, const char *id)
{
    pg_put(job, first + TAKE_KEY, "ttt", key, document, id);
    pg_put(job, first + FIND_KEY, "t", key);
}

enum status pg_keys_read(struct pg_job *job, unsigned first, const char *document, char *ret_id, size_t size,
                         struct err *err)
{
    struct pg_rows taken = pg_answer(job, 0), found = pg_answer(job, 1);
    if (pg_next(&taken)) {
        pg_put(job, first + FORGET_KEYS, "");
        return STATUS_NOT_FOUND;
    }
    if (!pg_next(&found)) /* another instance forgot it between the two */
        return err_set(err, STATUS_BUSY, "l'Idempotency-Key vient d'expirer");
    if (strcmp(pg_text(&found, 0), document) != 0)
        return err_set(err, STATUS_INVALID, "Cette Idempotency-Key a déjà servi pour un autre document");
    (void)text_copy(ret_id, size, pg_text(&found, 1));
    return STATUS_OK;
}
