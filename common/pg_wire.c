/* One connection: sending, waiting with a deadline, and what the server's errors mean. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "pg_internal.h"

/* The first that fits counts (manual, appendix A, "PostgreSQL Error Codes"). */
static const struct {
    const char *prefix;
    enum status status;
    enum pg_fault fault;
} states[] = {
    {"40001", STATUS_BUSY, PG_FAULT_AGAIN}, /* serialization_failure */
    {"40P01", STATUS_BUSY, PG_FAULT_AGAIN}, /* deadlock_detected */
    {"23505", STATUS_CONFLICT, PG_FAULT_JOB},
    {"55P03", STATUS_BUSY, PG_FAULT_JOB}, /* lock_timeout: somebody's lock, passes */
    {"57014", STATUS_BUSY, PG_FAULT_JOB}, /* statement_timeout */
    {"22", STATUS_INTERNAL, PG_FAULT_JOB},
    {"23", STATUS_INTERNAL, PG_FAULT_JOB},
    {"P0", STATUS_INTERNAL, PG_FAULT_JOB},     /* raised by a trigger */
    {"53100", STATUS_FULL, PG_FAULT_DATABASE}, /* passes when the operator makes room */
    {"53", STATUS_BUSY, PG_FAULT_DATABASE},    /* memory, connections */
    {"25006", STATUS_IO, PG_FAULT_LOST},       /* became a standby: another server is to be looked for */
    {"57P", STATUS_IO, PG_FAULT_LOST},         /* it is being stopped, or starts */
    {"08", STATUS_IO, PG_FAULT_LOST},
    {"26000", STATUS_IO, PG_FAULT_LOST}, /* our statements are gone: a pooler between us? */
    {"0A000", STATUS_IO, PG_FAULT_LOST}, /* a cached plan no longer fits: the schema has changed */
    {"58", STATUS_IO, PG_FAULT_DATABASE},
    {"42", STATUS_IO, PG_FAULT_DATABASE}, /* a missing table, a missing right: a repair away */
    {"XX", STATUS_IO, PG_FAULT_DATABASE},
    {"", STATUS_IO, PG_FAULT_JOB},
};

enum status pg_state(const char *sqlstate, enum pg_fault *ret_fault)
{
    size_t i = 0;
    while (strncmp(sqlstate, states[i].prefix, strlen(states[i].prefix)) != 0)
        i++;
    *ret_fault = states[i].fault;
    return states[i].status;
}

void pg_error_text(PGconn *pq, char *out, size_t size)
{
    const char *message = PQerrorMessage(pq), *password = PQpass(pq);
    size_t len = 0, hidden = password ? strlen(password) : 0;
    bool hint = false;
    for (const char *at = message; *at && len + 4 < size; at++) {
        if (*at == '\t')
            hint = true; /* "Is the server running …?" */
        if (hidden >= 4 && strncmp(at, password, hidden) == 0) {
            memcpy(out + len, "***", 3);
            len += 3;
            at += hidden - 1;
        } else if (*at == '\n') {
            hint = false;
            if (at[1] && at[1] != '\t') {
                out[len++] = ';';
                out[len++] = ' ';
            }
        } else if (!hint) {
            out[len++] = *at;
        }
    }
    out[len] = '\0';
    text_mend(out);
}

static enum status lose(struct pg_session *session, struct err *err)
{
    char text[200];
    pg_error_text(session->pq, text, sizeof text);
    session->lost = true;
    return err_set(err, STATUS_IO, "PostgreSQL: %s", *text ? text : "connexion perdue");
}

enum status pg_failed(struct pg_session *session, const PGresult *result, enum pg_fault *ret_fault,
                      struct err *err)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    *ret_fault = PG_FAULT_LOST;
    if (!sqlstate) /* libpq's own: the connection */
        return lose(session, err);
    enum status status = pg_state(sqlstate, ret_fault);
    if (*ret_fault == PG_FAULT_LOST)
        session->lost = true;
    return err_set(err, status, "PostgreSQL: %s (%s)", text ? text : "?", sqlstate);
}

/* ---- sending ---- */

void pg_statement_name(unsigned statement, char name[16])
{
    (void)snprintf(name, 16, "s%u", statement);
}

bool pg_send(struct pg_session *session, const char *name, const char *types, va_list args)
{
    const char *values[PG_ARGS_MAX];
    char numbers[PG_ARGS_MAX][32];
    int count = 0;
    for (; *types; types++, count++) {
        if (count == PG_ARGS_MAX)
            abort();
        values[count] = numbers[count];
        if (*types == 't')
            values[count] = va_arg(args, const char *);
        else if (*types == 'i')
            (void)snprintf(numbers[count], sizeof numbers[count], "%lld", (long long)va_arg(args, int64_t));
        else if (*types == 'd')
            (void)snprintf(numbers[count], sizeof numbers[count], "%.17g", va_arg(args, double));
        else
            abort();
    }
    if (!session->lost && !PQsendQueryPrepared(session->pq, name, count, values, NULL, NULL, 0))
        session->lost = true;
    return !session->lost;
}

static bool send_bare(struct pg_session *session, const char *name, ...)
{
    va_list none;
    va_start(none, name);
    bool sent = pg_send(session, name, "", none);
    va_end(none);
    return sent;
}

bool pg_send_control(struct pg_session *session, enum pg_control control)
{
    static const char *const names[PG_CONTROLS] = {"begin", "async", "commit", "rollback", "probe"};
    return send_bare(session, names[control]);
}

/* ---- receiving ---- */

enum status pg_receive(struct pg_session *session, int64_t deadline_ms, PGresult **ret_result,
                       struct err *err)
{
    if (session->lost)
        return lose(session, err);
    while (PQisBusy(session->pq)) {
        int unsent = PQflush(session->pq);
        int64_t left_ms = deadline_ms - clock_mono_ms();
        struct pollfd ready = {.fd = PQsocket(session->pq), .events = unsent > 0 ? POLLIN | POLLOUT : POLLIN};
        if (unsent < 0)
            return lose(session, err);
        if (left_ms <= 0) {
            session->lost = true;
            return err_set(err, STATUS_IO, "PostgreSQL: pas de réponse");
        }
        if (poll(&ready, 1, (int)left_ms) < 0 && errno != EINTR)
            return lose(session, err);
        if ((ready.revents & ~POLLOUT) && !PQconsumeInput(session->pq))
            return lose(session, err);
    }
    *ret_result = PQgetResult(session->pq);
    if (!*ret_result && PQstatus(session->pq) != CONNECTION_OK)
        return lose(session, err);
    return STATUS_OK;
}

/* The results of one command outside of a pipeline: the first error, or the last result. */
static enum status receive_all(struct pg_session *session, int64_t deadline_ms, PGresult **ret_result,
                               struct err *err)
{
    PGresult *kept = NULL, *result = NULL;
    enum status status = STATUS_OK;
    for (;;) {
        enum status received = pg_receive(session, deadline_ms, &result, err);
        if (received != STATUS_OK) {
            PQclear(kept);
            return received;
        }
        if (!result)
            break;
        enum pg_fault fault;
        ExecStatusType kind = PQresultStatus(result);
        if (kind != PGRES_TUPLES_OK && kind != PGRES_COMMAND_OK && status == STATUS_OK)
            status = pg_failed(session, result, &fault, err);
        PQclear(kept);
        kept = result;
    }
    if (status == STATUS_OK && ret_result)
        *ret_result = kept;
    else
        PQclear(kept);
    return status;
}

enum status pg_do(struct pg_session *session, const char *sql, int value_count, const char *const *values,
                  int64_t timeout_ms, PGresult **ret_result, struct err *err)
{
    int sent = value_count ? PQsendQueryParams(session->pq, sql, value_count, NULL, values, NULL, NULL, 0)
                           : PQsendQuery(session->pq, sql);
    if (!sent)
        return lose(session, err);
    return receive_all(session, clock_mono_ms() + timeout_ms, ret_result, err);
}

enum status pg_finish_query(struct pg_session *session, PGresult **ret_result, struct err *err)
{
    return receive_all(session, clock_mono_ms() + PG_ANSWER_MS, ret_result, err);
}

/* A server says nothing to an idle session but that it ends it. */
bool pg_session_alive(struct pg_session *session)
{
    struct pollfd ready = {.fd = PQsocket(session->pq), .events = POLLIN};
    while (!session->lost && poll(&ready, 1, 0) > 0)
        if (!PQconsumeInput(session->pq) || PQstatus(session->pq) != CONNECTION_OK)
            session->lost = true;
    return !session->lost;
}

void pg_session_close(struct pg_session *session)
{
    if (!session)
        return;
    PQfinish(session->pq);
    free(session);
}
