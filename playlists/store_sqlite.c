#include "store_sqlite.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "idempotency.h"
#include "mem.h"
#include "schema.h"

#define COLUMNS                                                                                              \
    "seq, version, id, nom, description, styles, tracks, soiree_id, origine, created_ms, updated_ms"
#define LINK_COLUMNS "seq, playlist_id, soiree_id, request_id, traceparent, attempts"

static const char *const statements[STATEMENT_COUNT] = {
    [GET] = "SELECT " COLUMNS " FROM playlists WHERE id = ?1",
    [LIST] = "SELECT " COLUMNS " FROM playlists WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
    [LIST_SOIREE] = "SELECT " COLUMNS
                    " FROM playlists WHERE soiree_id = ?3 AND seq < ?1 ORDER BY seq DESC LIMIT ?2",
    [INSERT] = "INSERT INTO playlists (version, id, nom, description, styles, tracks, soiree_id, origine, "
               "created_ms,"
               " updated_ms) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
    [UPDATE] = "UPDATE playlists SET version = ?2, nom = ?3, description = ?4, styles = ?5, tracks = ?6,"
               " soiree_id = ?7, updated_ms = ?8 WHERE seq = ?1",
    [DELETE] = "DELETE FROM playlists WHERE seq = ?1",
    [REQUEST_FIND] = "SELECT playlist_id FROM requests WHERE soiree_id = ?1 AND message_id = ?2"
                     " AND playlist_id IS NOT NULL",
    [REQUEST_FIND_ANY] =
        "SELECT playlist_id FROM requests WHERE soiree_id = ?1 AND playlist_id IS NOT NULL LIMIT 1",
    [REQUEST_KNOWN] = "SELECT 1 FROM requests WHERE soiree_id = ?1 AND message_id = ?2",
    [REQUEST_KNOWN_ANY] = "SELECT 1 FROM requests WHERE soiree_id = ?1 LIMIT 1",
    [REQUEST_BEGIN] = "INSERT INTO requests (soiree_id, message_id, starts) VALUES (?1, ?2, ?3)"
                      " ON CONFLICT DO UPDATE SET starts = starts + 1 RETURNING starts, attempts",
    [REQUEST_FAILURE] = "INSERT INTO requests (soiree_id, message_id, starts, attempts) VALUES (?1, ?2, 1, 1)"
                        " ON CONFLICT DO UPDATE SET attempts = attempts + 1",
    [REQUEST_END] = "INSERT INTO requests (soiree_id, message_id, starts, playlist_id)"
                    " VALUES (?1, ?2, 0, ?3) ON CONFLICT DO UPDATE SET playlist_id = ?3, starts = 0"
                    " WHERE playlist_id IS NULL",
    [REQUEST_ABANDON] = "INSERT INTO requests (soiree_id, message_id, starts) VALUES (?1, ?2, 0)"
                        " ON CONFLICT DO UPDATE SET starts = max(starts - 1, 0)",
    [LINK_INSERT] = "INSERT INTO links (playlist_id, soiree_id, request_id, traceparent, attempts, next_ms)"
                    " VALUES (?1, ?2, ?3, ?4, 0, ?5)",
    [LINK_FIND] = "SELECT " LINK_COLUMNS " FROM links WHERE playlist_id = ?1",
    [LINK_LEASE] = "UPDATE links SET next_ms = ?2 WHERE seq = ?1",
    [LINK_CLAIM] = "UPDATE links SET next_ms = ?2 WHERE seq IN (SELECT seq FROM links WHERE next_ms <= ?1"
                   " ORDER BY next_ms LIMIT ?3) RETURNING " LINK_COLUMNS,
    [LINK_DELETE] = "DELETE FROM links WHERE seq = ?1 AND playlist_id = ?2",
    [LINK_DELETE_PLAYLIST] = "DELETE FROM links WHERE playlist_id = ?1",
    [LINK_RETRY] = "UPDATE links SET attempts = attempts + 1, next_ms = ?2 WHERE seq = ?1",
    [LINK_HURRY] = "UPDATE links SET next_ms = 0 WHERE attempts > 0",
    [LINK_MEND] = "UPDATE links SET next_ms = 0 WHERE next_ms > ?1",
    [LINK_COUNT] = "SELECT count(*) FROM links",
    [LINK_OLDEST] = "SELECT playlist_id FROM links ORDER BY seq LIMIT 1",
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

static void read_playlist(struct db_rows *rows, struct playlist *playlist)
{
    int column = 0;
    playlist->seq = db_int(rows, column++);
    playlist->version = db_int(rows, column++);
    (void)text_copy(playlist->id, sizeof playlist->id, db_text(rows, column++));
    (void)text_copy(playlist->nom, sizeof playlist->nom, db_text(rows, column++));
    (void)text_copy(playlist->description, sizeof playlist->description, db_text(rows, column++));
    playlist->styles = (struct json_texts){.json = mem_text(db_text(rows, column++))};
    playlist->tracks = (struct json_texts){.json = mem_text(db_text(rows, column++))};
    (void)text_copy(playlist->soiree_id, sizeof playlist->soiree_id, db_text(rows, column++));
    (void)text_copy(playlist->origine, sizeof playlist->origine, db_text(rows, column++));
    playlist->created_ms = db_int(rows, column++);
    playlist->updated_ms = db_int(rows, column++);
}

static enum status get(struct db_conn *conn, const char *id, struct playlist *ret_playlist, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = db_query(conn, GET, &rows, err, "t", id);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status == STATUS_OK)
        read_playlist(&rows, ret_playlist);
    return status;
}

static enum status get_one(struct store *base, const char *id, struct playlist *ret_playlist, struct err *err)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_conn *conn = db_reader_get(store->db);
    enum status status = get(conn, id, ret_playlist, err);
    db_reader_put(store->db, conn);
    return status;
}

static enum status list(struct db_conn *conn, const char *soiree_id, const struct api_page *page,
                        bool (*row)(void *arg, const struct playlist *playlist), void *arg, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = *soiree_id ? db_query(conn, LIST_SOIREE, &rows, err, "iit", page->before,
                                               page->limit + 1, soiree_id)
                                    : db_query(conn, LIST, &rows, err, "ii", page->before, page->limit + 1);
    while (status == STATUS_OK && (status = db_next(&rows, err)) == STATUS_OK) {
        struct playlist playlist;
        read_playlist(&rows, &playlist);
        bool more = row(arg, &playlist);
        playlist_done(&playlist);
        if (!more)
            return STATUS_OK;
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status list_page(struct store *base, const char *soiree_id, const struct api_page *page,
                             bool (*row)(void *arg, const struct playlist *playlist), void *arg,
                             struct err *err)
{
    struct sqlite_store *store = sqlite_of(base);
    struct db_conn *conn = db_reader_get(store->db);
    enum status status = list(conn, soiree_id, page, row, arg, err);
    db_reader_put(store->db, conn);
    return status;
}

/* ---- writes of the REST API ---- */

static enum status insert(struct db_conn *conn, struct playlist *p, struct err *err)
{
    p->version = 1;
    enum status status = db_run(conn, INSERT, err, "ttttttti", p->id, p->nom, p->description, p->styles.json,
                                p->tracks.json, text_or_null(p->soiree_id), p->origine, p->created_ms);
    p->seq = db_last_rowid(conn);
    return status;
}

static enum status find_earlier(struct db_conn *conn, struct store_write *write, const char *document,
                                int64_t now_ms, struct err *err)
{
    char id[sizeof write->playlist.id];
    enum status status = idempotency_find(conn, IDEMPOTENCY, write->key, document, now_ms, id, sizeof id,
                                          err);
    if (status != STATUS_OK)
        return status;
    struct playlist earlier;
    status = get(conn, id, &earlier, err);
    if (status == STATUS_NOT_FOUND)
        return err_set(err, STATUS_GONE, "Cette playlist a été supprimée depuis");
    if (status == STATUS_OK) {
        playlist_done(&write->playlist);
        write->playlist = earlier;
    }
    return status;
}

/* What the client gave, with lists of its own: the batch may be rolled back, and this write run once more. */
static struct playlist copy_values(const struct store_write *write)
{
    struct playlist values = write->change.values;
    values.styles.json = mem_text(values.styles.json);
    values.tracks.json = mem_text(values.tracks.json);
    return values;
}

static enum status create(struct db_conn *conn, struct store_write *write, struct err *err)
{
    int64_t now_ms = clock_wall_ms();
    CLEANUP(buf_done) struct buf document;
    buf_init(&document, 1 << 20);
    write->playlist = copy_values(write);
    if (write->key[0]) {
        playlist_put_document(&document, &write->playlist);
        enum status earlier = find_earlier(conn, write, buf_get(&document), now_ms, err);
        if (earlier != STATUS_NOT_FOUND)
            return earlier;
    }
    (void)text_copy(write->playlist.origine, sizeof write->playlist.origine, "manuelle");
    write->playlist.created_ms = now_ms;
    uuid_v7(write->playlist.id);
    enum status status = insert(conn, &write->playlist, err);
    write->created = status == STATUS_OK;
    if (status == STATUS_OK && write->key[0])
        status = idempotency_keep(conn, IDEMPOTENCY, write->key, buf_get(&document), write->playlist.id,
                                  now_ms, err);
    return status;
}

/* The playlist that a write is about, its condition checked. */
static enum status load(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = get(conn, write->id, &write->playlist, err);
    if (status == STATUS_NOT_FOUND)
        return err_set(err, status, "Playlist non trouvée");
    if (status == STATUS_OK && !api_conditions_hold(&write->conditions, write->playlist.version))
        return err_set(err, STATUS_STALE,
                       "La playlist est à la version \"%lld\", que la condition de la requête exclut",
                       (long long)write->playlist.version);
    return status;
}

static enum status change(struct db_conn *conn, struct store_write *write, struct err *err)
{
    struct playlist *p = &write->playlist;
    enum status status = load(conn, write, err);
    struct playlist_change change = {.present = write->change.present, .values = copy_values(write)};
    bool changed = status == STATUS_OK && playlist_apply(p, &change);
    playlist_done(&change.values);
    if (!changed)
        return status;
    p->version++;
    p->updated_ms = clock_wall_ms();
    return db_run(conn, UPDATE, err, "iittttti", p->seq, p->version, p->nom, p->description, p->styles.json,
                  p->tracks.json, text_or_null(p->soiree_id), p->updated_ms);
}

static enum status delete_playlist(struct db_conn *conn, struct store_write *write, struct err *err)
{
    enum status status = load(conn, write, err);
    if (status == STATUS_OK)
        status = db_run(conn, LINK_DELETE_PLAYLIST, err, "t", write->playlist.id);
    write->job.sqlite.changes[0] -= status == STATUS_OK ? db_changes(conn) : 0;
    return status == STATUS_OK ? db_run(conn, DELETE, err, "i", write->playlist.seq) : status;
}

static enum status run_write(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct store_write *write = OWNER(job, struct store_write, job.sqlite);
    playlist_done(&write->playlist); /* of an earlier run */
    write->created = false;
    switch (write->kind) {
    case STORE_CREATE:
        return create(conn, write, err);
    case STORE_CHANGE:
        return change(conn, write, err);
    case STORE_DELETE:
        return delete_playlist(conn, write, err);
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
    write->job.sqlite = (struct db_job){
        .run = run_write,
        .done = write_done,
        .durable = true,
        .counts = store->counts,
        .grows = write->kind != STORE_DELETE,
    };
    db_submit(store->db, &write->job.sqlite);
}

/* ---- the steps of one delivery ---- */

/* The playlist that satisfies the request; NOT_FOUND when it is still to be made. */
static enum status find_made(struct db_conn *conn, const struct store_step *step, char playlist_id[UUID_SIZE],
                             struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = *step->message_id
                             ? db_query(conn, REQUEST_FIND, &rows, err, "tt", step->soiree_id,
                                        step->message_id)
                             : db_query(conn, REQUEST_FIND_ANY, &rows, err, "t", step->soiree_id);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status == STATUS_OK)
        (void)text_copy(playlist_id, UUID_SIZE, db_text(&rows, 0));
    return status;
}

static enum status find_link(struct db_conn *conn, const char *playlist_id, struct link *ret_link,
                             struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    enum status status = db_query(conn, LINK_FIND, &rows, err, "t", playlist_id);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status == STATUS_OK)
        store_sqlite_read_link(&rows, ret_link);
    return status;
}

static enum status count_start(struct db_conn *conn, struct store_step *step, struct err *err)
{
    CLEANUP(db_rows_done) struct db_rows rows = {0};
    int64_t starts = step->redelivered ? 2 : 1; /* of a request that no row tells of: store_begin_first */
    enum status status = db_query(conn, REQUEST_BEGIN, &rows, err, "tti", step->soiree_id, step->message_id,
                                  starts);
    if (status == STATUS_OK)
        status = db_next(&rows, err);
    if (status != STATUS_OK)
        return status;
    step->starts = db_int(&rows, 0);
    step->failures = db_int(&rows, 1);
    status = db_next(&rows, err); /* RETURNING is done only at the end of its rows */
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status begin(struct db_conn *conn, struct store_step *step, struct err *err)
{
    char playlist_id[UUID_SIZE];
    enum status status = find_made(conn, step, playlist_id, err);
    if (status == STATUS_NOT_FOUND) {
        step->next = STORE_NEXT_GENERATE;
        return count_start(conn, step, err);
    }
    if (status == STATUS_OK)
        status = find_link(conn, playlist_id, &step->link, err);
    step->next = status == STATUS_OK ? STORE_NEXT_LINK : STORE_NEXT_NOTHING;
    if (status == STATUS_OK)
        status = db_run(conn, LINK_LEASE, err, "ii", step->link.seq, clock_wall_ms() + STORE_FIRST_LEASE_MS);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static bool begin_first(struct store *base, struct store_step *step)
{
    struct db *db = sqlite_of(base)->db;
    if (step->redelivered || !db_was_well(db))
        return false;
    struct db_conn *conn = db_reader_get(db);
    struct db_rows rows = {0};
    enum status status = *step->message_id
                             ? db_query(conn, REQUEST_KNOWN, &rows, NULL, "tt", step->soiree_id,
                                        step->message_id)
                             : db_query(conn, REQUEST_KNOWN_ANY, &rows, NULL, "t", step->soiree_id);
    bool unknown = status == STATUS_OK && db_next(&rows, NULL) == STATUS_NOT_FOUND;
    db_rows_done(&rows);
    db_reader_put(db, conn);
    if (unknown) {
        step->next = STORE_NEXT_GENERATE;
        step->starts = 1;
        step->failures = 0;
    }
    return unknown;
}

static enum status save(struct db_conn *conn, struct store_step *step, struct err *err)
{
    struct playlist *playlist = step->playlist;
    struct link *link = &step->link;
    playlist->created_ms = clock_wall_ms();
    uuid_v7(playlist->id);
    enum status status = db_run(conn, REQUEST_END, err, "ttt", step->soiree_id, step->message_id,
                                playlist->id);
    if (status == STATUS_OK && db_changes(conn) == 0)
        return err_set(err, STATUS_CONFLICT, "the request was answered meanwhile");
    if (status == STATUS_OK)
        status = insert(conn, playlist, err);
    if (status == STATUS_OK)
        status = db_run(conn, LINK_INSERT, err, "tttti", playlist->id, step->soiree_id, step->request_id,
                        step->traceparent, playlist->created_ms + STORE_FIRST_LEASE_MS);
    step->job.sqlite.changes[0] += status == STATUS_OK;
    *link = (struct link){.seq = db_last_rowid(conn)};
    (void)text_copy(link->playlist_id, sizeof link->playlist_id, playlist->id);
    (void)text_copy(link->soiree_id, sizeof link->soiree_id, step->soiree_id);
    (void)text_copy(link->request_id, sizeof link->request_id, step->request_id);
    (void)text_copy(link->traceparent, sizeof link->traceparent, step->traceparent);
    return status;
}

static enum status run_step(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct store_step *step = OWNER(job, struct store_step, job.sqlite);
    switch (step->kind) {
    case STORE_BEGIN:
        return begin(conn, step, err);
    case STORE_COUNT_FAILURE:
        return db_run(conn, REQUEST_FAILURE, err, "tt", step->soiree_id, step->message_id);
    case STORE_SAVE:
        return save(conn, step, err);
    case STORE_ABANDON:
        return db_run(conn, REQUEST_ABANDON, err, "tt", step->soiree_id, step->message_id);
    }
    return err_set(err, STATUS_INTERNAL, "unknown step");
}

static void step_done(struct db_job *job)
{
    struct store_step *step = OWNER(job, struct store_step, job.sqlite);
    step->err = job->err;
    step->done(step);
}

static void submit_step(struct store *base, struct store_step *step)
{
    struct sqlite_store *store = sqlite_of(base);
    /* The counts of starts and failures guard against what kills the process, not the machine: they need no
     * fsync. */
    bool saves = step->kind == STORE_SAVE;
    step->job.sqlite = (struct db_job){
        .run = run_step,
        .done = step_done,
        .bare = true, /* a save that comes too late learns it before it writes */
        .durable = saves,
        .grows = saves,
        .counts = store->counts,
    };
    db_submit(store->db, &step->job.sqlite);
}

/* ---- opening ---- */

static const struct store_ops sqlite_ops = {
    .close = close_store,
    .health = health,
    .put_metrics = put_metrics,
    .get = get_one,
    .list = list_page,
    .submit = submit,
    .pending_look = store_sqlite_pending_look,
    .step = submit_step,
    .begin_first = begin_first,
    .links = store_sqlite_links,
};

enum status store_sqlite_open(struct store **ret_store, const struct store_config *config, struct err *err)
{
    struct sqlite_store *store = mem_new(sizeof *store);
    store->base.ops = &sqlite_ops;
    struct db_config db = {
        .path = config->path,
        .migrations = playlists_schema,
        .migration_count = playlists_schema_count,
        .statements = statements,
        .statement_count = STATEMENT_COUNT,
        .readers = config->readers,
        .fatal = config->fatal,
        .changed = config->changed,
    };
    enum status status = db_open(&store->db, &db, err);
    struct db_look links = {0};
    if (status == STATUS_OK)
        status = db_look(store->db, LINK_COUNT, &links, err);
    atomic_store(&store->counts[0], links.number);
    if (status == STATUS_OK)
        *ret_store = &store->base;
    else
        close_store(&store->base);
    return status;
}
