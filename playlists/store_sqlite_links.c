/* The pending links of the SQLite engine. */
#include "store_sqlite.h"

#include "cleanup.h"
#include "mem.h"

void store_sqlite_read_link(struct db_rows *rows, struct link *link)
{
    link->seq = db_int(rows, 0);
    (void)text_copy(link->playlist_id, sizeof link->playlist_id, db_text(rows, 1));
    (void)text_copy(link->soiree_id, sizeof link->soiree_id, db_text(rows, 2));
    (void)text_copy(link->request_id, sizeof link->request_id, db_text(rows, 3));
    (void)text_copy(link->traceparent, sizeof link->traceparent, db_text(rows, 4));
    link->attempts = db_int(rows, 5);
}

void store_sqlite_pending_look(struct store *base, struct store_pending *ret_pending)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_look oldest = {0};
    bool known = db_look(store->db, LINK_OLDEST, &oldest, NULL) == STATUS_OK;
    ret_pending->count = atomic_load(&store->counts[0]);
    ret_pending->oldest_ms = known ? uuid_time_ms(oldest.text) : -1;
}

static enum status claim(struct db_conn *conn, struct store_links *links, struct err *err)
{
    int64_t now_ms = clock_wall_ms();
    /* A time that no lease or backoff could have set: the wall clock was put back. */
    enum status status = db_run(conn, LINK_MEND, err, "i", now_ms + 2 * STORE_FIRST_LEASE_MS + 60000);
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    if (status == STATUS_OK)
        status = db_query(conn, LINK_CLAIM, &rows, err, "iii", now_ms, now_ms + links->lease_ms,
                          (int64_t)STORE_CLAIM_MAX);
    while (status == STATUS_OK && (status = db_next(&rows, err)) == STATUS_OK)
        store_sqlite_read_link(&rows, &links->links[links->count++]);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status run_links(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct store_links *links = OWNER(job, struct store_links, job.sqlite);
    const struct link *link = &links->links[0];
    enum status status;
    switch (links->kind) {
    case STORE_LINKS_CLAIM:
        links->count = 0;
        return claim(conn, links, err);
    case STORE_LINKS_END:
        status = db_run(conn, LINK_DELETE, err, "it", link->seq, link->playlist_id);
        job->changes[0] -= status == STATUS_OK ? db_changes(conn) : 0;
        return status;
    case STORE_LINKS_RETRY:
        return db_run(conn, LINK_RETRY, err, "ii", link->seq, clock_wall_ms() + links->delay_ms);
    case STORE_LINKS_HURRY:
        return db_run(conn, LINK_HURRY, err, "");
    }
    return err_set(err, STATUS_INTERNAL, "unknown job");
}

static void links_done(struct db_job *job)
{
    struct store_links *links = OWNER(job, struct store_links, job.sqlite);
    links->err = job->err;
    links->done(links);
}

void store_sqlite_links(struct store *base, struct store_links *links)
{
    struct sqlite_store *store = sqlite_of(base);
    links->job.sqlite = (struct db_job){
        .run = run_links,
        .done = links_done,
        .bare = true,
        .lazy = links->kind == STORE_LINKS_END,
        .counts = store->counts,
    };
    db_submit(store->db, &links->job.sqlite);
}
