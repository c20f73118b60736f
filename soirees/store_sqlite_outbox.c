/* The outbox of the SQLite engine, as the relay sees it. */
#include "store_sqlite.h"

#include "cleanup.h"
#include "mem.h"

static void read_row(struct db_rows *rows, struct outbox_row *row)
{
    row->seq = db_int(rows, 0);
    (void)text_copy(row->message_id, sizeof row->message_id, db_text(rows, 1));
    (void)text_copy(row->traceparent, sizeof row->traceparent, db_text(rows, 2));
    row->body = mem_text(db_text(rows, 3));
    (void)text_copy(row->soiree_id, sizeof row->soiree_id, db_text(rows, 4));
}

static enum status read_rows(struct store *base, enum statement statement, int64_t argument, size_t max,
                             struct outbox_row *rows, size_t *ret_count, struct err *err)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_conn *conn = db_reader_get(store->db);
    struct db_rows found = {0};
    size_t count = 0;
    enum status status = db_query(conn, statement, &found, err, statement == OUTBOX_UNSENT ? "ii" : "i",
                                  argument, (int64_t)max);
    while (status == STATUS_OK && count < max && (status = db_next(&found, err)) == STATUS_OK)
        read_row(&found, &rows[count++]);
    db_rows_done(&found);
    db_reader_put(store->db, conn);
    *ret_count = count;
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

enum status store_sqlite_outbox_unsent(struct store *base, int64_t after, size_t max, struct outbox_row *rows,
                                       size_t *ret_count, struct err *err)
{
    return read_rows(base, OUTBOX_UNSENT, after, max, rows, ret_count, err);
}

static enum status read_one(struct store *base, enum statement statement, int64_t argument,
                            struct outbox_row *ret_row, struct err *err)
{
    size_t count = 0;
    enum status status = read_rows(base, statement, argument, 1, ret_row, &count, err);
    return status == STATUS_OK && count == 0 ? STATUS_NOT_FOUND : status;
}

enum status store_sqlite_outbox_get(struct store *base, int64_t seq, struct outbox_row *ret_row,
                                    struct err *err)
{
    return read_one(base, OUTBOX_GET, seq, ret_row, err);
}

enum status store_sqlite_outbox_due(struct store *base, int64_t now_ms, struct outbox_row *ret_row,
                                    struct err *err)
{
    return read_one(base, OUTBOX_DUE, now_ms, ret_row, err);
}

/* One process has the file: every row is its own. */
enum status store_sqlite_outbox_take(struct store *base, int64_t seq, struct err *err)
{
    (void)base;
    (void)seq;
    (void)err;
    return STATUS_OK;
}

void store_sqlite_outbox_hold(struct store *base, const int64_t *seqs, size_t count)
{
    (void)base;
    (void)seqs;
    (void)count;
}

int64_t store_sqlite_outbox_poll_ms(struct store *base)
{
    (void)base;
    return 0;
}

void store_sqlite_outbox_look(struct store *base, struct store_outbox *ret_outbox)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_look oldest = {0};
    bool known = db_look(store->db, OUTBOX_OLDEST, &oldest, NULL) == STATUS_OK;
    ret_outbox->unsent = atomic_load(&store->counts[UNSENT]);
    ret_outbox->open = atomic_load(&store->counts[OPEN]);
    ret_outbox->oldest_ms = known ? uuid_time_ms(oldest.text) : -1;
}

static enum status run_confirm(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct store_confirm *confirm = OWNER(job, struct store_confirm, job.sqlite);
    int64_t again_after_ms = atomic_load(sqlite_of(confirm->store)->again_after_ms), now_ms = clock_wall_ms();
    bool mend = confirm->clock_back && again_after_ms;
    enum status status = mend ? db_run(conn, OUTBOX_MEND, err, "ii", now_ms, again_after_ms) : STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < confirm->count; i++) {
        status = again_after_ms
                     ? db_run(conn, OUTBOX_KEEP_FIRST, err, "iii", confirm->seqs[i], now_ms, again_after_ms)
                     : db_run(conn, OUTBOX_DELETE, err, "i", confirm->seqs[i]);
        int64_t sent = status == STATUS_OK ? db_changes(conn) : 0;
        job->changes[UNSENT] -= sent;
        job->changes[OPEN] += again_after_ms ? sent : 0;
        if (status == STATUS_OK && again_after_ms && sent == 0) /* a later confirm, or dropped meanwhile */
            status = db_run(conn, OUTBOX_KEEP, err, "iii", confirm->seqs[i], now_ms, again_after_ms);
    }
    return status;
}

static void confirm_done(struct db_job *job)
{
    struct store_confirm *confirm = OWNER(job, struct store_confirm, job.sqlite);
    confirm->err = job->err;
    confirm->done(confirm);
}

void store_sqlite_confirm(struct store *base, struct store_confirm *confirm)
{
    struct sqlite_store *store = sqlite_of(base);
    confirm->store = base;
    confirm->job.sqlite = (struct db_job){
        .run = run_confirm, .done = confirm_done, .bare = true, .counts = store->counts};
    db_submit(store->db, &confirm->job.sqlite);
}
