/* The pending links of the PostgreSQL engine. The instances' linkers share them: each leases what no other
 * one is just leasing (manual, SELECT, "The Locking Clause", SKIP LOCKED). */
#include "store_postgres.h"

#include "cleanup.h"

enum { LOOK_MS = 2000 };

void store_postgres_read_link(const struct pg_rows *rows, int column, struct link *link)
{
    link->seq = pg_int(rows, column++);
    (void)text_copy(link->playlist_id, sizeof link->playlist_id, pg_text(rows, column++));
    (void)text_copy(link->soiree_id, sizeof link->soiree_id, pg_text(rows, column++));
    (void)text_copy(link->request_id, sizeof link->request_id, pg_text(rows, column++));
    (void)text_copy(link->traceparent, sizeof link->traceparent, pg_text(rows, column++));
    link->attempts = pg_int(rows, column);
}

/* Counts up to a bound, and not more often than every LOOK_MS, whoever asks. */
void store_postgres_pending_look(struct store *base, struct store_pending *ret_pending)
{
    struct postgres_store *store = postgres_of(base);
    pthread_mutex_lock(&store->look_mutex);
    if (store->looked_ms == 0 || clock_mono_ms() - store->looked_ms > LOOK_MS) {
        CLEANUP(pg_rows_done) struct pg_rows found = {0};
        store->look.oldest_ms = -1;
        if (pg_query(store->pg, LINK_LOOK, &found, NULL, "") == STATUS_OK && pg_next(&found)) {
            store->look.count = pg_int(&found, 0);
            store->look.oldest_ms = uuid_time_ms(pg_text(&found, 1));
        }
        store->looked_ms = clock_mono_ms();
    }
    *ret_pending = store->look;
    pthread_mutex_unlock(&store->look_mutex);
}

static void claim(struct pg_job *job, struct store_links *links)
{
    if (job->round == 0) {
        /* A time that no lease or backoff could have set: the database's clock was put back. */
        pg_put(job, LINK_MEND, "i", (int64_t)2 * STORE_FIRST_LEASE_MS + 60000);
        pg_put(job, LINK_CLAIM, "ii", links->lease_ms, (int64_t)STORE_CLAIM_MAX);
        return;
    }
    struct pg_rows rows = pg_answer(job, 1);
    links->count = 0;
    while (links->count < STORE_CLAIM_MAX && pg_next(&rows))
        store_postgres_read_link(&rows, 0, &links->links[links->count++]);
}

static enum status run_links(struct pg_job *job, struct err *err)
{
    struct store_links *links = OWNER(job, struct store_links, job.postgres);
    const struct link *link = &links->links[0];
    job->last = true;
    if (links->kind == STORE_LINKS_CLAIM) {
        claim(job, links);
        return STATUS_OK;
    }
    if (job->round > 0)
        return STATUS_OK;
    switch (links->kind) {
    case STORE_LINKS_CLAIM:
    case STORE_LINKS_END:
        pg_put(job, LINK_DELETE, "it", link->seq, link->playlist_id);
        return STATUS_OK;
    case STORE_LINKS_RETRY:
        pg_put(job, LINK_RETRY, "ii", link->seq, links->delay_ms);
        return STATUS_OK;
    case STORE_LINKS_HURRY:
        pg_put(job, LINK_HURRY, "");
        return STATUS_OK;
    }
    return err_set(err, STATUS_INTERNAL, "unknown job");
}

static void links_done(struct pg_job *job)
{
    struct store_links *links = OWNER(job, struct store_links, job.postgres);
    links->err = job->err;
    links->done(links);
}

void store_postgres_links(struct store *base, struct store_links *links)
{
    links->job.postgres = (struct pg_job){.run = run_links, .done = links_done, .key = ""};
    pg_submit(postgres_of(base)->pg, &links->job.postgres);
}
