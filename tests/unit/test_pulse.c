/* Threads that are late, and those that are not. */
#include "raw_http.h"

#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "http_internal.h"
#include "pulse.h"

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

enum { PATIENCE = 30000 }; /* looks, a millisecond apart */

static void wait_a_little(int *looks)
{
    assert_true(++*looks < PATIENCE);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Until the thread of this name is late; how late it is said to be. */
static int64_t thread_becomes_late(const char *expected, int64_t limit_ms)
{
    int64_t late_ms = 0;
    const char *name = NULL;
    int looks = 0;
    while (!(name = pulse_late(limit_ms, &late_ms)))
        wait_a_little(&looks);
    assert_string_equal(name, expected);
    return late_ms;
}

static int64_t becomes_late(int64_t limit_ms)
{
    return thread_becomes_late("turner", limit_ms);
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

/* Whether the thread of this name sleeps (proc(5): the state follows the name). */
static bool sleeps(const char *name)
{
    CLEANUP(free_text) char *wanted = mem_format("(%s) S ", name);
    bool found = false;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        CLEANUP(free_text) char *path = mem_format("/proc/self/task/%s/stat", entry->d_name);
        char line[512] = "";
        FILE *file = fopen(path, "re");
        if (file) {
            found = fgets(line, sizeof line, file) && strstr(line, wanted);
            (void)fclose(file);
        }
    }
    if (folder)
        (void)closedir(folder);
    return found;
}

/* While nobody is connected it waits without an end; that ends with whoever comes. */
static void test_a_listener_that_is_held_up_by_the_first_to_come_is_late(void **state)
{
    (void)state;
    static const struct http_route routes[] = {{"GET", "/", raw_echo, 0}};
    unsigned port = 0;
    int looks = 0;
    struct http_server *server = raw_server(
        (struct http_server_config){.threads = 1, .routes = routes, .route_count = 1}, &port);
    while (!sleeps("http-listener"))
        wait_a_little(&looks);
    int64_t late_ms = 0;
    assert_null(pulse_late(0, &late_ms));
    pthread_mutex_lock(&server->listener.mutex);
    int fd = raw_dial(port);
    (void)thread_becomes_late("http-listener", 20);
    pthread_mutex_unlock(&server->listener.mutex);
    while (pulse_late(20, &late_ms))
        wait_a_little(&looks);
    (void)close(fd);
    http_server_close(server);
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
        cmocka_unit_test(test_a_listener_that_is_held_up_by_the_first_to_come_is_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
