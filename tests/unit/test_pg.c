/* PostgreSQL without a server: the URL's check, what errors mean, and that nothing waits for a connection. What
 * needs one is tested through the stores (test_soirees_store with STORE_URL, e2e/test_postgres.py). */
#include "temp_folder.h"

#include <arpa/inet.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>

#include "common/pg_internal.h"

/* ---- URLs ---- */

static void test_urls_that_libpq_takes(void **state)
{
    static const char *const urls[] = {
        "postgresql://",
        "postgres://u:p@h/d",
        "postgresql://u:p%40q%2F@[::1]:5432,h2:5433/d?target_session_attrs=read-write&sslmode=verify-full",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://h1,h2:5433,h3:/d?sslmode=require&target_session_attrs=primary&connect_timeout=3",
        "postgresql://h1,h2/d?port=5433",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(urls); i++) {
        struct err err = {0};
        if (pg_check_url(urls[i], &err) != STATUS_OK)
            fail_msg("%s: %s", urls[i], err.text);
    }
}

static void test_urls_that_are_refused_without_being_shown(void **state)
{
    static const char *const urls[] = {
        "",
        "s3cret",
        "host=h password=s3cret",
        "http://u:s3cret@h/d",
        "postgresql://u:s3cret@s3cret@h/d",
        "postgresql://u:s3cret/s3cret@h/d",
        "postgresql://u:s3cret?s3cret@h/d",
        "postgresql://u:s3cret%zz@h/d",
        "postgresql://u:s3cret@[::1/d",
        "postgresql://u:p@h/d?s3cret=1",
        "postgresql://u:p@h/d?s3cret",
        "postgresql://u:p@h/d?sslmode=s3cret",
        "postgresql://u:p@h/d?sslmode=verify",
        "postgresql://u:p@h/d?target_session_attrs=s3cret",
        "postgresql://u:p@h/d?target_session_attrs=standby",
        "postgresql://u:p@h/d?connect_timeout=s3cret",
        "postgresql://u:p@h:s3cret/d",
        "postgresql://u:p@h,h2:65536/d",
        "postgresql://u:p@h,h2:0/d",
        "postgresql://u:p@h/d?port=1,,99999999999999999999",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(urls); i++) {
        struct err err = {0};
        assert_int_equal(pg_check_url(urls[i], &err), STATUS_INVALID);
        assert_string_not_equal(err.text, "");
        if (strstr(err.text, "s3cret"))
            fail_msg("%s: %s", urls[i], err.text);
    }
}

/* ---- what errors mean ---- */

static void test_each_sqlstate_has_its_status_and_fault(void **state)
{
    static const struct {
        const char *sqlstate;
        enum status status;
        enum pg_fault fault;
    } cases[] = {
        {"40P01", STATUS_BUSY, PG_FAULT_AGAIN},    {"40001", STATUS_BUSY, PG_FAULT_AGAIN},
        {"23505", STATUS_CONFLICT, PG_FAULT_JOB},  {"23502", STATUS_INTERNAL, PG_FAULT_JOB},
        {"53100", STATUS_FULL, PG_FAULT_DATABASE}, {"53300", STATUS_BUSY, PG_FAULT_DATABASE},
        {"25006", STATUS_IO, PG_FAULT_LOST},       {"57P01", STATUS_IO, PG_FAULT_LOST},
        {"57014", STATUS_BUSY, PG_FAULT_JOB},      {"42P01", STATUS_IO, PG_FAULT_DATABASE},
        {"08006", STATUS_IO, PG_FAULT_LOST},       {"F0001", STATUS_IO, PG_FAULT_JOB},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        enum pg_fault fault = PG_FAULT_NONE;
        assert_int_equal(pg_state(cases[i].sqlstate, &fault), cases[i].status);
        assert_int_equal(fault, cases[i].fault);
        assert_true(status_retryable(cases[i].status) || fault == PG_FAULT_JOB);
    }
}

/* ---- no server ---- */

struct waited {
    struct pg_job job;
    sem_t done;
};

static enum status never(struct pg_job *job, struct err *err)
{
    (void)job;
    (void)err;
    fail_msg("a job ran without a connection");
    return STATUS_INTERNAL;
}

static void job_done(struct pg_job *job)
{
    sem_post(&OWNER(job, struct waited, job)->done);
}

static struct pg *open_at(const char *url)
{
    static const char *const statements[] = {"SELECT 1"};
    struct pg_config config = {.url = url,
                               .schema = "test",
                               .application = "test",
                               .statements = statements,
                               .statement_count = 1,
                               .readers = 2};
    struct pg *pg = NULL;
    struct err err = {0};
    if (pg_open(&pg, &config, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return pg;
}

/* A port that nobody answers at: connections are accepted by the kernel, and that is all. */
static int listen_silently(unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static void assert_refused(struct pg *pg)
{
    struct waited waited = {.job = {.run = never, .done = job_done, .key = "", .durable = true}};
    struct pg_rows rows = {0};
    struct err err = {0};
    int64_t since_ms = 0, began_ms = clock_mono_ms();
    sem_init(&waited.done, 0, 0);
    pg_submit(pg, &waited.job);
    wait_for(&waited.done);
    sem_destroy(&waited.done);
    assert_int_equal(waited.job.err.status, STATUS_IO);
    assert_int_equal(pg_query(pg, 0, &rows, &err, ""), STATUS_IO);
    assert_int_equal(pg_health(pg, &since_ms, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "PostgreSQL"));
    assert_true(clock_mono_ms() - began_ms < 2000);
}

static void test_without_a_server_everything_fails_at_once(void **state)
{
    unsigned port = 0;
    (void)state;
    int fd = listen_silently(&port);
    close_fd(&fd); /* nobody listens there now */
    CLEANUP(free_text) char *url = mem_format("postgresql://u:geheim@127.0.0.1:%u/d", port);
    struct pg *pg = open_at(url);
    assert_refused(pg);
    struct err err = {0};
    int64_t since_ms, end_ms = clock_mono_ms() + WAIT_MAX_S * 1000;
    do {
        assert_true(clock_mono_ms() < end_ms);
        (void)usleep(1000);
        assert_int_equal(pg_health(pg, &since_ms, &err), STATUS_IO);
    } while (!strstr(err.text, "Connection refused"));
    assert_null(strstr(err.text, "geheim"));
    assert_null(strchr(err.text, '\n'));
    assert_refused(pg);
    pg_close(pg);
}

static void test_a_silent_server_holds_up_neither_jobs_nor_the_end(void **state)
{
    unsigned port = 0;
    (void)state;
    int fd = listen_silently(&port);
    CLEANUP(free_text) char *url = mem_format("postgresql://u:geheim@127.0.0.1:%u/d?connect_timeout=2", port);
    struct pg *pg = open_at(url);
    assert_refused(pg);
    int64_t began_ms = clock_mono_ms();
    pg_close(pg);
    assert_true(clock_mono_ms() - began_ms < 2000);
    close_fd(&fd); /* ends the connection, and with it the thread that was left behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls_that_libpq_takes),
        cmocka_unit_test(test_urls_that_are_refused_without_being_shown),
        cmocka_unit_test(test_each_sqlstate_has_its_status_and_fault),
        cmocka_unit_test(test_without_a_server_everything_fails_at_once),
        cmocka_unit_test(test_a_silent_server_holds_up_neither_jobs_nor_the_end),
    };
    return cmocka_run_group_tests_name("pg", tests, NULL, NULL);
}
