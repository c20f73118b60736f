#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ids.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define HEX "0123456789abcdef"

static void test_a_uuid_has_the_shape_version_and_variant_of_rfc_9562(void **state)
{
    (void)state;
    for (int i = 0; i < 10000; i++) {
        char id[UUID_SIZE];
        memset(id, 'x', sizeof id);
        uuid_v7(id);
        assert_int_equal(strlen(id), 36);
        for (size_t at = 0; at < 36; at++)
            if (at == 8 || at == 13 || at == 18 || at == 23)
                assert_int_equal(id[at], '-');
            else
                assert_non_null(memchr(HEX, id[at], 16));
        assert_int_equal(id[14], '7');
        assert_non_null(memchr("89ab", id[19], 4));
    }
}

static int64_t uuid_ms(const char *id)
{
    unsigned long long high = 0, low = 0;
    assert_int_equal(sscanf(id, "%8llx-%4llx-", &high, &low), 2);
    return (int64_t)(high << 16 | low);
}

static void test_a_uuid_begins_with_the_time_it_was_made(void **state)
{
    (void)state;
    char id[UUID_SIZE];
    int64_t before = clock_wall_ms();
    uuid_v7(id);
    int64_t after = clock_wall_ms();
    assert_in_range(uuid_ms(id), before, after);
}

enum { THREADS = 4, IDS_A_THREAD = 50000 };

struct batch {
    char (*ids)[UUID_SIZE];
    pthread_t thread;
};

static void *make_batch(void *arg)
{
    struct batch *batch = arg;
    for (int i = 0; i < IDS_A_THREAD; i++)
        uuid_v7(batch->ids[i]);
    return NULL;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, UUID_SIZE);
}

static void test_no_uuid_comes_twice_whatever_the_thread(void **state)
{
    (void)state;
    enum { ALL = THREADS * IDS_A_THREAD };
    char(*ids)[UUID_SIZE] = mem_new(ALL * sizeof *ids);
    struct batch batches[THREADS];
    for (int i = 0; i < THREADS; i++) {
        batches[i].ids = ids + i * IDS_A_THREAD;
        assert_int_equal(pthread_create(&batches[i].thread, NULL, make_batch, &batches[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(batches[i].thread, NULL), 0);
    qsort(ids, ALL, sizeof *ids, compare_ids);
    int twice = 0;
    for (int i = 1; i < ALL; i++)
        twice += strcmp(ids[i - 1], ids[i]) == 0;
    free(ids);
    assert_int_equal(twice, 0);
}

static void test_every_random_digit_of_a_uuid_takes_every_value(void **state)
{
    (void)state;
    bool seen[36][16] = {0};
    for (int i = 0; i < 5000; i++) {
        char id[UUID_SIZE];
        uuid_v7(id);
        for (size_t at = 0; at < 36; at++)
            if (id[at] != '-')
                seen[at][strchr(HEX, id[at]) - HEX] = true;
    }
    for (size_t at = 15; at < 36; at++)
        for (size_t digit = 0; digit < 16; digit++)
            if (at != 18 && at != 23 && (at != 19 || (digit & 12) == 8))
                assert_true(seen[at][digit]);
}

static void test_the_clocks_agree_with_the_system(void **state)
{
    (void)state;
    int64_t before_s = (int64_t)time(NULL) - 1; /* time() may lag behind by a tick */
    int64_t wall_ms = clock_wall_ms();
    assert_in_range(wall_ms / 1000, before_s, (int64_t)time(NULL) + 1);
    struct timespec start, end;
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &start), 0);
    int64_t mono_ms = clock_mono_ms();
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &end), 0);
    assert_in_range(mono_ms, start.tv_sec * 1000 + start.tv_nsec / 1000000,
                    end.tv_sec * 1000 + end.tv_nsec / 1000000);
}

static void test_the_monotonic_clock_goes_forward_only(void **state)
{
    (void)state;
    int64_t start = clock_mono_ms(), last = start;
    while (last < start + 20) {
        int64_t now = clock_mono_ms();
        assert_true(now >= last);
        last = now;
    }
}

static void test_timestamps_are_utc_with_milliseconds(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {-1000, "1969-12-31T23:59:59.000Z"},
        {-1001, "1969-12-31T23:59:58.999Z"},
        {1764671400000, "2025-12-02T10:30:00.000Z"},
        {951782399999, "2000-02-28T23:59:59.999Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {1735689599050, "2024-12-31T23:59:59.050Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"}, /* 2100 is no leap year */
        {2147483648000, "2038-01-19T03:14:08.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {253402300800000, "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
        {-62167219200000, "0000-01-01T00:00:00.000Z"},
        {-62167219200001, "0000-01-01T00:00:00.000Z"},
        {INT64_MIN, "0000-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[TIMESTAMP_SIZE];
        memset(text, 'x', sizeof text);
        timestamp_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_timestamps_ignore_the_time_zone(void **state)
{
    (void)state;
    char text[TIMESTAMP_SIZE];
    assert_int_equal(setenv("TZ", "Pacific/Kiritimati", 1), 0);
    tzset();
    timestamp_format(1764671400000, text);
    assert_int_equal(unsetenv("TZ"), 0);
    tzset();
    assert_string_equal(text, "2025-12-02T10:30:00.000Z");
}

static void test_random_numbers_stay_below_their_bound(void **state)
{
    (void)state;
    static const uint32_t bounds[] = {1, 2, 3, 7, 10, 1000, 65536, 1u << 31, UINT32_MAX};
    assert_int_equal(random_below(0), 0);
    for (size_t i = 0; i < COUNT(bounds); i++)
        for (int draw = 0; draw < 1000; draw++)
            assert_true(random_below(bounds[i]) < bounds[i]);
}

/* 10,000 draws a value, standard deviation 95: a fair source misses these bounds once in 10^20 runs. */
static void test_random_numbers_are_uniform(void **state)
{
    (void)state;
    int counts[10] = {0};
    for (int i = 0; i < 100000; i++)
        counts[random_below(10)]++;
    for (size_t i = 0; i < COUNT(counts); i++)
        assert_in_range(counts[i], 9000, 11000);
}

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static const char *const bad_traceparents[] = {
    "",
    "00",
    "00-" TRACE "-" PARENT,
    "00-" TRACE "-" PARENT "-",
    "00-" TRACE "-" PARENT "-0",
    "00-" TRACE "-" PARENT "-011",
    "00-" TRACE "-" PARENT "-01 ",
    " 00-" TRACE "-" PARENT "-01",
    "00-" TRACE "-" PARENT "-01-x",
    "00-" TRACE "-" PARENT "-0g",
    "00-" TRACE "-" PARENT "-0A",
    "0a-" TRACE "-" PARENT "-01x",
    "0A-" TRACE "-" PARENT "-01",
    "0x-" TRACE "-" PARENT "-01",
    "01-" TRACE "-" PARENT,
    "ff-" TRACE "-" PARENT "-01",
    "0--" TRACE "-" PARENT "-01",
    "00_" TRACE "-" PARENT "-01",
    "00-" TRACE "_" PARENT "-01",
    "00-" TRACE "-" PARENT "_01",
    "00-00000000000000000000000000000000-" PARENT "-01",
    "00-" TRACE "-0000000000000000-01",
    "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
    "00-" TRACE "-00F067AA0BA902B7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e473g-" PARENT "-01",
    "00-" TRACE "-00f067aa0ba902b/-01",
    "00-" TRACE "-00f067aa0ba902b:-01",
    "00-4bf92f3577b34da6a3ce929d0e0e473-" PARENT "-001",
};

static void test_only_well_formed_traceparents_are_valid(void **state)
{
    (void)state;
    static const char *const good[] = {"00-" TRACE "-" PARENT "-01", "00-" TRACE "-" PARENT "-00",
                                       "00-" TRACE "-" PARENT "-ff",
                                       "01-" TRACE "-" PARENT "-01",
                                       "fe-" TRACE "-" PARENT "-01-what-comes-later",
                                       "00-00000000000000000000000000000001-0000000000000001-01",
                                       "00-10000000000000000000000000000000-1000000000000000-01"};
    for (size_t i = 0; i < COUNT(good); i++)
        if (!traceparent_valid(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < COUNT(bad_traceparents); i++)
        if (traceparent_valid(bad_traceparents[i]))
            fail_msg("accepted: %s", bad_traceparents[i]);
    assert_false(traceparent_valid(NULL));
}

static void test_a_valid_trace_goes_on_with_a_parent_of_ours(void **state)
{
    (void)state;
    static const struct {
        const char *version, *end, *flags;
    } cases[] = {{"00", "00", "00"}, {"00", "01", "01"},  {"00", "ff", "01"},
                 {"00", "fe", "00"}, {"00", "02", "00"}, {"5a", "01-x", "01"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char incoming[2 * TRACEPARENT_SIZE], out[TRACEPARENT_SIZE], next[TRACEPARENT_SIZE], id[TRACE_ID_SIZE];
        (void)snprintf(incoming, sizeof incoming, "%s-" TRACE "-" PARENT "-%s", cases[i].version, cases[i].end);
        memset(out, 'x', sizeof out);
        traceparent_continue(incoming, out);
        assert_true(traceparent_valid(out));
        assert_memory_equal(out, "00-" TRACE "-", 36);
        assert_string_equal(trace_id(incoming, id), TRACE);
        assert_memory_not_equal(out + 36, incoming + 36, 16);
        assert_string_equal(out + 53, cases[i].flags);
        traceparent_continue(incoming, next);
        assert_string_not_equal(out, next);
    }
}

static void assert_new_trace(const char *incoming)
{
    char out[TRACEPARENT_SIZE], other[TRACEPARENT_SIZE];
    traceparent_continue(incoming, out);
    traceparent_continue(incoming, other);
    assert_true(traceparent_valid(out));
    assert_string_equal(out + 52, "-01");
    assert_memory_not_equal(out + 3, other + 3, 32);
    assert_memory_not_equal(out + 36, other + 36, 16);
    assert_memory_not_equal(out + 3, TRACE, 32);
    assert_string_equal(trace_id(incoming, (char[TRACE_ID_SIZE]){"x"}), "");
}

static void test_without_a_valid_trace_a_new_sampled_one_begins(void **state)
{
    (void)state;
    assert_new_trace(NULL);
    for (size_t i = 0; i < COUNT(bad_traceparents); i++)
        assert_new_trace(bad_traceparents[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_uuid_has_the_shape_version_and_variant_of_rfc_9562),
        cmocka_unit_test(test_a_uuid_begins_with_the_time_it_was_made),
        cmocka_unit_test(test_no_uuid_comes_twice_whatever_the_thread),
        cmocka_unit_test(test_every_random_digit_of_a_uuid_takes_every_value),
        cmocka_unit_test(test_the_clocks_agree_with_the_system),
        cmocka_unit_test(test_the_monotonic_clock_goes_forward_only),
        cmocka_unit_test(test_timestamps_are_utc_with_milliseconds),
        cmocka_unit_test(test_timestamps_ignore_the_time_zone),
        cmocka_unit_test(test_random_numbers_stay_below_their_bound),
        cmocka_unit_test(test_random_numbers_are_uniform),
        cmocka_unit_test(test_only_well_formed_traceparents_are_valid),
        cmocka_unit_test(test_a_valid_trace_goes_on_with_a_parent_of_ours),
        cmocka_unit_test(test_without_a_valid_trace_a_new_sampled_one_begins),
    };
    return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
