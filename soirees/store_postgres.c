/* Bookings in PostgreSQL: the statements, reading, writing, opening. */
#include "store_postgres.h"

#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "schema.h"

/* ms since 1970, as everywhere in the program, from and to a timestamptz. */
#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define AT(ms) "('epoch'::timestamptz + " ms "::bigint * interval '1 millisecond')"
#define IN(ms) "(now() + " ms "::bigint * interval '1 millisecond')"

#define COLUMNS                                                                                              \
    "seq, version, id, client_id, date, lieu, nombre_invites, budget, style, statut, playlist_id,"           \
    " request_id, " MS("created_at") ", " MS("updated_at")
#define PAGE                                                                                                 \
    " seq < $1 AND date >= $3::date AND date <= $4::date AND ($2 = '' OR statut = $2)"                       \
    " ORDER BY seq DESC LIMIT $5"
#define OUTBOX_ROW "o.seq, o.message_id, o.traceparent, o.body, s.id"
/* Nobody's: its lease is over, or so long that none of this clock's was: the database's was put back. */
#define FREE "(leased_until <= now() OR leased_until > now() + interval '1 minute')"
#define AGAIN(ms, count) "(" ms "::bigint << least(" count ", 16)) * interval '1 millisecond'"
#define COUNTED_MAX "100001"

static const char *const statements[STATEMENT_COUNT] = {
    [GET] = "SELECT " COLUMNS " FROM soirees WHERE id = $1",
    [LIST] = "SELECT " COLUMNS " FROM soirees WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
    [LIST_DATES] = "SELECT " COLUMNS " FROM soirees WHERE" PAGE,
    [LIST_STATUT] = "SELECT " COLUMNS " FROM soirees WHERE" PAGE,
    [LIST_CLIENT] = "SELECT " COLUMNS " FROM soirees WHERE client_id = $6 AND" PAGE,
    [LOCK] = "SELECT " COLUMNS " FROM soirees WHERE id = $1 FOR UPDATE",
    [CREATE] = "WITH made AS (INSERT INTO soirees (version, id, client_id, date, lieu, nombre_invites, "
               "budget, style,"
               " statut, playlist_id, request_id, created_at)"
               " VALUES (1, $1, $2, $3::date, $4, $5, $6, $7, $8, $9, $10::uuid, " AT(
                   "$11") ") RETURNING seq),"
                          " asked AS (INSERT INTO outbox (soiree_seq, message_id, body, traceparent)"
                          " SELECT seq, $10::uuid, $12, $13 FROM made WHERE $10 IS NOT NULL)"
                          " SELECT seq FROM made",
    [UPDATE] = "UPDATE soirees SET version = $2, client_id = $3, date = $4::date, lieu = $5,"
               " nombre_invites = $6, budget = $7, style = $8, statut = $9, playlist_id = $10,"
               " request_id = $11::uuid, updated_at = " AT("$12") " WHERE seq = $1",
    [DELETE] = "DELETE FROM soirees WHERE seq = $1",
    [OUTBOX_INSERT] =
        "INSERT INTO outbox (soiree_seq, message_id, body, traceparent) VALUES ($1, $2::uuid, $3, $4)",
    [OUTBOX_DROP] = "DELETE FROM outbox WHERE soiree_seq = $1",
    [OUTBOX_CLAIM] = "UPDATE outbox o SET owner = $1::uuid, leased_until = " IN(
        "$4") " FROM (SELECT seq, soiree_seq FROM outbox WHERE again_at IS NULL"
              " AND (" FREE " OR (owner = $1::uuid AND seq > $2))"
              " ORDER BY seq LIMIT $3 FOR UPDATE SKIP LOCKED) free"
              " JOIN soirees s ON s.seq = free.soiree_seq WHERE o.seq = free.seq RETURNING " OUTBOX_ROW,
    [OUTBOX_GET] = "UPDATE outbox o SET leased_until = " IN(
        "$3") " FROM soirees s WHERE s.seq = o.soiree_seq AND o.again_at IS NULL AND o.seq = $2"
              " AND o.owner = $1::uuid RETURNING " OUTBOX_ROW,
    [OUTBOX_DUE] = "SELECT " OUTBOX_ROW " FROM outbox o JOIN soirees s ON s.seq = o.soiree_seq"
                   " WHERE o.again_at <= now() AND (" FREE " OR o.owner = $1::uuid)"
                   " ORDER BY o.again_at LIMIT 1",
    [OUTBOX_TAKE] = "UPDATE outbox SET owner = $1::uuid, leased_until = " IN(
        "$3") " WHERE seq = $2 AND again_at <= now() AND (" FREE " OR owner = $1::uuid)"
              " RETURNING seq",
    [OUTBOX_HOLD] = "UPDATE outbox SET leased_until = " IN(
        "$3") " WHERE seq = ANY ($2::bigint[]) AND owner = $1::uuid AND (again_at IS NULL OR again_at <= "
              "now())",
    [OUTBOX_RELEASE] = "UPDATE outbox SET leased_until = '-infinity' WHERE owner = $1::uuid"
                       " AND leased_until > now()",
    [OUTBOX_KEEP] = "UPDATE outbox SET again_at = now() + " AGAIN(
        "$2", "again_count") ", again_count = again_count + 1, leased_until = '-infinity'"
                             " WHERE seq IN (SELECT seq FROM outbox WHERE seq = ANY ($1::bigint[])"
                             " AND (again_at IS NULL OR owner = $3::uuid) ORDER BY seq FOR UPDATE)",
    [OUTBOX_DELETE] = "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox"
                      " WHERE seq = ANY ($1::bigint[]) AND again_at IS NULL ORDER BY seq FOR UPDATE)",
    [OUTBOX_MEND] = "UPDATE outbox SET again_at = now() + " AGAIN(
        "$1", "again_count - 1") " WHERE again_at > now() + " AGAIN("$1", "again_count - 1"),
    [OUTBOX_LOOK] =
        "SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE again_at IS NULL LIMIT " COUNTED_MAX ") u),"
        " (SELECT count(*) FROM (SELECT FROM outbox WHERE again_at IS NOT NULL LIMIT " COUNTED_MAX ") o),"
        " (SELECT message_id FROM outbox WHERE again_at IS NULL ORDER BY seq LIMIT 1)",
    [KEYS] = PG_KEYS_SQL,
};

/* ---- dates: PostgreSQL writes the year before 1 as 1 BC, ISO 8601 as 0000 ---- */

enum { DATE_SIZE = 16 };

static const char *to_date(const char *date, char out[DATE_SIZE])
{
    bool before = strncmp(date, "0000-", 5) == 0;
    (void)snprintf(out, DATE_SIZE, before ? "0001-%.5s BC" : "%.10s", before ? date + 5 : date);
    return out;
}

static void read_date(const char *text, char out[11])
{
    bool before = strlen(text) > 10;
    (void)snprintf(out, 11, "%.4s%.6s", before ? "0000" : text, strlen(text) >= 10 ? text + 4 : "");
}

/* ---- reads ---- */

static void read_soiree(struct pg_rows *rows, struct soiree *soiree)
{
    int column = 0;
    soiree->seq = pg_int(rows, column++);
    soiree->version = pg_int(rows, column++);
    (void)text_copy(soiree->id, sizeof soiree->id, pg_text(rows, column++));
    (void)text_copy(soiree->client_id, sizeof soiree->client_id, pg_text(rows, column++));
    read_date(pg_text(rows, column++), soiree->date);
    (void)text_copy(soiree->lieu, sizeof soiree->lieu, pg_text(rows, column++));
    soiree->nombre_invites = pg_int(rows, column++);
    soiree->budget = pg_double(rows, column++);
    (void)text_copy(soiree->style, sizeof soiree->style, pg_text(rows, column++));
    (void)text_copy(soiree->statut, sizeof soiree->statut, pg_text(rows, column++));
    (void)text_copy(soiree->playlist_id, sizeof soiree->playlist_id, pg_text(rows, column++));
    (void)text_copy(soiree->request_id, sizeof soiree->request_id, pg_text(rows, column++));
    soiree->created_ms = pg_int(rows, column++);
    soiree->updated_ms = pg_int(rows, column++); /* NULL: 0 */
}

/* What is no UTF-8 is nobody's id, and an error for PostgreSQL. */
static bool can_be_id(const char *id)
{
    return utf8_valid(id, strlen(id));
}

static enum status get_one(struct store *base, const char *id, struct soiree *ret_soiree, struct err *err)
{
    if (!can_be_id(id))
        return STATUS_NOT_FOUND;
    CLEANUP(pg_rows_done) struct pg_rows rows = {0};
    enum status status = pg_query(postgres_of(base)->pg, GET, &rows, err, "t", id);
    if (status == STATUS_OK && !pg_next(&rows))
        return STATUS_NOT_FOUND;
    if (status == STATUS_OK)
        read_soiree(&rows, ret_soiree);
    return status;
}

static enum status list_page(struct store *base, const struct soiree_filter *filter,
                             const struct api_page *page, bool (*row)(void *arg, const struct soiree *soiree),
                             void *arg, struct err *err)
{
    struct pg *pg = postgres_of(base)->pg;
    CLEANUP(pg_rows_done) struct pg_rows rows = {0};
    char from_text[DATE_SIZE], to_text[DATE_SIZE];
    const char *from = *filter->date_from ? to_date(filter->date_from, from_text) : "-infinity";
    const char *to = *filter->date_to ? to_date(filter->date_to, to_text) : "infinity";
    enum status status;
    if (*filter->client_id)
        status = pg_query(pg, LIST_CLIENT, &rows, err, "itttit", page->before, filter->statut, from, to,
                          page->limit + 1, filter->client_id);
    else if (*filter->statut || *filter->date_from || *filter->date_to)
        status = pg_query(pg, *filter->statut ? LIST_STATUT : LIST_DATES, &rows, err, "ittti", page->before,
                          filter->statut, from, to, page->limit + 1);
    else
        status = pg_query(pg, LIST, &rows, err, "ii", page->before, page->limit + 1);
    while (status == STATUS_OK && pg_next(&rows)) {
        struct soiree soiree;
        read_soiree(&rows, &soiree);
        if (!row(arg, &soiree))
            break;
    }
    return status;
}

/* ---- writes: round 0 locks and reads, round 1 decides and writes ---- */

/* The message that asks for a playlist, "" where none is asked for. */
static void put_message(struct buf *body, struct store_write *write, int64_t now_ms)
{
    buf_init(body, 16 * 1024);
    write->requested = write->soiree.request_id[0];
    if (write->requested)
        soiree_put_message(body, &write->soiree, now_ms);
}

static void begin_create(struct store_write *write)
{
    struct soiree *soiree = &write->soiree;
    *soiree = write->change.values;
    uuid_v7(soiree->id);
    soiree->version = 1;
    soiree->created_ms = clock_wall_ms();
    if (!soiree->playlist_id[0])
        uuid_v7(soiree->request_id);
}

static void put_create(struct pg_job *job, struct store_write *write)
{
    struct soiree *s = &write->soiree;
    char date[DATE_SIZE];
    CLEANUP(buf_done) struct buf body;
    put_message(&body, write, s->created_ms);
    pg_put(job, CREATE, "ttttidttttitt", s->id, s->client_id, to_date(s->date, date), s->lieu,
           s->nombre_invites, s->budget, s->style, s->statut, text_or_null(s->playlist_id),
           text_or_null(s->request_id), s->created_ms, buf_get(&body), write->traceparent);
    job->last = true;
}

/* The answer of the last statement of the round before. */
static void read_created(struct pg_job *job, struct store_write *write)
{
    struct pg_rows rows = pg_answer(job, job->answer_count - 1);
    if (pg_next(&rows))
        write->soiree.seq = pg_int(&rows, 0);
}

static enum status create_with_key(struct pg_job *job, struct store_write *write, struct err *err)
{
    char id[sizeof write->soiree.id];
    CLEANUP(buf_done) struct buf document;
    buf_init(&document, 16 * 1024);
    soiree_put_document(&document, &write->change.values);
    if (job->round == 0) {
        begin_create(write);
        pg_keys_take(job, KEYS, write->key, buf_get(&document), write->soiree.id);
        return STATUS_OK;
    }
    if (job->round == 1) {
        enum status status = pg_keys_read(job, KEYS, buf_get(&document), id, sizeof id, err);
        if (status == STATUS_NOT_FOUND) {
            put_create(job, write);
            return STATUS_OK;
        }
        if (status == STATUS_OK) {
            pg_put(job, GET, "t", id);
            job->last = true;
        }
        return status;
    }
    if (job->answer_count > 1) { /* the key's clean-up, and the booking */
        read_created(job, write);
        return STATUS_OK;
    }
    struct pg_rows rows = pg_answer(job, 0);
    if (!pg_next(&rows))
        return err_set(err, STATUS_GONE, "Cette soirée a été supprimée depuis");
    read_soiree(&rows, &write->soiree);
    return STATUS_OK;
}

static enum status create(struct pg_job *job, struct store_write *write, struct err *err)
{
    if (write->key[0])
        return create_with_key(job, write, err);
    if (job->round == 0) {
        begin_create(write);
        put_create(job, write);
    } else {
        read_created(job, write);
    }
    return STATUS_OK;
}

/* Round 0 asks for the booking that a write is about; round 1 has it, its condition checked. */
static enum status load(struct pg_job *job, struct store_write *write, struct err *err)
{
    if (job->round == 0) {
        if (!can_be_id(write->id))
            return err_set(err, STATUS_NOT_FOUND, "Soirée non trouvée");
        pg_put(job, LOCK, "t", write->id);
        return STATUS_OK;
    }
    struct pg_rows rows = pg_answer(job, 0);
    if (!pg_next(&rows))
        return err_set(err, STATUS_NOT_FOUND, "Soirée non trouvée");
    read_soiree(&rows, &write->soiree);
    if (!api_conditions_hold(&write->conditions, write->soiree.version))
        return err_set(err, STATUS_STALE,
                       "La soirée est à la version \"%lld\", que la condition de la requête exclut",
                       (long long)write->soiree.version);
    return STATUS_OK;
}

static void put_update(struct pg_job *job, struct store_write *write, enum soiree_request request)
{
    struct soiree *s = &write->soiree;
    char date[DATE_SIZE];
    s->version++;
    s->updated_ms = clock_wall_ms();
    if (request != SOIREE_REQUEST_KEPT) {
        s->request_id[0] = '\0';
        pg_put(job, OUTBOX_DROP, "i", s->seq);
    }
    if (request == SOIREE_REQUEST_NEW)
        uuid_v7(s->request_id);
    pg_put(job, UPDATE, "iitttidtttti", s->seq, s->version, s->client_id, to_date(s->date, date), s->lieu,
           s->nombre_invites, s->budget, s->style, s->statut, text_or_null(s->playlist_id),
           text_or_null(s->request_id), s->updated_ms);
    if (request == SOIREE_REQUEST_NEW) {
        CLEANUP(buf_done) struct buf body;
        put_message(&body, write, s->updated_ms);
        pg_put(job, OUTBOX_INSERT, "ittt", s->seq, s->request_id, buf_get(&body), write->traceparent);
    }
    job->last = true;
}

static enum status change(struct pg_job *job, struct store_write *write, struct err *err)
{
    enum status status = load(job, write, err);
    if (status != STATUS_OK || job->round == 0)
        return status;
    bool changed = false;
    enum soiree_request request = soiree_apply(&write->soiree, &write->change, &changed);
    if (changed)
        put_update(job, write, request);
    return STATUS_OK;
}

static enum status link_playlist(struct pg_job *job, struct store_write *write, struct err *err)
{
    enum status status = load(job, write, err);
    if (status != STATUS_OK || job->round == 0)
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
    put_update(job, write, SOIREE_REQUEST_CANCELLED);
    return STATUS_OK;
}

static enum status delete_soiree(struct pg_job *job, struct store_write *write, struct err *err)
{
    enum status status = load(job, write, err);
    if (status == STATUS_OK && job->round == 1) {
        pg_put(job, DELETE, "i", write->soiree.seq); /* the outbox's row goes with it */
        job->last = true;
    }
    return status;
}

static enum status run_write(struct pg_job *job, struct err *err)
{
    struct store_write *write = OWNER(job, struct store_write, job.postgres);
    if (job->round == 0)
        store_write_begun(write);
    if (write->kind == STORE_CREATE)
        return create(job, write, err);
    if (job->round > 1)
        return STATUS_OK;
    switch (write->kind) {
    case STORE_CREATE:
    case STORE_CHANGE:
        return change(job, write, err);
    case STORE_LINK:
        return link_playlist(job, write, err);
    case STORE_DELETE:
        return delete_soiree(job, write, err);
    }
    return err_set(err, STATUS_INTERNAL, "unknown write");
}

static void write_done(struct pg_job *job)
{
    store_write_ended(OWNER(job, struct store_write, job.postgres), &job->err);
}

static void submit(struct store *base, struct store_write *write)
{
    write->store = base;
    write->job.postgres = (struct pg_job){
        .run = run_write,
        .done = write_done,
        .key = write->kind == STORE_CREATE ? write->key : write->id,
        .durable = true,
    };
    pg_submit(postgres_of(base)->pg, &write->job.postgres);
}

/* ---- opening ---- */

static void close_store(struct store *base)
{
    struct postgres_store *store = postgres_of(base);
    store_postgres_outbox_release(store);
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
    .outbox_look = store_postgres_outbox_look,
    .outbox_unsent = store_postgres_outbox_unsent,
    .outbox_get = store_postgres_outbox_get,
    .outbox_due = store_postgres_outbox_due,
    .outbox_take = store_postgres_outbox_take,
    .outbox_hold = store_postgres_outbox_hold,
    .outbox_poll_ms = store_postgres_outbox_poll_ms,
    .confirm = store_postgres_confirm,
};

enum status store_postgres_open(struct store **ret_store, const struct store_config *config, struct err *err)
{
    struct postgres_store *store = mem_new(sizeof *store);
    struct pg_config pg = {
        .url = config->url,
        .schema = "soirees",
        .application = "soirees",
        .migrations = soirees_postgres_schema,
        .migration_count = soirees_postgres_schema_count,
        .statements = statements,
        .statement_count = STATEMENT_COUNT,
        .readers = config->readers,
        .fatal = config->fatal,
        .changed = config->changed,
    };
    store->base.ops = &postgres_ops;
    store->again_after_ms = config->again_after_ms;
    uuid_v7(store->instance);
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
