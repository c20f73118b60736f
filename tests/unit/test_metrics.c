/* Counting and measuring, and the text that Prometheus reads: buckets, labels, numbers; and a state's beginning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "cleanup.h"
#include "ids.h"
#include "metrics.h"
#include "since.h"

enum { THREADS = 4, ROUNDS = 50000 };

static const struct metrics_scale scale = {.units = 1000, .bounds = {1, 500, 2000}};

static void assert_shown(struct buf *out, const char *expected)
{
    assert_true(buf_ok(out));
    assert_string_equal(buf_get(out), expected);
}

static void test_a_counter_shows_all_its_series(void **state)
{
    (void)state;
    struct metrics_counter counter = {
        .name = "x_total", .help = "Xs.", .label = "outcome", .values = {"good", "bad"}};
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, METRICS_MAX_BYTES);
    metrics_count(&counter, 1);
    metrics_count(&counter, 1);
    metrics_put_counter(&out, &counter);
    assert_shown(&out, "# HELP x_total Xs.\n# TYPE x_total counter\n"
                       "x_total{outcome=\"good\"} 0\nx_total{outcome=\"bad\"} 2\n");
}

static void test_a_value_on_a_bound_is_in_its_bucket_and_buckets_add_up(void **state)
{
    (void)state;
    struct metrics_histogram histogram = {.name = "x_seconds", .help = "Xs.", .scale = &scale};
    static const int64_t values[] = {-7, 0, 1, 2, 500, 501, 2000, 2001, 1000000};
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, METRICS_MAX_BYTES);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        metrics_observe(&histogram, 0, values[i]);
    metrics_put_histogram(&out, &histogram);
    assert_shown(&out, "# HELP x_seconds Xs.\n# TYPE x_seconds histogram\n"
                       "x_seconds_bucket{le=\"0.001\"} 3\nx_seconds_bucket{le=\"0.5\"} 5\n"
                       "x_seconds_bucket{le=\"2\"} 7\nx_seconds_bucket{le=\"+Inf\"} 9\n"
                       "x_seconds_sum 1005.005\nx_seconds_count 9\n");
}

static void test_a_state_is_one_and_all_others_zero(void **state)
{
    (void)state;
    static const char *const states[] = {"up", "down", NULL};
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, METRICS_MAX_BYTES);
    metrics_put_state(&out, "x", "X.", states, "down");
    metrics_put_gauge(&out, "y_bytes", "Y.", 1795439988.7986);
    assert_shown(&out, "# HELP x X.\n# TYPE x gauge\nx{state=\"up\"} 0\nx{state=\"down\"} 1\n"
                       "# HELP y_bytes Y.\n# TYPE y_bytes gauge\ny_bytes 1795439988.7986\n");
}

static struct metrics_counter shared_counter = {.name = "x_total", .help = "Xs."};
static struct metrics_cells shared_cells;

static void *count_much(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        metrics_count(&shared_counter, 0);
        metrics_measure(&shared_cells, &scale, 3);
    }
    return NULL;
}

static void test_no_count_of_several_threads_is_lost(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(shared_counter.counts[0], THREADS * ROUNDS);
    assert_int_equal(shared_cells.buckets[1], THREADS * ROUNDS);
    assert_int_equal(shared_cells.sum, 3 * THREADS * ROUNDS);
}

static void test_the_process_tells_of_itself(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, METRICS_MAX_BYTES);
    metrics_put_process(&out, "test");
    static const char *const names[] = {
        "\nprocess_cpu_seconds_total ", "\nprocess_resident_memory_bytes ", "\nprocess_virtual_memory_bytes ",
        "\nprocess_threads 1\n",        "\nprocess_open_fds ",              "\nprocess_max_fds ",
        "\nprocess_start_time_seconds ", "\ntest_build_info{version=\""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_non_null(strstr(buf_get(&out), names[i]));
    const char *start = strstr(buf_get(&out), "\nprocess_start_time_seconds ");
    double age_s = (double)clock_wall_ms() / 1000 - strtod(start + strlen("\nprocess_start_time_seconds "), NULL);
    assert_true(age_s > -1 && age_s < 600);
}

static void test_a_state_keeps_its_beginning_until_it_changes(void **state)
{
    (void)state;
    struct since since = {0};
    int64_t before_ms = clock_wall_ms();
    since_set(&since, 0);
    int64_t began_ms = since_ms(&since);
    assert_true(began_ms >= before_ms && began_ms <= clock_wall_ms());
    while (clock_wall_ms() <= began_ms)
        continue;
    since_set(&since, 0);
    assert_int_equal(since_ms(&since), began_ms);
    since_set(&since, 3);
    assert_int_equal(since_state(&since), 3);
    assert_true(since_ms(&since) > began_ms);
}

static void test_a_uuid_tells_when_it_was_made(void **state)
{
    (void)state;
    char id[UUID_SIZE];
    int64_t before_ms = clock_wall_ms();
    uuid_v7(id);
    assert_true(uuid_time_ms(id) >= before_ms && uuid_time_ms(id) <= clock_wall_ms());
    assert_int_equal(uuid_time_ms("01A20890-1828-75ee-bbfe-e4c6a6fa62d4"), 0x01a208901828);
    static const char *const others[] = {"", "42", "01a20890-1828", "01a20890-1828-45ee-bbfe-e4c6a6fa62d4",
                                         "01a20890018287-75ee", "g1a20890-1828-75ee-bbfe-e4c6a6fa62d4"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(uuid_time_ms(others[i]), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_counter_shows_all_its_series),
        cmocka_unit_test(test_a_value_on_a_bound_is_in_its_bucket_and_buckets_add_up),
        cmocka_unit_test(test_a_state_is_one_and_all_others_zero),
        cmocka_unit_test(test_no_count_of_several_threads_is_lost),
        cmocka_unit_test(test_the_process_tells_of_itself),
        cmocka_unit_test(test_a_state_keeps_its_beginning_until_it_changes),
        cmocka_unit_test(test_a_uuid_tells_when_it_was_made),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
