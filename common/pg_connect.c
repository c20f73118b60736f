/* Making a connection: libpq's parameters, the session's settings, the schema, the prepared statements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "mem.h"
#include "pg_internal.h"

/* One lock for all services and instances: migrations are rare and short (manual, "Advisory Locks"). */
#define MIGRATION_LOCK "SELECT pg_advisory_xact_lock(5436893721)"

static void clear_result(PGresult **result)
{
    PQclear(*result);
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

/* ---- the URL ---- */

static void free_options(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}

/* One a host, by commas; nothing for the usual one. */
static bool are_ports(const char *ports)
{
    for (;; ports++) {
        size_t digits = strspn(ports, "0123456789");
        long port = digits ? strtol(ports, NULL, 10) : 1;
        ports += digits;
        if (port < 1 || port > 65535 || (*ports && *ports != ','))
            return false;
        if (!*ports)
            return true;
    }
}

/* What libpq looks at when it connects, which is too late for a setting (libpq manual, "Parameter Key
 * Words").
 */
static enum status check_options(const PQconninfoOption *option, struct err *err)
{
    static const struct {
        const char *keyword, *values;
    } choices[] = {
        {"sslmode", " disable allow prefer require verify-ca verify-full "},
        {"target_session_attrs", " any read-write primary "}, /* the others are no places to write at */
    };
    for (; option->keyword; option++) {
        const char *value = option->val ? option->val : "";
        for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
            CLEANUP(free_text) char *word = mem_format(" %s ", value);
            if (*value && strcmp(option->keyword, choices[i].keyword) == 0 &&
                !strstr(choices[i].values, word))
                return err_set(err, STATUS_INVALID, "%s is none of%.*s", choices[i].keyword,
                               (int)strlen(choices[i].values) - 1, choices[i].values);
        }
        if (strcmp(option->keyword, "port") == 0 && !are_ports(value))
            return err_set(err, STATUS_INVALID, "a port is a number from 1 to 65535");
        if (strcmp(option->keyword, "connect_timeout") == 0 && value[strspn(value, "0123456789")])
            return err_set(err, STATUS_INVALID, "connect_timeout is a number of seconds");
    }
    return STATUS_OK;
}

enum status pg_check_url(const char *value, struct err *err)
{
    static const char *const schemes[] = {"postgresql://", "postgres://"};
    const char *rest = NULL;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(value, schemes[i], strlen(schemes[i])) == 0)
            rest = value + strlen(schemes[i]);
    if (!rest)
        return err_set(err, STATUS_INVALID, "begins with neither postgresql:// nor postgres://");
    /* libpq ends the password at the first '@' and takes what follows for a host, which its errors show. */
    size_t authority = strcspn(rest, "/?");
    const char *at = memchr(rest, '@', authority);
    if ((at && memchr(at + 1, '@', authority - (size_t)(at + 1 - rest))) || (!at && strchr(rest, '@')))
        return err_set(
            err, STATUS_INVALID,
            "what is special in a URL must be percent-encoded in the password (@ is %%40, / is %%2F)");
    char *problem = NULL;
    CLEANUP(free_options) PQconninfoOption *options = PQconninfoParse(value, &problem);
    if (options)
        return check_options(options, err);
    size_t safe = problem ? strcspn(problem, "\":\n") : 0; /* behind it comes a part of the value */
    (void)err_set(err, STATUS_INVALID, "%.*s", safe ? (int)safe : 11, safe ? problem : "is no URL");
    PQfreemem(problem);
    return STATUS_INVALID;
}

/* ---- the session ---- */

/* Ours come first: what the URL says replaces them (libpq manual, PQconnectdbParams). A server that is gone
 * is noticed within half a minute, whoever waits for it. */
static PGconn *open_connection(const struct pg_config *config)
{
    const char *const names[] = {"connect_timeout",           "keepalives_idle",
                                 "keepalives_interval",       "keepalives_count",
                                 "tcp_user_timeout",          "target_session_attrs",
                                 "fallback_application_name", "dbname",
                                 "client_encoding",           NULL};
    const char *const values[] = {"5",         "10",   "5", "3", "15000", "read-write", config->application,
                                  config->url, "UTF8", NULL};
    return PQconnectdbParams(names, values, 1);
}

/* What our statements rely on, whatever the server's or the role's defaults are: with fewer digits a double
 * is not read as it was written, and SKIP LOCKED steps over no conflict where the isolation is stricter. A
 * session that waits for no flush would make every promise of ours empty; remote_apply and local are the
 * operator's choice. */
static enum status set_session(struct pg *pg, struct pg_session *session, struct err *err)
{
    static const char sql[] =
        "SELECT set_config('search_path', $1, false), set_config('statement_timeout', $2, false),"
        " set_config('lock_timeout', $3, false),"
        " set_config('idle_in_transaction_session_timeout', '30000', false),"
        " set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO, YMD', false),"
        " set_config('standard_conforming_strings', 'on', false),"
        " set_config('extra_float_digits', '1', false),"
        " set_config('default_transaction_isolation', 'read committed', false),"
        " set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
        " ELSE current_setting('synchronous_commit') END, false)";
    char statement_ms[16], lock_ms[16];
    (void)snprintf(statement_ms, sizeof statement_ms, "%d", PG_STATEMENT_MS);
    (void)snprintf(lock_ms, sizeof lock_ms, "%d", PG_LOCK_MS);
    const char *encoding = PQparameterStatus(session->pq, "server_encoding");
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return err_set(err, STATUS_IO, "PostgreSQL: la base est en %s, il faut UTF8",
                       encoding ? encoding : "?");
    return pg_do(session, sql, 3, (const char *const[]){pg->config.schema, statement_ms, lock_ms},
                 PG_ANSWER_MS, NULL, err);
}

/* ---- the schema ---- */

static enum status read_version(struct pg_session *session, size_t *ret_version, struct err *err)
{
    CLEANUP(clear_result) PGresult *result = NULL;
    enum status status = pg_do(session, "SELECT to_regclass('migrations') IS NOT NULL", 0, NULL, PG_ANSWER_MS,
                               &result, err);
    *ret_version = 0;
    if (status != STATUS_OK || strcmp(PQgetvalue(result, 0, 0), "t") != 0)
        return status;
    CLEANUP(clear_result) PGresult *found = NULL;
    status = pg_do(session, "SELECT coalesce(max(version), 0) FROM migrations", 0, NULL, PG_ANSWER_MS, &found,
                   err);
    if (status == STATUS_OK)
        *ret_version = strtoul(PQgetvalue(found, 0, 0), NULL, 10);
    return status;
}

static enum status check_version(struct pg *pg, size_t version, struct err *err)
{
    size_t known = pg->config.migration_count;
    if (version <= known)
        return STATUS_OK;
    (void)err_set(err, STATUS_IO, "PostgreSQL: the schema %s (version %zu) is newer than this program (%zu)",
                  pg->config.schema, version, known);
    if (pg->config.fatal)
        pg->config.fatal(err->text);
    pg->config.fatal = NULL;
    pg->config.changed = NULL; /* that was the last word */
    return STATUS_IO;
}

static enum status make_tables(struct pg *pg, struct pg_session *session, struct err *err)
{
    /* CREATE SCHEMA IF NOT EXISTS wants the right to create one even where there is one. */
    CLEANUP(free_text)
    char *sql = mem_format(
        "DO $$ BEGIN IF to_regnamespace('%s') IS NULL THEN CREATE SCHEMA %s; END IF; END $$;"
        "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY,"
        " name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(),"
        " probed_at timestamptz)",
        pg->config.schema, pg->config.schema);
    return pg_do(session, sql, 0, NULL, PG_MIGRATE_MS, NULL, err);
}

/* Inside a transaction that has the lock. */
static enum status apply(struct pg *pg, struct pg_session *session, struct err *err)
{
    size_t version = 0;
    enum status status = make_tables(pg, session, err);
    if (status == STATUS_OK)
        status = read_version(session, &version, err);
    if (status == STATUS_OK)
        status = check_version(pg, version, err);
    for (size_t i = version; status == STATUS_OK && i < pg->config.migration_count; i++) {
        const struct db_migration *migration = &pg->config.migrations[i];
        char number[24];
        (void)snprintf(number, sizeof number, "%zu", i + 1);
        status = pg_do(session, migration->sql, 0, NULL, PG_MIGRATE_MS, NULL, err);
        if (status == STATUS_OK)
            status = pg_do(session, "INSERT INTO migrations (version, name) VALUES ($1::integer, $2)", 2,
                           (const char *const[]){number, migration->name}, PG_ANSWER_MS, NULL, err);
    }
    return status;
}

/* Every instance looks; those that see an old schema wait for each other, and the first one brings it up to
 * date. */
static enum status migrate(struct pg *pg, struct pg_session *session, struct err *err)
{
    size_t version = 0;
    enum status status = read_version(session, &version, err);
    if (status == STATUS_OK)
        status = check_version(pg, version, err);
    if (status != STATUS_OK || version == pg->config.migration_count)
        return status;
    status = pg_do(session, "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0", 0, NULL,
                   PG_ANSWER_MS, NULL, err);
    if (status == STATUS_OK)
        status = pg_do(session, MIGRATION_LOCK, 0, NULL, PG_MIGRATE_MS, NULL, err);
    if (status == STATUS_OK)
        status = apply(pg, session, err);
    if (status == STATUS_OK)
        status = pg_do(session, "COMMIT", 0, NULL, PG_MIGRATE_MS, NULL, err);
    return status; /* a failure closes the session, and with it the transaction */
}

/* ---- statements ---- */

static enum status prepare(struct pg_session *session, const char *name, const char *sql, struct err *err)
{
    CLEANUP(clear_result) PGresult *result = NULL;
    if (!PQsendPrepare(session->pq, name, sql, 0, NULL)) {
        session->lost = true;
        return err_set(err, STATUS_IO, "PostgreSQL: connexion perdue");
    }
    return pg_finish_query(session, &result, err);
}

static enum status prepare_all(struct pg *pg, struct pg_session *session, bool writer, struct err *err)
{
    static const struct {
        const char *name, *sql;
    } controls[PG_CONTROLS] = {
        [PG_BEGIN] = {"begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
        [PG_ASYNC] = {"async", "SET LOCAL synchronous_commit TO off"},
        [PG_COMMIT] = {"commit", "COMMIT"},
        [PG_ROLLBACK] = {"rollback", "ROLLBACK"},
        [PG_PROBE] = {"probe", "UPDATE migrations SET probed_at = now() WHERE version = 1"},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; writer && status == STATUS_OK && i < PG_CONTROLS; i++)
        status = prepare(session, controls[i].name, controls[i].sql, err);
    for (unsigned i = 0; status == STATUS_OK && i < pg->config.statement_count; i++) {
        char name[16];
        pg_statement_name(i, name);
        status = prepare(session, name, pg->config.statements[i], err);
    }
    return status;
}

enum status pg_connect(struct pg *pg, bool writer, struct pg_session **ret_session, struct err *err)
{
    struct pg_session *session = mem_new(sizeof *session);
    session->pq = open_connection(&pg->config);
    if (!session->pq)
        abort(); /* out of memory */
    enum status status = STATUS_OK;
    if (PQstatus(session->pq) != CONNECTION_OK) {
        char text[240];
        pg_error_text(session->pq, text, sizeof text);
        status = err_set(err, STATUS_IO, "PostgreSQL: %s", text);
    }
    if (status == STATUS_OK) {
        (void)PQsetNoticeReceiver(session->pq, ignore_notice, NULL);
        (void)PQsetnonblocking(session->pq, 1);
        status = set_session(pg, session, err);
    }
    if (status == STATUS_OK && writer)
        status = migrate(pg, session, err);
    if (status == STATUS_OK)
        status = prepare_all(pg, session, writer, err);
    if (status == STATUS_OK && writer && !PQenterPipelineMode(session->pq))
        status = err_set(err, STATUS_IO, "PostgreSQL: no pipeline mode");
    if (status == STATUS_OK)
        *ret_session = session;
    else
        pg_session_close(session);
    return status;
}
