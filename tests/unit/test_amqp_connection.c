/* common/amqp against a real RabbitMQ: connecting, losing, heartbeats, a thousand channels, stopping. */
#include "amqp_broker.h"

/* ---- connecting ---- */

static void test_a_wrong_password_is_said_and_not_tried_again_at_once(void **state)
{
    (void)state;
    CLEANUP(free_text)
    char *url = mem_format("amqp://%s:S3cret@%s:%d/", broker.user, broker.host, broker.port);
    struct session *session = session_start(url);
    session_wait(session, e->downs == 1);
    assert_non_null(strstr(seen(session, down_reason), "identifiants refusés : 403 ACCESS_REFUSED"));
    assert_null(strstr(seen(session, down_reason), "S3cret"));
    assert_null(strstr(seen(session, url), "S3cret"));
    assert_false(seen(session, was_up));
    /* The usual first wait is 0.5 s at most; four ticks are 1.5 s at least. */
    unsigned ticks = seen(session, ticks);
    session_wait(session, e->ticks >= ticks + 4);
    assert_int_equal(seen(session, downs), 1);
    int64_t start = clock_mono_ms();
    session_stop(session);
    assert_in_range(clock_mono_ms() - start, 0, 400);
}

static void test_an_unknown_virtual_host_is_said(void **state)
{
    (void)state;
    CLEANUP(free_text)
    char *url = mem_format("amqp://%s:%s@%s:%d/nowhere", broker.user, broker.password, broker.host,
                           broker.port);
    struct session *session = session_start(url);
    session_wait(session, e->downs == 2);
    assert_non_null(strstr(seen(session, down_reason), "hôte virtuel refusé : 530 NOT_ALLOWED"));
    session_stop(session);
}

static void test_a_dead_url_is_passed_over_for_the_next_one(void **state)
{
    (void)state;
    CLEANUP(free_text)
    char *urls = mem_format("amqp://127.0.0.1:1,amqp://no-such-host.invalid,%s", broker_url);
    struct session *session = session_start(urls);
    session_wait(session, e->ups == 1);
    assert_int_equal(seen(session, epoch), 1);
    assert_string_equal(seen(session, url), broker.shown);
    session_stop(session);
}

static bool refuse_once(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_epoch(amqp) > 1;
}

static void test_a_refusal_by_up_is_tried_again(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, refuse_once);
    session_wait(session, e->ups == 2);
    assert_int_equal(seen(session, downs), 1);
    assert_false(seen(session, was_up));
    session_stop(session);
}

static void test_a_connection_closed_by_the_broker_is_made_anew(void **state)
{
    (void)state;
    CLEANUP(free_text) char *name = mem_format("closed-%s", queue);
    struct amqp_config config = {.urls = broker_url, .connection_name = name};
    struct session *session = session_start_with(config, open_for_consuming);
    session_wait(session, e->ups == 1);
    close_connection_named(name);
    session_wait(session, e->downs == 1);
    assert_true(seen(session, was_up));
    assert_non_null(
        strstr(seen(session, down_reason), "connexion fermée par RabbitMQ : 320 CONNECTION_FORCED"));
    session_wait(session, e->ups == 2);
    assert_int_equal(seen(session, epoch), 2);
    session_stop(session);
}

static void test_the_heartbeat_goes_on_while_only_publishing_or_only_waiting(void **state)
{
    (void)state;
    struct amqp_config config = {.urls = broker_url, .heartbeat_s = 1};
    struct session *waiting = session_start_with(config, open_for_consuming);
    struct session *publishing = session_start_with(config, open_for_publishing);
    session_wait(waiting, e->ups == 1);
    session_wait(publishing, e->ups == 1);
    /* Without heartbeats the broker closes after three seconds. */
    int64_t end = clock_mono_ms() + 6000;
    for (unsigned i = 1; clock_mono_ms() < end; i++) {
        publish_text(publishing, 1, "x");
        session_wait(publishing, e->confirmed == i);
        unsigned ticks = seen(publishing, ticks);
        session_wait(publishing, e->ticks > ticks);
    }
    assert_int_equal(seen(waiting, downs), 0);
    assert_int_equal(seen(publishing, downs), 0);
    session_stop(waiting);
    session_stop(publishing);
}

/* ---- a thousand channels ---- */

enum { MANY = 1000 };

static bool open_many(struct amqp *amqp, void *arg)
{
    bool up = ensure(amqp, arg) && amqp_channel_begin(amqp, MANY + 1) &&
              amqp_channel_confirms(amqp, MANY + 1);
    for (unsigned channel = 1; up && channel <= MANY; channel++)
        up = amqp_channel_begin(amqp, channel) && amqp_consume(amqp, channel, queue, 1);
    return up;
}

static bool publish_many(struct amqp *amqp, void *arg)
{
    const struct amqp_publication publication = {.queue = queue, .body = arg, .body_len = strlen(arg)};
    for (unsigned i = 0; i < MANY; i++) {
        if (!amqp_publish(amqp, MANY + 1, &publication, NULL))
            return false;
    }
    return true;
}

static bool ack_many(struct amqp *amqp, void *arg)
{
    const uint64_t *tags = arg;
    for (unsigned channel = 1; channel <= MANY; channel++) {
        if (!amqp_ack(amqp, channel, tags[channel]))
            return false;
    }
    return true;
}

static long resident_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

static void test_a_thousand_channels_take_a_message_each(void **state)
{
    (void)state;
    long before_kib = resident_kib();
    struct amqp_config config = {.urls = broker_url, .channels = MANY + 1};
    int64_t start = clock_mono_ms();
    struct session *session = session_start_with(config, open_many);
    session_wait(session, e->ups == 1);
    wait_for_consumers(session, MANY);
    int64_t opened = clock_mono_ms();
    print_message("%d consumers after %lld ms, %ld KiB more\n", MANY, (long long)(opened - start),
                  resident_kib() - before_kib);
    for (unsigned round = 1; round <= 3; round++) {
        assert_true(session_do(session, publish_many, "x"));
        session_wait(session, e->deliveries == round * MANY && e->confirmed == round * MANY);
        for (unsigned channel = 1; channel <= MANY; channel++)
            assert_int_equal(seen(session, delivered_on)[channel], round);
        assert_true(session_do(session, ack_many, seen(session, tag_on)));
    }
    (void)wait_for_messages(session, 0);
    print_message("%d messages after %lld ms, %ld KiB more\n", 3 * MANY,
                  (long long)(clock_mono_ms() - opened), resident_kib() - before_kib);
    assert_int_equal(seen(session, downs) + seen(session, closes), 0);
    session_stop(session);
}

/* ---- waking and stopping ---- */

static void *wake_often(void *arg)
{
    struct session *session = arg;
    for (int i = 0; i < 1000; i++)
        amqp_wake(session->amqp);
    return NULL;
}

static void test_a_wake_from_any_thread_brings_a_tick(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wake_often, session), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    session_wait(session, e->ups == 1);
    int64_t start = clock_mono_ms();
    for (int i = 0; i < 20; i++) {
        unsigned ticks = seen(session, ticks);
        amqp_wake(session->amqp);
        session_wait(session, e->ticks > ticks);
    }
    assert_in_range(clock_mono_ms() - start, 0, AMQP_TICK_MS * 10);
    session_stop(session);
}

static void test_what_was_sent_before_the_stop_arrives(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1);
    assert_true(session_do(session, ack_on_2, &(uint64_t){seen(session, tag)}));
    int64_t start = clock_mono_ms();
    session_stop(session);
    assert_in_range(clock_mono_ms() - start, 0, 1000);
    session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_publishing);
    (void)wait_for_messages(session, 0);
    session_stop(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(test_a_wrong_password_is_said_and_not_tried_again_at_once),
        broker_test(test_an_unknown_virtual_host_is_said),
        broker_test(test_a_dead_url_is_passed_over_for_the_next_one),
        broker_test(test_a_refusal_by_up_is_tried_again),
        broker_test(test_a_connection_closed_by_the_broker_is_made_anew),
        broker_test(test_the_heartbeat_goes_on_while_only_publishing_or_only_waiting),
        broker_test(test_a_thousand_channels_take_a_message_each),
        broker_test(test_a_wake_from_any_thread_brings_a_tick),
        broker_test(test_what_was_sent_before_the_stop_arrives),
    };
    return run_broker_tests(tests, sizeof tests / sizeof *tests);
}
