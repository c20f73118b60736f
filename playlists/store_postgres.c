/* Playlists and requests in PostgreSQL: the statements, reading, writing, the steps of a delivery, opening.
 */
#include "store_postgres.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "schema.h"

/* ms since 1970, as everywhere in the program, from and to a timestamptz. */
#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define AT(ms) "('epoch'::timestamptz + " ms "::bigint * interval '1 millisecond')"
#define IN(ms) "(now() + " ms "::bigint * interval '1 millisecond')"

#define COLUMNS                                                                                              \
    "seq, version, id, nom, description, styles, tracks, soiree_id, origine, " MS("created_at") ", " MS(     \
        "updated_at")
#define LINK_COLUMNS "l.seq, l.playlist_id, l.soiree_id, l.request_id, l.traceparent, l.attempts"
#define PLAYLIST_VALUES                                                                                      \
    "INSERT INTO playlists (version, id, nom, description, styles, tracks, soiree_id, origine, created_at)"  \
    " VALUES (1, $1, $2, $3, $4::jsonb, $5::jsonb, $6, $7, " AT("$8") ") RETURNING seq"
#define FIND                                                                                                 \
    "SELECT r.playlist_id, " LINK_COLUMNS " FROM requests r LEFT JOIN links l ON l.playlist_id ="            \
    " r.playlist_id WHERE r.soiree_id = $1 AND r.playlist_id IS NOT NULL"
#define COUNTED_MAX "100001"

static const char *const statements[STATEMENT_COUNT] = {
    [GET] = "SELECT " COLUMNS " FROM playlists WHERE id = $1",
    [LIST] = "SELECT " COLUMNS " FROM playlists WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
    [LIST_SOIREE] = "SELECT " COLUMNS
                    " FROM playlists WHERE soiree_id = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2",
    [LOCK] = "SELECT " COLUMNS " FROM playlists WHERE id = $1 FOR UPDATE",
    [INSERT] = PLAYLIST_VALUES,
    [UPDATE] = "UPDATE playlists SET version = $2, nom = $3, description = $4, styles = $5::jsonb,"
               " tracks = $6::jsonb, soiree_id = $7, updated_at = " AT("$8") " WHERE seq = $1",
    [DELETE] = "DELETE FROM playlists WHERE seq = $1",
    [REQUEST_FIND] = FIND " AND r.message_id = $2",
    [REQUEST_FIND_ANY] = FIND " LIMIT 1",
    [REQUEST_BEGIN] = "INSERT INTO requests AS r (soiree_id, message_id, starts) VALUES ($1, $2, 1)"
                      " ON CONFLICT (soiree_id, message_id) DO UPDATE SET starts = r.starts + 1"
                      " RETURNING starts, attempts",
    /* Its row is not there where the server has crashed since: no start waits for the disk. */
    [REQUEST_LOCK] =
        "INSERT INTO requests AS r (soiree_id, message_id, starts) VALUES ($1, $2, 1)"
        " ON CONFLICT (soiree_id, message_id) DO UPDATE SET starts = r.starts RETURNING playlist_id",
    [REQUEST_FAILURE] =
        "UPDATE requests SET attempts = attempts + 1 WHERE soiree_id = $1 AND message_id = $2",
    [REQUEST_ABANDON] =
        "UPDATE requests SET starts = greatest(starts - 1, 0) WHERE soiree_id = $1 AND message_id = $2",
    [SAVE] = "WITH made AS (" PLAYLIST_VALUES "),"
             " ended AS (UPDATE requests SET playlist_id = $1, starts = 0"
             " WHERE soiree_id = $9 AND message_id = $10)"
             " INSERT INTO links AS l (playlist_id, soiree_id, request_id, traceparent, attempts, next_at)"
             " SELECT $1, $9, $11, $12, 0, " IN("$13") " FROM made RETURNING " LINK_COLUMNS,
    [LINK_LEASE] = "UPDATE links SET next_at = " IN("$2") " WHERE seq = $1",
    [LINK_MEND] = "UPDATE links SET next_at = '-infinity' WHERE next_at > " IN("$1"),
    [LINK_CLAIM] = "UPDATE links l SET next_at = " IN(
        "$1") " WHERE l.seq IN (SELECT seq FROM links WHERE next_at <= now() ORDER BY next_at LIMIT $2"
              " FOR UPDATE SKIP LOCKED) RETURNING " LINK_COLUMNS,
    [LINK_DELETE] = "DELETE FROM links WHERE seq = $1 AND playlist_id = $2",
    [LINK_DELETE_PLAYLIST] = "DELETE FROM links WHERE playlist_id = $1",
    [LINK_RETRY] = "UPDATE links SET attempts = attempts + 1, next_at = " IN("$2") " WHERE seq = $1",
    [LINK_HURRY] = "UPDATE links SET next_at = '-infinity' WHERE seq IN (SELECT seq FROM links"
                   " WHERE attempts > 0 AND next_at > now() FOR UPDATE SKIP LOCKED)",
    [LINK_LOOK] = "SELECT (SELECT count(*) FROM (SELECT FROM links LIMIT " COUNTED_MAX ") l),"
                  " (SELECT playlist_id FROM links ORDER BY seq LIMIT 1)",
    [KEYS] = PG_KEYS_SQL,
};

/* ---- reads ---- */

enum { CHUNK = 32 }; /* rows read at a time: each may be 200 KiB, and a page ends at API_PAGE_BYTES */

/* What is no UTF-8 is nobody's id, and an error for PostgreSQL. */
static bool is_text(const char *text)
{
    return utf8_valid(text, strlen(text));
}

/* jsonb gives its arrays with blanks between the items; we keep and compare them compact. Its escapes are
 * those of json_put_text. free() it. */
static char *compact(const char *json)
{
    char *out = mem_text(json), *to = out;
    bool inside = false;
    for (const char *at = json; *at; at++) {
        if (*at == '"')
            inside = !inside;
        if (inside && *at == '\\')
            *to++ = *at++;
        if (inside || *at != ' ')
            *to++ = *at;
    }
    *to = '\0';
    return out;
}

static void read_playlist(const struct pg_rows *rows, struct playlist *playlist)
{
    int column = 0;
    playlist->seq = pg_int(rows, column++);
    playlist->version = pg_int(rows, column++);
    (void)text_copy(playlist->id, sizeof playlist->id, pg_text(rows, column++));
    (void)text_copy(playlist->nom, sizeof playlist->nom, pg_text(rows, column++));
    (void)text_copy(playlist->description, sizeof playlist->description, pg_text(rows, column++));
    playlist->styles = (struct json_texts){.json = compact(pg_text(rows, column++))};
    playlist->tracks = (struct json_texts){.json = compact(pg_text(rows, column++))};
    (void)text_copy(playlist->soiree_id, sizeof playlist->soiree_id, pg_text(rows, column++));
    (void)text_copy(playlist->origine, sizeof playlist->origine, pg_text(rows, column++));
    playlist->created_ms = pg_int(rows, column++);
    playlist->updated_ms = pg_int(rows, column++); /* NULL: 0 */
}

static enum status get_one(struct store *base, const char *id, struct playlist *ret_playlist, struct err *err)
{
    if (!is_text(id))
        return STATUS_NOT_FOUND;
    CLEANUP(pg_rows_done) struct pg_rows rows = {0};
    enum status status = pg_query(postgres_of(base)->pg, GET, &rows, err, "t", id);
    if (status == STATUS_OK && !pg_next(&rows))
        return STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        read_playlist(&rows, ret_playlist);
    return status;
}

/* Some rows older than *before, which becomes the last one's; false: that was all, or row() wants no more. */
static enum status list_chunk(struct pg *pg, const char *soiree_id, int64_t *before, int64_t limit,
                              bool (*row)(void *arg, const struct playlist *playlist), void *arg,
                              bool *ret_more, struct err *err)
{
    CLEANUP(pg_rows_done) struct pg_rows rows = {0};
    int64_t count = 0;
    enum status status = *soiree_id ? pg_query(pg, LIST_SOIREE, &rows, err, "iit", *before, limit, soiree_id)
                                    : pg_query(pg, LIST, &rows, err, "ii", *before, limit);
    *ret_more = true;
    while (status == STATUS_OK && *ret_more && pg_next(&rows)) {
        struct playlist playlist;
        read_playlist(&rows, &playlist);
        *before = playlist.seq;
        *ret_more = row(arg, &playlist);
        playlist_done(&playlist);
        count++;
    }
    *ret_more = *ret_more && count == limit;
    return status;
}

static enum status list_page(struct store *base, const char *soiree_id, const struct api_page *page,
                             bool (*row)(void *arg, const struct playlist *playlist), void *arg,
                             struct err *err)
{
    int64_t before = page->before;
    bool more = true;
    enum status status = STATUS_OK;
    for (int64_t left = page->limit + 1; left > 0 && more && status == STATUS_OK; left -= CHUNK)
        status = list_chunk(postgres_of(base)->pg, soiree_id, &before, left < CHUNK ? left : CHUNK, row, arg,
                            &more, err);
    return status;
}

/* ---- writes of the REST API: round 0 locks and reads, round 1 decides and writes ---- */

static void begin_create(struct store_write *write)
{
    struct playlist *p = &write->playlist;
    if (write->change.values.styles.json) { /* not when it runs again */
        *p = write->change.values;
        write->change.values.styles.json = write->change.values.tracks.json = NULL; /* moved */
    }
    (void)text_copy(p->origine, sizeof p->origine, "manuelle");
    uuid_v7(p->id);
    p->version = 1;
    p->created_ms = clock_wall_ms();
}

static void put_insert(struct pg_job *job, const struct playlist *p)
{
    pg_put(job, INSERT, "ttttttti", p->id, p->nom, p->description, p->styles.json, p->tracks.json,
           text_or_null(p->soiree_id), p->origine, p->created_ms);
    job->last = true;
}

/* The answer of the last statement of the round before. */
static void read_created(struct pg_job *job, struct store_write *write)
{
    struct pg_rows rows = pg_answer(job, job->answer_count - 1);
    write->created = pg_next(&rows);
    if (write->created)
        write->playlist.seq = pg_int(&rows, 0);
}

static enum status create_with_key(struct pg_job *job, struct store_write *write, struct err *err)
{
    char id[sizeof write->playlist.id];
    if (job->round < 2) {
        CLEANUP(buf_done) struct buf document;
        buf_init(&document, 1 << 20);
        playlist_put_document(&document, &write->playlist);
        if (job->round == 0) {
            pg_keys_take(job, KEYS, write->key, buf_get(&document), write->playlist.id);
            return STATUS_OK;
        }
        enum status status = pg_keys_read(job, KEYS, buf_get(&document), id, sizeof id, err);
        if (status == STATUS_NOT_FOUND) {
            put_insert(job, &write->playlist);
            return STATUS_OK;
        }
        if (status == STATUS_OK)
            pg_put(job, GET, "t", id);
        job->last = true;
        return status;
    }
    if (job->answer_count > 1) { /* the key's clean-up, and the playlist */
        read_created(job, write);
        return STATUS_OK;
    }
    struct pg_rows rows = pg_answer(job, 0);
    if (!pg_next(&rows))
        return err_set(err, STATUS_GONE, "Cette playlist a été supprimée depuis");
    playlist_done(&write->playlist);
    read_playlist(&rows, &write->playlist);
    return STATUS_OK;
}

static enum status create(struct pg_job *job, struct store_write *write, struct err *err)
{
    if (job->round == 0)
        begin_create(write);
    if (write->key[0])
        return create_with_key(job, write, err);
    if (job->round == 0)
        put_insert(job, &write->playlist);
    else
        read_created(job, write);
    return STATUS_OK;
}

/* Round 0 asks for the playlist that a write is about; round 1 has it, its condition checked. */
static enum status load(struct pg_job *job, struct store_write *write, struct err *err)
{
    if (job->round == 0) {
        if (!is_text(write->id))
            return err_set(err, STATUS_NOT_FOUND, "Playlist non trouvée");
        pg_put(job, LOCK, "t", write->id);
        return STATUS_OK;
    }
    struct pg_rows rows = pg_answer(job, 0);
    if (!pg_next(&rows))
        return err_set(err, STATUS_NOT_FOUND, "Playlist non trouvée");
    playlist_done(&write->playlist);
    read_playlist(&rows, &write->playlist);
    if (!api_conditions_hold(&write->conditions, write->playlist.version))
        return err_set(err, STATUS_STALE,
                       "La playlist est à la version \"%lld\", que la condition de la requête exclut",
                       (long long)write->playlist.version);
    return STATUS_OK;
}

/* Its lists may have moved into the playlist by a run that the database has taken back. */
static bool apply(struct store_write *write)
{
    struct playlist_change change = write->change;
    change.values.styles.json = mem_text(write->change.values.styles.json);
    change.values.tracks.json = mem_text(write->change.values.tracks.json);
    bool changed = playlist_apply(&write->playlist, &change);
    playlist_done(&change.values);
    return changed;
}

static void put_change(struct pg_job *job, struct store_write *write)
{
    struct playlist *p = &write->playlist;
    if (!apply(write))
        return;
    p->version++;
    p->updated_ms = clock_wall_ms();
    pg_put(job, UPDATE, "iittttti", p->seq, p->version, p->nom, p->description, p->styles.json,
           p->tracks.json, text_or_null(p->soiree_id), p->updated_ms);
    job->last = true;
}

static enum status run_write(struct pg_job *job, struct err *err)
{
    struct store_write *write = OWNER(job, struct store_write, job.postgres);
    if (write->kind == STORE_CREATE)
        return create(job, write, err);
    enum status status = job->round < 2 ? load(job, write, err) : STATUS_OK;
    if (status != STATUS_OK || job->round != 1)
        return status;
    if (write->kind == STORE_CHANGE) {
        put_change(job, write);
        return STATUS_OK;
    }
    pg_put(job, LINK_DELETE_PLAYLIST, "t", write->playlist.id);
    pg_put(job, DELETE, "i", write->playlist.seq);
    job->last = true;
    return STATUS_OK;
}

static void write_done(struct pg_job *job)
{
    store_write_ended(OWNER(job, struct store_write, job.postgres), &job->err);
}

static void submit(struct store *base, struct store_write *write)
{
    write->job.postgres = (struct pg_job){
        .run = run_write,
        .done = write_done,
        .key = write->kind == STORE_CREATE ? write->key : write->id,
        .durable = true,
    };
    pg_submit(postgres_of(base)->pg, &write->job.postgres);
}

/* ---- the steps of one delivery ---- */

static void begin(struct pg_job *job, struct store_step *step)
{
    if (job->round == 0) {
        if (*step->message_id)
            pg_put(job, REQUEST_FIND, "tt", step->soiree_id, step->message_id);
        else
            pg_put(job, REQUEST_FIND_ANY, "t", step->soiree_id);
        return;
    }
    struct pg_rows rows = pg_answer(job, 0);
    bool found = pg_next(&rows);
    if (job->round > 1) {
        if (found && step->next == STORE_NEXT_GENERATE) {
            step->starts = pg_int(&rows, 0);
            step->failures = pg_int(&rows, 1);
        }
        return;
    }
    step->next = !found ? STORE_NEXT_GENERATE : pg_is_null(&rows, 1) ? STORE_NEXT_NOTHING : STORE_NEXT_LINK;
    if (step->next == STORE_NEXT_LINK) {
        store_postgres_read_link(&rows, 1, &step->link);
        pg_put(job, LINK_LEASE, "ii", step->link.seq, (int64_t)STORE_FIRST_LEASE_MS);
    } else if (step->next == STORE_NEXT_GENERATE) {
        pg_put(job, REQUEST_BEGIN, "tt", step->soiree_id, step->message_id);
    }
    job->last = true;
}

static enum status save(struct pg_job *job, struct store_step *step, struct err *err)
{
    struct playlist *p = step->playlist;
    if (job->round == 0) {
        pg_put(job, REQUEST_LOCK, "tt", step->soiree_id, step->message_id);
        if (!*step->message_id)
            pg_put(job, REQUEST_FIND_ANY, "t", step->soiree_id);
        return STATUS_OK;
    }
    struct pg_rows rows = pg_answer(job, 0);
    bool found = pg_next(&rows);
    if (job->round > 1) {
        if (found)
            store_postgres_read_link(&rows, 0, &step->link);
        return STATUS_OK;
    }
    struct pg_rows any = pg_answer(job, job->answer_count - 1);
    if (!found || !pg_is_null(&rows, 0) || (!*step->message_id && pg_next(&any)))
        return err_set(err, STATUS_CONFLICT, "the request was answered meanwhile");
    uuid_v7(p->id);
    p->version = 1;
    p->created_ms = clock_wall_ms();
    pg_put(job, SAVE, "tttttttitttti", p->id, p->nom, p->description, p->styles.json, p->tracks.json,
           text_or_null(p->soiree_id), p->origine, p->created_ms, step->soiree_id, step->message_id,
           step->request_id, step->traceparent, (int64_t)STORE_FIRST_LEASE_MS);
    job->last = true;
    return STATUS_OK;
}

static enum status run_step(struct pg_job *job, struct err *err)
{
    struct store_step *step = OWNER(job, struct store_step, job.postgres);
    bool counts = step->kind == STORE_COUNT_FAILURE || step->kind == STORE_ABANDON;
    if (step->kind == STORE_SAVE)
        return save(job, step, err);
    if (step->kind == STORE_BEGIN)
        begin(job, step);
    else if (counts && job->round == 0)
        pg_put(job, step->kind == STORE_ABANDON ? REQUEST_ABANDON : REQUEST_FAILURE, "tt", step->soiree_id,
               step->message_id);
    job->last = job->last || counts;
    return STATUS_OK;
}

static void step_done(struct pg_job *job)
{
    struct store_step *step = OWNER(job, struct store_step, job.postgres);
    step->err = job->err;
    step->done(step);
}

/* The counts of starts and failures guard against what kills the process, not the machine: they need no wait
 * for the disk. */
static void submit_step(struct store *base, struct store_step *step)
{
    step->job.postgres = (struct pg_job){
        .run = run_step,
        .done = step_done,
        .key = step->soiree_id,
        .durable = step->kind == STORE_SAVE,
    };
    pg_submit(postgres_of(base)->pg, &step->job.postgres);
}

/* Another instance may be at this request: its row decides, which STORE_BEGIN locks. */
static bool begin_first(struct store *base, struct store_step *step)
{
    (void)base;
    (void)step;
    return false;
}

/* ---- opening ---- */

static void close_store(struct store *base)
{
    struct postgres_store *store = postgres_of(base);
    pg_close(store->pg);
    pthread_mutex_destroy(&store->look_mutex);
    free(store);
}

static enum status health(struct store *base, int64_t *ret_since_ms, struct err *err)
{
    return pg_health(postgres_of(base)->pg, ret_since_ms, err);
}

static void put_metrics(struct store *base, struct buf *out)
{
    pg_put_metrics(postgres_of(base)->pg, out);
}

static const struct store_ops postgres_ops = {
    .close = close_store,
    .health = health,
    .put_metrics = put_metrics,
    .get = get_one,
    .list = list_page,
    .submit = submit,
    .pending_look = store_postgres_pending_look,
    .step = submit_step,
    .begin_first = begin_first,
    .links = store_postgres_links,
};

enum status store_postgres_open(struct store **ret_store, const struct store_config *config, struct err *err)
{
    struct postgres_store *store = mem_new(sizeof *store);
    struct pg_config pg = {
        .url = config->url,
        .schema = "playlists",
        .application = "playlists",
        .migrations = playlists_postgres_schema,
        .migration_count = playlists_postgres_schema_count,
        .statements = statements,
        .statement_count = STATEMENT_COUNT,
        .readers = config->readers,
        .fatal = config->fatal,
        .changed = config->changed,
    };
    store->base.ops = &postgres_ops;
    pthread_mutex_init(&store->look_mutex, NULL);
    enum status status = pg_open(&store->pg, &pg, err);
    if (status == STATUS_OK) {
        *ret_store = &store->base;
        return STATUS_OK;
    }
    pthread_mutex_destroy(&store->look_mutex);
    free(store);
    return status;
}
