/* common/amqp against a real RabbitMQ: messages, confirms, channels, queues. */
#include "amqp_broker.h"

/* ---- publishing and consuming ---- */

static void test_every_message_is_confirmed(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url},
                                                 open_for_publishing);
    struct batch batch = {.count = 1000, .publication = {.body = "{}", .body_len = 2, .message_id = "m"}};
    assert_true(session_do(session, publish, &batch));
    assert_int_equal(batch.last_tag, 1000);
    session_wait(session, e->confirmed == 1000);
    assert_int_equal(seen(session, lowest_unconfirmed), 1000);
    assert_int_equal(seen(session, nacks), 0);
    assert_int_equal(seen(session, returns), 0);
    (void)wait_for_messages(session, 1000);
    session_stop(session);
}

static void test_a_message_for_no_queue_comes_back_before_its_confirm(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url},
                                                 open_for_publishing);
    struct batch batch = {
        .count = 1,
        .publication = {.queue = "no-such-queue", .message_id = "lost-1", .body = "x", .body_len = 1}};
    assert_true(session_do(session, publish, &batch));
    session_wait(session, e->confirmed == 1);
    assert_int_equal(seen(session, returns), 1);
    assert_true(seen(session, return_before_ack));
    assert_int_equal(seen(session, code), 312);
    assert_string_equal(seen(session, text), "NO_ROUTE");
    assert_string_equal(seen(session, message_id), "lost-1");
    assert_int_equal(seen(session, channel), 1);
    session_stop(session);
}

static void check_sizes(struct session *session)
{
    static const size_t sizes[] = {0, 1, 8192 - 8, 8192, 131072, 200 * 1024, AMQP_BODY_MAX, 2 << 20, 3};
    CLEANUP(free_text) char *body = mem_new(2 << 20);
    for (size_t i = 0; i < 2 << 20; i++)
        body[i] = (char)(i * 7 + i / 251);
    struct amqp_header headers[] = {
        {"x-other", "1"}, {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t kept = sizes[i] < AMQP_BODY_MAX ? sizes[i] : AMQP_BODY_MAX;
        struct batch batch = {.count = 1,
                              .publication = {.message_id = "id-é",
                                              .type = "soiree.reservee",
                                              .app_id = "tests",
                                              .content_type = "application/json",
                                              .headers = headers,
                                              .header_count = i % 2 ? 2 : 0,
                                              .body = body,
                                              .body_len = sizes[i]}};
        assert_true(session_do(session, publish, &batch));
        session_wait(session, e->deliveries == i + 1);
        struct events *e = &session->events;
        assert_int_equal(e->body_size, sizes[i]);
        assert_int_equal(e->body_len, kept);
        assert_memory_equal(e->body, body, kept);
        assert_int_equal(e->body[kept], '\0');
        assert_string_equal(e->message_id, "id-é");
        assert_string_equal(e->type, "soiree.reservee");
        assert_string_equal(e->app_id, "tests");
        assert_string_equal(e->content_type, "application/json");
        assert_string_equal(e->traceparent, i % 2 ? headers[1].value : "");
        assert_false(e->redelivered);
        assert_true(session_do(session, ack_on_2, &e->tag));
    }
}

static void test_bodies_of_all_sizes_arrive_whole(void **state)
{
    (void)state;
    static const unsigned channels[] = {8, 100}; /* with large frames and with small ones */
    for (size_t i = 0; i < 2; i++) {
        struct amqp_config config = {.urls = broker_url, .channels = channels[i]};
        struct session *session = session_start_with(config, open_for_both);
        check_sizes(session);
        session_stop(session);
    }
}

static void test_prefetch_one_gives_the_next_message_after_the_ack(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    publish_text(session, 3, "x");
    session_wait(session, e->confirmed == 3 && e->deliveries == 1);
    struct amqp_queue found = wait_for_messages(session, 2);
    assert_true(found.exists);
    assert_int_equal(found.consumers, 1);
    assert_int_equal(seen(session, deliveries), 1);
    assert_true(session_do(session, ack_on_2, &(uint64_t){seen(session, tag)}));
    session_wait(session, e->deliveries == 2);
    assert_true(session_do(session, nack_on_2, &(uint64_t){seen(session, tag)}));
    session_wait(session, e->deliveries == 3);
    (void)wait_for_messages(session, 0);
    session_stop(session); /* the third one was not acknowledged */
    session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_consuming);
    session_wait(session, e->deliveries == 1);
    assert_true(seen(session, redelivered));
    session_stop(session);
}

static bool cancel_2(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_cancel(amqp, 2);
}

static void test_after_a_cancel_nothing_more_is_delivered(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    wait_for_consumers(session, 1);
    assert_true(session_do(session, cancel_2, NULL));
    wait_for_consumers(session, 0);
    publish_text(session, 1, "x");
    session_wait(session, e->confirmed == 1);
    (void)wait_for_messages(session, 1);
    assert_int_equal(seen(session, deliveries) + seen(session, cancels), 0);
    session_stop(session);
}

/* RabbitMQ 3.10 closes the connection when the basic.cancel comes too early. */
static bool consume_and_cancel(struct amqp *amqp, void *arg)
{
    bool up = ensure(amqp, arg) && amqp_channel_begin(amqp, 2);
    for (int i = 0; up && i < 50; i++)
        up = amqp_consume(amqp, 2, queue, 1) && amqp_cancel(amqp, 2);
    return up && amqp_channel_begin(amqp, 3) && amqp_consume(amqp, 3, queue, 1);
}

static void test_a_consumer_may_be_cancelled_at_once(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url},
                                                 consume_and_cancel);
    session_wait(session, e->ups == 1);
    wait_for_consumers(session, 1);
    assert_true(session_do(session, open_for_publishing, NULL));
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1);
    assert_int_equal(seen(session, channel), 3);
    assert_int_equal(seen(session, downs), 0);
    session_stop(session);
}

/* ---- channels ---- */

static bool reopen_2(struct amqp *amqp, void *arg)
{
    return amqp_channel_end(amqp, 2) && open_for_consuming(amqp, arg);
}

static void test_closing_a_channel_gives_its_message_back(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1);
    assert_false(seen(session, redelivered));
    for (unsigned i = 2; i < 12; i++) {
        assert_true(session_do(session, reopen_2, NULL));
        session_wait(session, e->deliveries == i);
        assert_true(seen(session, redelivered));
        assert_int_equal(seen(session, tag), 1);
    }
    assert_true(session_do(session, ack_on_2, &(uint64_t){seen(session, tag)}));
    (void)wait_for_messages(session, 0);
    assert_int_equal(seen(session, downs) + seen(session, closes), 0);
    session_stop(session);
}

static bool consume_nothing(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_channel_begin(amqp, 2) && amqp_consume(amqp, 2, "no-such-queue", 1);
}

static void test_a_channel_closed_by_the_broker_can_be_opened_again(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url},
                                                 open_for_publishing);
    assert_true(session_do(session, consume_nothing, NULL));
    session_wait(session, e->closes == 1);
    assert_int_equal(seen(session, channel), 2);
    assert_int_equal(seen(session, code), 404);
    assert_non_null(strstr(seen(session, text), "no-such-queue"));
    assert_true(session_do(session, ack_on_2, &(uint64_t){1})); /* nothing is sent */

    assert_true(session_do(session, open_for_consuming, NULL));
    assert_true(session_do(session, ack_on_2, &(uint64_t){7}));
    session_wait(session, e->closes == 2);
    assert_int_equal(seen(session, code), 406);
    assert_non_null(strstr(seen(session, text), "unknown delivery tag 7"));

    assert_true(session_do(session, open_for_consuming, NULL));
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1 && e->confirmed == 1);
    assert_int_equal(seen(session, downs), 0);
    session_stop(session);
}

static void test_deleting_the_queue_cancels_its_consumer(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, open_for_both);
    wait_for_consumers(session, 1);
    assert_int_equal(delete_queue(), 204);
    session_wait(session, e->cancels == 1);
    assert_int_equal(seen(session, channel), 2);
    assert_true(session_do(session, open_for_consuming, NULL)); /* on the same channel */
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1);
    session_stop(session);
}

static void test_a_queue_is_used_as_it_is(void **state)
{
    (void)state;
    struct session *session = session_start(broker_url);
    struct amqp_queue found = {.exists = true};
    for (int i = 0; i < 3; i++) {
        assert_true(session_do(session, look, &found));
        assert_false(found.exists);
    }
    declare_queue("{\"x-max-length\": 7, \"x-message-ttl\": 100000}");
    assert_true(session_do(session, look, &found));
    assert_true(found.exists);
    assert_true(session_do(session, ensure, NULL));
    assert_true(session_do(session, open_for_both, NULL));
    publish_text(session, 9, "x");
    session_wait(session, e->confirmed == 9 && e->deliveries == 1);
    (void)wait_for_messages(session, 7);
    assert_int_equal(seen(session, downs) + seen(session, closes), 0);
    session_stop(session);
}

static bool ensure_quorum(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_queue_ensure(amqp, queue, "quorum");
}

static void test_a_queue_of_another_type_is_made_where_none_is(void **state)
{
    (void)state;
    struct session *session = session_start_with((struct amqp_config){.urls = broker_url}, ensure_quorum);
    session_wait(session, e->ups == 1);
    CLEANUP(buf_done) struct buf answer;
    buf_init(&answer, 1 << 16);
    CLEANUP(free_text) char *path = mem_format("/api/queues/%%2F/%s", queue);
    assert_int_equal(call_ui("GET", path, "", &answer), 200);
    assert_non_null(strstr(buf_get(&answer), "\"type\":\"quorum\""));
    assert_true(session_do(session, open_for_both, NULL));
    publish_text(session, 1, "x");
    session_wait(session, e->deliveries == 1 && e->confirmed == 1);
    session_stop(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(test_every_message_is_confirmed),
        broker_test(test_a_message_for_no_queue_comes_back_before_its_confirm),
        broker_test(test_bodies_of_all_sizes_arrive_whole),
        broker_test(test_prefetch_one_gives_the_next_message_after_the_ack),
        broker_test(test_after_a_cancel_nothing_more_is_delivered),
        broker_test(test_a_consumer_may_be_cancelled_at_once),
        broker_test(test_closing_a_channel_gives_its_message_back),
        broker_test(test_a_channel_closed_by_the_broker_can_be_opened_again),
        broker_test(test_deleting_the_queue_cancels_its_consumer),
        broker_test(test_a_queue_is_used_as_it_is),
        broker_test(test_a_queue_of_another_type_is_made_where_none_is),
    };
    return run_broker_tests(tests, sizeof tests / sizeof *tests);
}
