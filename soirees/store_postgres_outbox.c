/* The outbox of the PostgreSQL engine. The instances' relays share it: each takes what is nobody's, by a
 * short UPDATE whose inner SELECT skips what another one is just taking (manual, SELECT, "The Locking
 * Clause": SKIP LOCKED is meant for "multiple consumers accessing a queue-like table"), and no transaction is
 * open while a message is on its way to the broker. */
#include "store_postgres.h"

#include "cleanup.h"

enum { POLL_MS = 1500, LOOK_MS = 2000 };

static int by_seq(const void *a, const void *b)
{
    const struct outbox_row *first = a, *second = b;
    return first->seq < second->seq ? -1 : first->seq > second->seq;
}

static void read_row(struct pg_rows *rows, struct outbox_row *row)
{
    row->seq = pg_int(rows, 0);
    (void)text_copy(row->message_id, sizeof row->message_id, pg_text(rows, 1));
    (void)text_copy(row->traceparent, sizeof row->traceparent, pg_text(rows, 2));
    row->body = mem_text(pg_text(rows, 3));
    (void)text_copy(row->soiree_id, sizeof row->soiree_id, pg_text(rows, 4));
}

/* RETURNING says nothing of an order. */
enum status store_postgres_outbox_unsent(struct store *base, int64_t after, size_t max,
                                         struct outbox_row *rows, size_t *ret_count, struct err *err)
{
    struct postgres_store *store = postgres_of(base);
    CLEANUP(pg_rows_done) struct pg_rows found = {0};
    size_t count = 0;
    enum status status = pg_query(store->pg, OUTBOX_CLAIM, &found, err, "tiii", store->instance, after,
                                  (int64_t)max, (int64_t)STORE_LEASE_MS);
    while (status == STATUS_OK && count < max && pg_next(&found))
        read_row(&found, &rows[count++]);
    qsort(rows, count, sizeof *rows, by_seq);
    *ret_count = count;
    return status;
}

enum status store_postgres_outbox_get(struct store *base, int64_t seq, struct outbox_row *ret_row,
                                      struct err *err)
{
    struct postgres_store *store = postgres_of(base);
    CLEANUP(pg_rows_done) struct pg_rows found = {0};
    enum status status = pg_query(store->pg, OUTBOX_GET, &found, err, "tii", store->instance, seq,
                                  (int64_t)STORE_LEASE_MS);
    if (status == STATUS_OK && !pg_next(&found))
        return STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        read_row(&found, ret_row);
    return status;
}

enum status store_postgres_outbox_due(struct store *base, int64_t now_ms, struct outbox_row *ret_row,
                                      struct err *err)
{
    struct postgres_store *store = postgres_of(base);
    CLEANUP(pg_rows_done) struct pg_rows found = {0};
    (void)now_ms; /* the database's clock counts */
    enum status status = pg_query(store->pg, OUTBOX_DUE, &found, err, "t", store->instance);
    if (status == STATUS_OK && !pg_next(&found))
        return STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        read_row(&found, ret_row);
    return status;
}

enum status store_postgres_outbox_take(struct store *base, int64_t seq, struct err *err)
{
    struct postgres_store *store = postgres_of(base);
    CLEANUP(pg_rows_done) struct pg_rows found = {0};
    enum status status = pg_query(store->pg, OUTBOX_TAKE, &found, err, "tii", store->instance, seq,
                                  (int64_t)STORE_LEASE_MS);
    return status == STATUS_OK && !pg_next(&found) ? STATUS_NOT_FOUND : status;
}

static void put_array(struct buf *out, const int64_t *seqs, size_t count)
{
    buf_init(out, 24 * (count + 1));
    buf_char(out, '{');
    for (size_t i = 0; i < count; i++)
        buf_format(out, i ? ",%lld" : "%lld", (long long)seqs[i]);
    buf_char(out, '}');
}

void store_postgres_outbox_hold(struct store *base, const int64_t *seqs, size_t count)
{
    struct postgres_store *store = postgres_of(base);
    CLEANUP(buf_done) struct buf array;
    CLEANUP(pg_rows_done) struct pg_rows none = {0};
    put_array(&array, seqs, count);
    (void)pg_query(store->pg, OUTBOX_HOLD, &none, NULL, "tti", store->instance, buf_get(&array),
                   (int64_t)STORE_LEASE_MS); /* the next one comes in time where this one failed */
}

void store_postgres_outbox_release(struct postgres_store *store)
{
    CLEANUP(pg_rows_done) struct pg_rows none = {0};
    (void)pg_query(store->pg, OUTBOX_RELEASE, &none, NULL, "t", store->instance); /* else the leases end */
}

int64_t store_postgres_outbox_poll_ms(struct store *base)
{
    (void)base;
    return POLL_MS;
}

/* Counts up to a bound, and not more often than every LOOK_MS, whoever asks. */
void store_postgres_outbox_look(struct store *base, struct store_outbox *ret_outbox)
{
    struct postgres_store *store = postgres_of(base);
    pthread_mutex_lock(&store->look_mutex);
    if (store->looked_ms == 0 || clock_mono_ms() - store->looked_ms > LOOK_MS) {
        CLEANUP(pg_rows_done) struct pg_rows found = {0};
        store->look.oldest_ms = -1;
        if (pg_query(store->pg, OUTBOX_LOOK, &found, NULL, "") == STATUS_OK && pg_next(&found)) {
            store->look.unsent = pg_int(&found, 0);
            store->look.open = pg_int(&found, 1);
            store->look.oldest_ms = uuid_time_ms(pg_text(&found, 2));
        }
        store->looked_ms = clock_mono_ms();
    }
    *ret_outbox = store->look;
    pthread_mutex_unlock(&store->look_mutex);
}

/* ---- confirms ---- */

static enum status run_confirm(struct pg_job *job, struct err *err)
{
    struct store_confirm *confirm = OWNER(job, struct store_confirm, job.postgres);
    int64_t again_after_ms = atomic_load(postgres_of(confirm->store)->again_after_ms);
    CLEANUP(buf_done) struct buf array = {0};
    (void)err;
    if (job->round > 0)
        return STATUS_OK;
    job->last = true;
    put_array(&array, confirm->seqs, confirm->count);
    if (confirm->clock_back && again_after_ms)
        pg_put(job, OUTBOX_MEND, "i", again_after_ms);
    if (again_after_ms)
        pg_put(job, OUTBOX_KEEP, "tit", buf_get(&array), again_after_ms,
               postgres_of(confirm->store)->instance);
    else
        pg_put(job, OUTBOX_DELETE, "t", buf_get(&array));
    return STATUS_OK;
}

static void confirm_done(struct pg_job *job)
{
    struct store_confirm *confirm = OWNER(job, struct store_confirm, job.postgres);
    confirm->err = job->err;
    confirm->done(confirm);
}

void store_postgres_confirm(struct store *base, struct store_confirm *confirm)
{
    confirm->store = base;
    confirm->job.postgres = (struct pg_job){.run = run_confirm, .done = confirm_done, .key = ""};
    pg_submit(postgres_of(base)->pg, &confirm->job.postgres);
}
