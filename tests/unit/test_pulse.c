#include "pulse.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A thread that says what the test wants, step by step. */
struct turner {
    pthread_t thread;
    sem_t step, done;
    int64_t wait_ms;
    int stop;
};

static void *turn(void *arg)
{
    struct turner *turner = arg;
    for (;;) {
        sem_wait(&turner->step);
        if (turner->stop)
            return NULL;
        pulse_beat("turner", turner->wait_ms);
        sem_post(&turner->done);
    }
}

static void says(struct turner *turner, int64_t wait_ms)
{
    turner->wait_ms = wait_ms;
    sem_post(&turner->step);
    sem_wait(&turner->done);
}

static int start(void **state)
{
    static struct turner turner;
    turner = (struct turner){0};
    sem_init(&turner.step, 0, 0);
    sem_init(&turner.done, 0, 0);
    *state = &turner;
    return pthread_create(&turner.thread, NULL, turn, &turner);
}

static int stop(void **state)
{
    struct turner *turner = *state;
    if (!turner->stop) {
        turner->stop = 1;
        sem_post(&turner->step);
        pthread_join(turner->thread, NULL);
    }
    return 0;
}

/* Until it is late; how late it is said to be. */
static int64_t becomes_late(int64_t limit_ms)
{
    int64_t late_ms = 0;
    const char *name = NULL;
    while (!(name = pulse_late(limit_ms, &late_ms)))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_string_equal(name, "turner");
    return late_ms;
}

static void test_a_thread_that_is_back_in_time_is_not_late(void **state)
{
    int64_t late_ms = -1;
    says(*state, 60000);
    assert_null(pulse_late(0, &late_ms));
    says(*state, 0);
    assert_null(pulse_late(60000, &late_ms));
    assert_int_equal(late_ms, -1);
}

static void test_a_thread_that_stays_at_work_is_late_after_the_limit(void **state)
{
    says(*state, 0);
    assert_true(becomes_late(20) > 20);
    says(*state, 0);
    int64_t late_ms = 0;
    assert_null(pulse_late(20000, &late_ms)); /* it is back */
}

static void test_a_thread_that_waits_for_work_is_never_late(void **state)
{
    int64_t late_ms = 0;
    says(*state, 0);
    (void)becomes_late(1);
    says(*state, PULSE_IDLE);
    assert_null(pulse_late(0, &late_ms));
}

static void test_a_thread_that_ended_is_forgotten(void **state)
{
    int64_t late_ms = 0;
    says(*state, 0);
    (void)becomes_late(1);
    (void)stop(state);
    assert_null(pulse_late(0, &late_ms));
}

static void test_of_several_the_latest_is_named(void **state)
{
    says(*state, 0);
    (void)becomes_late(5);
    pulse_beat("here", 0); /* the test's own thread, later */
    assert_true(becomes_late(0) > 5);
    pulse_beat("here", PULSE_IDLE);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(test_a_thread_that_is_back_in_time_is_not_late),
        TEST(test_a_thread_that_stays_at_work_is_late_after_the_limit),
        TEST(test_a_thread_that_waits_for_work_is_never_late),
        TEST(test_a_thread_that_ended_is_forgotten),
        TEST(test_of_several_the_latest_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
