/* The loop of http_client without any HTTP: tasks and timers. What they do is noted in the loop's thread and looked at when
 * that is over. */
#include "temp_folder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "http_client.h"
#include "ids.h"

enum { EVENTS_MAX = 8192 };

struct fixture {
    struct http_client *client;
    int events[EVENTS_MAX]; /* the loop's thread alone, until posted */
    int count;
    sem_t done;
};

static int new_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    struct err err = {0};
    sem_init(&fixture->done, 0, 0);
    if (http_client_start(&fixture->client, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    *state = fixture;
    return 0;
}

static int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    http_client_stop(fixture->client);
    http_client_free(fixture->client);
    sem_destroy(&fixture->done);
    free(fixture);
    return 0;
}

static void note(struct fixture *fixture, int event)
{
    if (fixture->count < EVENTS_MAX)
        fixture->events[fixture->count++] = event;
}

/* ---- tasks ---- */

struct numbered_task {
    struct http_task task;
    struct fixture *fixture;
    int number, left;
    bool last;
};

static void run_numbered(struct http_task *task)
{
    struct numbered_task *numbered = OWNER(task, struct numbered_task, task);
    note(numbered->fixture, numbered->number);
    if (numbered->last)
        sem_post(&numbered->fixture->done);
}

static void test_tasks_run_in_the_order_of_their_posting(void **state)
{
    enum { TASKS = 1000 };
    struct fixture *fixture = *state;
    static struct numbered_task tasks[TASKS];
    for (int i = 0; i < TASKS; i++) {
        tasks[i] = (struct numbered_task){{.run = run_numbered}, fixture, i, 0, i == TASKS - 1};
        http_client_post(fixture->client, &tasks[i].task);
    }
    wait_for(&fixture->done);
    assert_int_equal(fixture->count, TASKS);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(fixture->events[i], i);
}

static void run_again(struct http_task *task)
{
    struct numbered_task *numbered = OWNER(task, struct numbered_task, task);
    note(numbered->fixture, numbered->left);
    if (numbered->left-- > 0)
        http_client_post(numbered->fixture->client, task);
    else
        sem_post(&numbered->fixture->done);
}

static void test_a_task_may_be_posted_again_once_it_runs(void **state)
{
    struct fixture *fixture = *state;
    struct numbered_task again = {.task = {.run = run_again}, .fixture = fixture, .left = 100};
    http_client_post(fixture->client, &again.task);
    wait_for(&fixture->done);
    assert_int_equal(fixture->count, 101);
    assert_int_equal(fixture->events[100], 0);
}

struct poster {
    struct fixture *fixture;
    struct numbered_task tasks[1000];
    pthread_t thread;
};

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    for (size_t i = 0; i < COUNT(poster->tasks); i++)
        http_client_post(poster->fixture->client, &poster->tasks[i].task);
    return NULL;
}

static void test_no_task_is_lost_whoever_posts_it(void **state)
{
    struct fixture *fixture = *state;
    static struct poster posters[4];
    int next[COUNT(posters)] = {0};
    for (size_t p = 0; p < COUNT(posters); p++) {
        posters[p].fixture = fixture;
        for (int i = 0; i < 1000; i++)
            posters[p].tasks[i] =
                (struct numbered_task){{.run = run_numbered}, fixture, (int)p * 1000 + i, 0, i == 999};
        assert_int_equal(pthread_create(&posters[p].thread, NULL, post_all, &posters[p]), 0);
    }
    for (size_t p = 0; p < COUNT(posters); p++) {
        wait_for(&fixture->done);
        assert_int_equal(pthread_join(posters[p].thread, NULL), 0);
    }
    assert_int_equal(fixture->count, 4000);
    for (int i = 0; i < fixture->count; i++) /* of each poster in its order */
        assert_int_equal(fixture->events[i] % 1000, next[fixture->events[i] / 1000]++);
}

static void test_a_task_wakes_the_loop_at_once(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 20; i++) {
        struct numbered_task task = {{.run = run_numbered}, fixture, i, 0, true};
        int64_t start = clock_mono_ms();
        http_client_post(fixture->client, &task.task);
        wait_for(&fixture->done);
        assert_true(clock_mono_ms() - start < 500); /* not the turn of a second */
    }
}

static void test_what_is_posted_after_the_stop_never_runs(void **state)
{
    struct fixture *fixture = *state;
    struct numbered_task task = {{.run = run_numbered}, fixture, 1, 0, true};
    http_client_stop(fixture->client);
    http_client_post(fixture->client, &task.task);
    http_client_free(fixture->client);
    fixture->client = NULL;
    assert_int_equal(fixture->count, 0);
}

/* ---- timers ---- */

enum { TIMERS = 8 };

struct numbered_timer {
    struct http_timer timer;
    struct fixture *fixture;
    int number;
    int64_t armed_ms, fired_ms;
};

/* A test of timers: `arm` sets them up in the loop's thread; it is over when number 0 fires. */
struct timing {
    struct http_task task;
    struct fixture *fixture;
    struct numbered_timer timers[TIMERS];
    void (*arm)(struct timing *timing);
};

static void on_fire(struct http_timer *timer)
{
    struct numbered_timer *numbered = OWNER(timer, struct numbered_timer, timer);
    numbered->fired_ms = clock_mono_ms();
    note(numbered->fixture, numbered->number);
    if (numbered->number == 0)
        sem_post(&numbered->fixture->done);
}

static void after(struct timing *timing, int number, int64_t delay_ms)
{
    timing->timers[number].armed_ms = clock_mono_ms();
    http_client_after(timing->fixture->client, &timing->timers[number].timer, delay_ms);
}

static void disarm(struct timing *timing, int number)
{
    http_client_disarm(timing->fixture->client, &timing->timers[number].timer);
}

static void run_timing(struct http_task *task)
{
    struct timing *timing = OWNER(task, struct timing, task);
    timing->arm(timing);
}

static void time_it(struct fixture *fixture, struct timing *timing, void (*arm)(struct timing *timing),
                    const int *expected, int expected_count)
{
    *timing = (struct timing){.task = {.run = run_timing}, .fixture = fixture, .arm = arm};
    for (int i = 0; i < TIMERS; i++)
        timing->timers[i] = (struct numbered_timer){{.fire = on_fire}, fixture, i, 0, 0};
    http_client_post(fixture->client, &timing->task);
    wait_for(&fixture->done);
    http_client_stop(fixture->client); /* nothing more is noted */
    assert_int_equal(fixture->count, expected_count);
    for (int i = 0; i < expected_count; i++)
        assert_int_equal(fixture->events[i], expected[i]);
}

static void arm_in_disorder(struct timing *timing)
{
    after(timing, 3, 60);
    after(timing, 1, 20);
    after(timing, 0, 120);
    after(timing, 2, 40);
    after(timing, 4, 0);
    after(timing, 5, 90);
}

static void test_timers_fire_in_the_order_of_their_times_and_never_early(void **state)
{
    static const int expected[] = {4, 1, 2, 3, 5, 0};
    static const int64_t delays[] = {120, 20, 40, 60, 0, 90};
    struct timing timing;
    time_it(*state, &timing, arm_in_disorder, expected, COUNT(expected));
    for (int i = 0; i < 6; i++) {
        assert_true(timing.timers[i].fired_ms - timing.timers[i].armed_ms >= delays[i]);
        assert_false(timing.timers[i].timer.armed);
    }
}

static void arm_at_one_time(struct timing *timing)
{
    for (int i = TIMERS - 1; i >= 0; i--) {
        after(timing, i, 0);
        timing->timers[i].timer.at_ms = timing->timers[TIMERS - 1].timer.at_ms;
    }
}

static void test_timers_of_one_time_fire_as_they_were_armed(void **state)
{
    static const int expected[] = {7, 6, 5, 4, 3, 2, 1, 0};
    struct timing timing;
    time_it(*state, &timing, arm_at_one_time, expected, COUNT(expected));
}

static void arm_and_move(struct timing *timing)
{
    after(timing, 1, 10);
    after(timing, 2, 20);
    after(timing, 3, 30);
    after(timing, 0, 5);
    after(timing, 1, 40); /* later */
    after(timing, 3, 1);  /* sooner */
    after(timing, 0, 80);
    after(timing, 2, 20); /* the same */
}

static void test_arming_an_armed_timer_moves_it(void **state)
{
    static const int expected[] = {3, 2, 1, 0};
    struct timing timing;
    time_it(*state, &timing, arm_and_move, expected, COUNT(expected));
}

static void arm_and_disarm(struct timing *timing)
{
    for (int i = 1; i < 6; i++)
        after(timing, i, 10 * i);
    disarm(timing, 1); /* the first, one in the middle, the last */
    disarm(timing, 3);
    disarm(timing, 5);
    disarm(timing, 5); /* twice, and one that never was */
    disarm(timing, 7);
    after(timing, 0, 80);
}

static void test_a_disarmed_timer_does_not_fire(void **state)
{
    static const int expected[] = {2, 4, 0};
    struct timing timing;
    time_it(*state, &timing, arm_and_disarm, expected, COUNT(expected));
}

/* Fires, and arms itself or another again from its callback. */
static void on_chain(struct http_timer *timer)
{
    struct numbered_timer *numbered = OWNER(timer, struct numbered_timer, timer);
    struct timing *timing = OWNER(numbered - numbered->number, struct timing, timers);
    note(numbered->fixture, numbered->number);
    after(timing, numbered->fixture->count < 4 ? 1 : 0, 5);
    if (numbered->fixture->count == 3)
        after(timing, 2, 5); /* due together with number 1 ... */
    if (numbered->fixture->count == 4)
        disarm(timing, 2); /* ... which is faster */
}

static void arm_chain(struct timing *timing)
{
    timing->timers[1].timer.fire = on_chain;
    timing->timers[2].timer.fire = on_chain;
    after(timing, 1, 5);
}

static void test_a_callback_may_arm_and_disarm_timers(void **state)
{
    static const int expected[] = {1, 1, 1, 1, 0};
    struct timing timing;
    time_it(*state, &timing, arm_chain, expected, COUNT(expected));
    assert_false(timing.timers[2].timer.armed);
}

static int global_init(void **state)
{
    (void)state;
    http_client_global_init();
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, new_fixture, free_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tasks_run_in_the_order_of_their_posting),
        TEST(test_a_task_may_be_posted_again_once_it_runs),
        TEST(test_no_task_is_lost_whoever_posts_it),
        TEST(test_a_task_wakes_the_loop_at_once),
        TEST(test_what_is_posted_after_the_stop_never_runs),
        TEST(test_timers_fire_in_the_order_of_their_times_and_never_early),
        TEST(test_timers_of_one_time_fire_as_they_were_armed),
        TEST(test_arming_an_armed_timer_moves_it),
        TEST(test_a_disarmed_timer_does_not_fire),
        TEST(test_a_callback_may_arm_and_disarm_timers),
    };
    return cmocka_run_group_tests_name("http_loop", tests, global_init, NULL);
}
