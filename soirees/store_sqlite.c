#include "store_sqlite.h"

#include <string.h>

#include "cleanup.h"
#include "idempotency.h"
#include "mem.h"
#include "schema.h"

#define COLUMNS                                                                                              \
    "seq, version, id, client_id, date, lieu, nombre_invites, budget, style, statut, playlist_id, "          \
    "request_id, created_ms, updated_ms"
#define DATES "(?3 = '' OR date >= ?3) AND (?4 = '' OR date <= ?4)"
#define PAGE " AND seq < ?1 AND " DATES " ORDER BY seq DESC LIMIT ?5"
#define OUTBOX_ROW                                                                                           \
    "SELECT o.seq, o.message_id, o.traceparent, o.body, s.id FROM outbox o JOIN soirees s ON s.seq = "       \
    "o.soiree_seq"

static const char *const statements[STATEMENT_COUNT] = {
    [GET] = "SELECT " COLUMNS " FROM soirees WHERE id = ?1",
    [LIST] = "SELECT " COLUMNS " FROM soirees WHERE seq < ?1 ORDER BY seq DESC LIMIT ?5",
    [LIST_DATES] = "SELECT " COLUMNS " FROM soirees INDEXED BY soirees_date WHERE true" PAGE,
    [LIST_STATUT] = "SELECT " COLUMNS " FROM soirees INDEXED BY soirees_statut WHERE statut = ?2" PAGE,
    [LIST_CLIENT] = "SELECT " COLUMNS " FROM soirees INDEXED BY soirees_client WHERE client_id = ?6"
                    " AND (?2 = '' OR statut = ?2)" PAGE,
    [INSERT] =
        "INSERT INTO soirees (version, id, client_id, date, lieu, nombre_invites, budget, style, statut,"
        " playlist_id, request_id, created_ms, updated_ms)"
        " VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)",
    [UPDATE] = "UPDATE soirees SET version = ?2, client_id = ?3, date = ?4, lieu = ?5, nombre_invites = ?6,"
               " budget = ?7, style = ?8, statut = ?9, playlist_id = ?10, request_id = ?11, updated_ms = ?12"
               " WHERE seq = ?1",
    [LINK] = "UPDATE soirees SET version = ?2, playlist_id = ?3, request_id = NULL, updated_ms = ?4"
             " WHERE seq = ?1", /* no column of an index: SQLite writes anew those of what is set */
    [DELETE] = "DELETE FROM soirees WHERE seq = ?1",
    [OUTBOX_INSERT] =
        "INSERT INTO outbox (soiree_seq, message_id, body, traceparent) VALUES (?1, ?2, ?3, ?4)",
    [OUTBOX_DROP] = "DELETE FROM outbox WHERE soiree_seq = ?1",
    [OUTBOX_DROP_OPEN] = "DELETE FROM outbox WHERE soiree_seq = ?1 AND again_ms IS NOT NULL",
    [OUTBOX_UNSENT] = OUTBOX_ROW " WHERE o.again_ms IS NULL AND o.seq > ?1 ORDER BY o.seq LIMIT ?2",
    [OUTBOX_GET] = OUTBOX_ROW " WHERE o.again_ms IS NULL AND o.seq = ?1",
    [OUTBOX_DUE] = OUTBOX_ROW " WHERE o.again_ms <= ?1 ORDER BY o.again_ms LIMIT 1",
    [OUTBOX_KEEP] =
        "UPDATE outbox SET again_ms = ?2 + (?3 << min(again_count, 16)), again_count = again_count + 1"
        " WHERE seq = ?1",
    [OUTBOX_KEEP_FIRST] =
        "UPDATE outbox SET again_ms = ?2 + ?3, again_count = 1 WHERE seq = ?1 AND again_ms IS NULL",
    [OUTBOX_MEND] = "UPDATE outbox SET again_ms = ?1 + (?2 << min(again_count - 1, 16))"
                    " WHERE again_ms > ?1 + (?2 << min(again_count - 1, 16))",
    [OUTBOX_DELETE] = "DELETE FROM outbox WHERE seq = ?1 AND again_ms IS NULL",
    [OUTBOX_UNSENT_COUNT] = "SELECT count(*) FROM outbox WHERE again_ms IS NULL",
    [OUTBOX_OPEN_COUNT] = "SELECT count(*) FROM outbox WHERE again_ms IS NOT NULL",
    [OUTBOX_OLDEST] = "SELECT message_id FROM outbox WHERE again_ms IS NULL ORDER BY seq LIMIT 1",
    [IDEMPOTENCY] = IDEMPOTENCY_SQL,
};

static void close_store(struct store *base)
{
    struct sqlite_store *store = sqlite_of(base);
    db_close(store->db);
    free(store);
}

static enum status health(struct store *base, int64_t *ret_since_ms, struct err *err)
{
    return db_health(sqlite_of(base)->db, ret_since_ms, err);
}

static void put_metrics(struct store *base, struct buf *out)
{
    db_put_metrics(sqlite_of(base)->db, out);
}

/* ---- reads ---- */

static void read_soiree(struct db_rows *rows, struct soiree *soiree)
{
    int column = 0;
    soiree->seq = db_int(rows, column++);
    soiree->version = db_int(rows, column++);
    (void)text_copy(soiree->id, sizeof soiree->id, db_text(rows, column++));
    (void)text_copy(soiree->client_id, sizeof soiree->client_id, db_text(rows, column++));
    (void)text_copy(soiree->date, sizeof soiree->date, db_text(rows, column++));
    (void)text_copy(soiree->lieu, sizeof soiree->lieu, db_text(rows, column++));
    soiree->nombre_invites = db_int(rows, column++);
    soiree->budget = db_double(rows, column++);
    (void)text_copy(soiree->style, sizeof soiree->style, db_text(rows, column++));
    (void)text_copy(soiree->statut, sizeof soiree->statut, db_text(rows, column++));
    (void)text_copy(soiree->playlist_id, sizeof soiree->playlist_id, db_text(rows, column++));
    (void)text_copy(soiree->request_id, sizeof soiree->request_id, db_text(rows, column++));
    soiree->created_ms = db_int(rows, column++);
    soiree->updated_ms = db_int(rows, column++);
}

static enum status get(struct db_conn *conn, const char *id, struct soiree *ret_soiree, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = db_query(conn, GET, &rows, err, "t", id);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status == STATUS_OK)
        read_soiree(&rows, ret_soiree);
    return status;
}

static enum status get_one(struct store *base, const char *id, struct soiree *ret_soiree, struct err *err)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_conn *conn = db_reader_get(store->db);
    enum status status = get(conn, id, ret_soiree, err);
    db_reader_put(store->db, conn);
    return status;
}

/* The statement whose index narrows the list down the most. */
static enum statement list_statement(const struct soiree_filter *filter)
{
    if (filter->client_id[0])
        return LIST_CLIENT;
    if (filter->statut[0])
        return LIST_STATUT;
    return filter->date_from[0] || filter->date_to[0] ? LIST_DATES : LIST;
}

static enum status list(struct db_conn *conn, const struct soiree_filter *filter, const struct api_page *page,
                        bool (*row)(void *arg, const struct soiree *soiree), void *arg, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum statement statement = list_statement(filter);
    enum status status = db_query(conn, statement, &rows, err, statement == LIST_CLIENT ? "itttit" : "ittti",
                                  page->before, filter->statut, filter->date_from, filter->date_to,
                                  page->limit + 1, filter->client_id);
    while (status == STATUS_OK && (status = db_next(&rows, err)) == STATUS_OK) {
        struct soiree soiree;
        read_soiree(&rows, &soiree);
        if (!row(arg, &soiree))
            return STATUS_OK;
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status list_page(struct store *base, const struct soiree_filter *filter,
                             const struct api_page *page, bool (*row)(void *arg, const struct soiree *soiree),
                             void *arg, struct err *err)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_conn *conn = db_reader_get(store->db);
    enum status status = list(conn, filter, page, row, arg, err);
    db_reader_put(store->db, conn);
    return status;
}

/* ---- writes ---- */

/* Makes a new request current: the message that asks for it goes into the outbox. */
static enum status put_request(struct db_conn *conn, struct store_write *write, int64_t now_ms,
                               struct err *err)
{
    CLEANUP(buf_done) struct buf body;
    buf_init(&body, 16 * 1024);
    soiree_put_message(&body, &write->soiree, now_ms);
    write->requested = true;
    write->job.sqlite.changes[UNSENT]++;
    return db_run(conn, OUTBOX_INSERT, err, "ittt", write->soiree.seq, write->soiree.request_id,
                  buf_get(&body), write->traceparent);
}

/* The current request is over: its row goes, whether it was sent or not. */
static enum status drop_request(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = db_run(conn, OUTBOX_DROP_OPEN, err, "i", write->soiree.seq);
    if (status == STATUS_OK && db_changes(conn) > 0) {
        write->job.sqlite.changes[OPEN]--;
        return STATUS_OK;
    }
    status = status == STATUS_OK ? db_run(conn, OUTBOX_DROP, err, "i", write->soiree.seq) : status;
    write->job.sqlite.changes[UNSENT] -= status == STATUS_OK ? db_changes(conn) : 0;
    return status;
}

/* Finds what an earlier request with the same key made: NOT_FOUND when there was none. */
static enum status find_earlier(struct db_conn *conn, struct store_write *write, const char *document,
                                int64_t now_ms, struct err *err)
{
    char id[sizeof write->soiree.id];
    enum status status = idempotency_find(conn, IDEMPOTENCY, write->key, document, now_ms, id, sizeof id,
                                          err);
    if (status != STATUS_OK)
        return status;
    status = get(conn, id, &write->soiree, err);
    return status == STATUS_NOT_FOUND ? err_set(err, STATUS_GONE, "Cette soirée a été supprimée depuis")
                                      : status;
}

static enum status insert(struct db_conn *conn, struct store_write *write, struct err *err)
{
    struct soiree *s = &write->soiree;
    enum status status = db_run(conn, INSERT, err, "ttttidtttti", s->id, s->client_id, s->date, s->lieu,
                                s->nombre_invites, s->budget, s->style, s->statut,
                                text_or_null(s->playlist_id), text_or_null(s->request_id), s->created_ms);
    s->seq = db_last_rowid(conn);
    return status;
}

static enum status create(struct db_conn *conn, struct store_write *write, struct err *err)
{
    struct soiree *soiree = &write->soiree;
    int64_t now_ms = clock_wall_ms();
    CLEANUP(buf_done) struct buf document;
    buf_init(&document, 16 * 1024);
    *soiree = write->change.values;
    if (write->key[0]) {
        soiree_put_document(&document, soiree);
        enum status earlier = find_earlier(conn, write, buf_get(&document), now_ms, err);
        if (earlier != STATUS_NOT_FOUND)
            return earlier;
    }
    uuid_v7(soiree->id);
    soiree->version = 1;
    soiree->created_ms = now_ms;
    if (!soiree->playlist_id[0])
        uuid_v7(soiree->request_id);
    enum status status = insert(conn, write, err);
    if (status == STATUS_OK && soiree->request_id[0])
        status = put_request(conn, write, now_ms, err);
    if (status == STATUS_OK && write->key[0])
        status = idempotency_keep(conn, IDEMPOTENCY, write->key, buf_get(&document), soiree->id, now_ms, err);
    return status;
}

/* The booking that a write is about, its condition checked. */
static enum status load(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = get(conn, write->id, &write->soiree, err);
    if (status == STATUS_NOT_FOUND)
        return err_set(err, status, "Soirée non trouvée");
    if (status == STATUS_OK && !api_conditions_hold(&write->conditions, write->soiree.version))
        return err_set(err, STATUS_STALE,
                       "La soirée est à la version \"%lld\", que la condition de la requête exclut",
                       (long long)write->soiree.version);
    return status;
}

static enum status update(struct db_conn *conn, struct store_write *write, enum soiree_request request,
                          struct err *err)
{
    struct soiree *s = &write->soiree;
    int64_t now_ms = clock_wall_ms();
    s->version++;
    s->updated_ms = now_ms;
    enum status status = STATUS_OK;
    if (request != SOIREE_REQUEST_KEPT) {
        s->request_id[0] = '\0';
        status = drop_request(conn, write, err);
    }
    if (request == SOIREE_REQUEST_NEW)
        uuid_v7(s->request_id);
    if (status == STATUS_OK && write->kind == STORE_LINK)
        status = db_run(conn, LINK, err, "iiti", s->seq, s->version, text_or_null(s->playlist_id), now_ms);
    else if (status == STATUS_OK)
        status = db_run(conn, UPDATE, err, "iitttidtttti", s->seq, s->version, s->client_id, s->date, s->lieu,
                        s->nombre_invites, s->budget, s->style, s->statut, text_or_null(s->playlist_id),
                        text_or_null(s->request_id), now_ms);
    if (status == STATUS_OK && request == SOIREE_REQUEST_NEW)
        status = put_request(conn, write, now_ms, err);
    return status;
}

static enum status change(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = load(conn, write, err);
    if (status != STATUS_OK)
        return status;
    bool changed = false;
    enum soiree_request request = soiree_apply(&write->soiree, &write->change, &changed);
    return changed ? update(conn, write, request, err) : STATUS_OK;
}

static enum status link_playlist(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = load(conn, write, err);
    if (status != STATUS_OK)
        return status;
    const char *playlist_id = write->change.values.playlist_id;
    switch (soiree_link(&write->soiree, write->request_id, playlist_id)) {
    case SOIREE_LINK_SAME:
        return STATUS_OK;
    case SOIREE_LINK_REFUSED:
        return err_set(err, STATUS_CONFLICT,
                       "Cette demande de playlist n'est plus la demande courante de la soirée");
    case SOIREE_LINK_SET:
        break;
    }
    (void)text_copy(write->soiree.playlist_id, sizeof write->soiree.playlist_id, playlist_id);
    return update(conn, write, SOIREE_REQUEST_CANCELLED, err);
}

static enum status delete_soiree(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = load(conn, write, err);
    if (status == STATUS_OK)
        status = drop_request(conn, write, err);
    return status == STATUS_OK ? db_run(conn, DELETE, err, "i", write->soiree.seq) : status;
}

static enum status run_write(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct store_write *write = OWNER(job, struct store_write, job.sqlite);
    store_write_begun(write);
    switch (write->kind) {
    case STORE_CREATE:
        return create(conn, write, err);
    case STORE_CHANGE:
        return change(conn, write, err);
    case STORE_LINK:
        return link_playlist(conn, write, err);
    case STORE_DELETE:
        return delete_soiree(conn, write, err);
    }
    return err_set(err, STATUS_INTERNAL, "unknown write");
}

static void write_done(struct db_job *job)
{
    store_write_ended(OWNER(job, struct store_write, job.sqlite), &job->err);
}

static void submit(struct store *base, struct store_write *write)
{
    struct sqlite_store *store = sqlite_of(base);
    write->store = base;
    write->job.sqlite = (struct db_job){
        .run = run_write,
        .done = write_done,
        .bare = true, /* what refuses a write is known once the booking was read */
        .durable = true,
        .counts = store->counts,
        .grows = write->kind == STORE_CREATE || write->kind == STORE_CHANGE,
    };
    db_submit(store->db, &write->job.sqlite);
}

/* ---- opening ---- */

static const struct store_ops sqlite_ops = {
    .close = close_store,
    .health = health,
    .put_metrics = put_metrics,
    .get = get_one,
    .list = list_page,
    .submit = submit,
    .outbox_look = store_sqlite_outbox_look,
    .outbox_unsent = store_sqlite_outbox_unsent,
    .outbox_get = store_sqlite_outbox_get,
    .outbox_due = store_sqlite_outbox_due,
    .outbox_take = store_sqlite_outbox_take,
    .outbox_hold = store_sqlite_outbox_hold,
    .outbox_poll_ms = store_sqlite_outbox_poll_ms,
    .confirm = store_sqlite_confirm,
};

enum status store_sqlite_open(struct store **ret_store, const struct store_config *config, struct err *err)
{
    struct sqlite_store *store = mem_new(sizeof *store);
    store->base.ops = &sqlite_ops;
    struct db_config db = {
        .path = config->path,
        .migrations = soirees_schema,
        .migration_count = soirees_schema_count,
        .statements = statements,
        .statement_count = STATEMENT_COUNT,
        .readers = config->readers,
        .fatal = config->fatal,
        .changed = config->changed,
    };
    store->again_after_ms = config->again_after_ms;
    enum status status = db_open(&store->db, &db, err);
    for (int i = 0; i < DB_COUNTS && status == STATUS_OK; i++) {
        struct db_look look = {0};
        status = db_look(store->db, i == UNSENT ? OUTBOX_UNSENT_COUNT : OUTBOX_OPEN_COUNT, &look, err);
        atomic_store(&store->counts[i], look.number);
    }
    if (status == STATUS_OK)
        *ret_store = &store->base;
    else
        close_store(&store->base);
    return status;
}
