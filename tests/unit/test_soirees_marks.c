/* Confirmed messages on their way to the store: how long they wait for company, and that none is lost. */
#include "soirees_fixture.h"

#include "soirees/marks.h"

enum { NOW_MS = 1000000, FEW = 3 };

static struct marks marks;
static sem_t asked; /* for a turn */

static void ask(void *arg)
{
    (void)arg;
    sem_post(&asked);
}

/* Bookings with their messages; the marks know nothing of them yet. */
static void begin(struct fixture *fixture, int count)
{
    for (int i = 0; i < count; i++) {
        struct store_write write = {.kind = STORE_CREATE};
        (void)text_copy(write.change.values.style, sizeof write.change.values.style, "disco");
        assert_int_equal(run_write(fixture, &write), STATUS_OK);
    }
    sem_init(&asked, 0, 0);
    marks_init(&marks, fixture->store, ask, NULL);
}

static void wait_for_the_store(void)
{
    wait_for(&asked);
    assert_int_equal(marks_turn(&marks, NOW_MS), INT64_MAX);
    assert_false(marks_unfinished(&marks));
    sem_destroy(&asked);
}

static void test_a_few_marks_wait_twenty_milliseconds(void **state)
{
    begin(*state, FEW);
    for (int64_t seq = 1; seq <= FEW; seq++)
        marks_add(&marks, seq, NOW_MS + seq, false);
    assert_int_equal(marks_turn(&marks, NOW_MS + 11), 10); /* since the first of them */
    assert_int_equal(marks_waiting(&marks), FEW);
    assert_true(marks_unfinished(&marks));
    assert_int_equal(count_unsent(*state), FEW);
    assert_int_equal(marks_turn(&marks, NOW_MS + 21), INT64_MAX);
    assert_int_equal(marks_waiting(&marks), 0);
    wait_for_the_store();
    assert_int_equal(count_unsent(*state), 0);
}

static void test_many_marks_and_urgent_ones_wait_for_nothing(void **state)
{
    begin(*state, FEW);
    marks_add(&marks, 1, NOW_MS, false);
    marks_add(&marks, 2, NOW_MS, true);
    (void)marks_turn(&marks, NOW_MS);
    wait_for_the_store();
    assert_int_equal(count_unsent(*state), FEW - 2);

    sem_init(&asked, 0, 0);
    for (int64_t seq = FEW; marks_turn(&marks, NOW_MS) > 0 && marks_waiting(&marks) < MARKS_MAX / 4 - 1; seq++)
        marks_add(&marks, seq, NOW_MS, false);
    assert_int_equal(count_unsent(*state), FEW - 2);
    marks_add(&marks, 1000, NOW_MS, false);
    (void)marks_turn(&marks, NOW_MS);
    wait_for_the_store();
    assert_int_equal(count_unsent(*state), 0);
}

static void test_the_end_waits_for_nothing(void **state)
{
    begin(*state, FEW);
    marks_add(&marks, 1, NOW_MS, false);
    marks_end(&marks);
    wait_for_the_store();
    assert_int_equal(count_unsent(*state), FEW - 1);
}

static void test_what_comes_while_the_store_is_at_work_goes_with_the_next_job(void **state)
{
    begin(*state, FEW);
    marks_add(&marks, 1, NOW_MS, true);
    (void)marks_turn(&marks, NOW_MS);
    marks_add(&marks, 2, NOW_MS, true);
    wait_for(&asked); /* the first job is done */
    (void)marks_turn(&marks, NOW_MS);
    wait_for_the_store();
    assert_int_equal(count_unsent(*state), FEW - 2);
}

static sem_t held, free_again;

static void hold_the_writer(struct store_write *write)
{
    (void)write;
    sem_post(&held);
    wait_for(&free_again);
}

static void test_the_end_waits_for_nothing_while_the_store_is_at_work(void **state)
{
    struct fixture *fixture = *state;
    struct store_write write = {.kind = STORE_CREATE, .done = hold_the_writer};
    begin(fixture, FEW);
    sem_init(&held, 0, 0);
    sem_init(&free_again, 0, 0);
    store_submit(fixture->store, &write);
    wait_for(&held);
    marks_add(&marks, 1, NOW_MS, true);
    (void)marks_turn(&marks, NOW_MS);
    marks_add(&marks, 2, NOW_MS, false);
    marks_end(&marks);
    sem_post(&free_again);
    close_store(fixture); /* runs what is queued */
    open_store(fixture);
    assert_int_equal(count_unsent(fixture), FEW + 1 - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_few_marks_wait_twenty_milliseconds),
        TEST(test_many_marks_and_urgent_ones_wait_for_nothing),
        TEST(test_the_end_waits_for_nothing),
        TEST(test_the_end_waits_for_nothing_while_the_store_is_at_work),
        TEST(test_what_comes_while_the_store_is_at_work_goes_with_the_next_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
