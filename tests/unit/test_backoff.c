#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "backoff.h"

static void test_the_bound_doubles_up_to_the_maximum(void **state)
{
    (void)state;
    static const struct {
        unsigned failures;
        int64_t base_ms, max_ms, bound_ms;
    } cases[] = {
        {0, 100, 30000, 100},
        {1, 100, 30000, 200},
        {2, 100, 30000, 400},
        {8, 100, 30000, 25600},
        {9, 100, 30000, 30000}, /* 51200 */
        {10, 100, 30000, 30000},
        {31, 100, 30000, 30000},
        {32, 100, 30000, 30000},
        {63, 100, 30000, 30000},
        {64, 100, 30000, 30000},
        {1000000, 100, 30000, 30000},
        {UINT_MAX, 100, 30000, 30000},
        {UINT_MAX, 1, 1, 1},
        {0, 1, 1000, 1},
        {3, 1, 8, 8},
        {4, 1, 8, 8},
        {0, 500, 500, 500},
        {0, 900, 500, 500}, /* a base over the maximum */
        {5, 900, 500, 500},
        {40, 1, (int64_t)1 << 40, (int64_t)1 << 40},
        {39, 1, (int64_t)1 << 40, (int64_t)1 << 39},
        {UINT_MAX, 1, (int64_t)1 << 60, (int64_t)1 << 60},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(backoff_bound_ms(cases[i].failures, cases[i].base_ms, cases[i].max_ms),
                         cases[i].bound_ms);
}

static void test_a_wait_lies_between_half_the_base_and_the_bound(void **state)
{
    (void)state;
    static const int64_t bases_ms[] = {1, 2, 3, 100, 1000};
    static const int64_t maxima_ms[] = {1, 40, 1000, 30000, 3600000};
    for (size_t base = 0; base < 5; base++)
        for (size_t max = 0; max < 5; max++)
            for (unsigned failures = 0; failures < 70; failures++)
                for (int draw = 0; draw < 20; draw++) {
                    int64_t bound = backoff_bound_ms(failures, bases_ms[base], maxima_ms[max]);
                    int64_t wait = backoff_ms(failures, bases_ms[base], maxima_ms[max]);
                    int64_t least = (bases_ms[base] + 1) / 2;
                    assert_true(wait > 0 && wait <= bound);
                    assert_true(wait >= (least < bound ? least : bound));
                }
}

/* 100 waits of 51…150 are possible, 10,000 are drawn: a fair source misses one of them once in 10^41 runs. */
static void test_every_wait_up_to_the_bound_is_drawn(void **state)
{
    (void)state;
    bool seen[151] = {0};
    for (int draw = 0; draw < 10000; draw++)
        seen[backoff_ms(1, 100, 150)] = true;
    assert_false(seen[50]);
    for (int wait = 51; wait <= 150; wait++)
        assert_true(seen[wait]);
}

/* Full jitter: all quarters of the interval are equally likely, whatever the number of failures. */
static void test_waits_are_spread_over_the_whole_interval(void **state)
{
    (void)state;
    static const unsigned failures[] = {1, 5, 20, UINT_MAX};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        int64_t bound = backoff_bound_ms(failures[i], 1000, 30000);
        int quarters[4] = {0};
        for (int draw = 0; draw < 40000; draw++)
            quarters[(backoff_ms(failures[i], 1000, 30000) - 501) * 4 / (bound - 500)]++;
        for (int quarter = 0; quarter < 4; quarter++)
            assert_in_range(quarters[quarter], 9000, 11000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bound_doubles_up_to_the_maximum),
        cmocka_unit_test(test_a_wait_lies_between_half_the_base_and_the_bound),
        cmocka_unit_test(test_every_wait_up_to_the_bound_is_drawn),
        cmocka_unit_test(test_waits_are_spread_over_the_whole_interval),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
